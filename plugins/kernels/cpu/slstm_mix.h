// The recurrent product y R of XlstmSLSTM, and R as it is packed for it.
//
// A head's R is read once a step, which is what a step of few rows waits for. Where every number of
// R is a bfloat16 (of a TiRex, and of a bfloat16 bundle), R is kept in half the bytes. The
// arithmetic is the same: each is widened to the float it stands for, and added up in the same
// order.
#pragma once

#include "element.h"

namespace xlstm::cpu::XLSTM_ISA {

// Accumulators of y R: one row of y keeps this many vectors of columns at once, several share them.
#if defined(__AVX512F__) || defined(__ARM_NEON)
inline constexpr int kMixVectors = 16;
#elif defined(__AVX2__)
inline constexpr int kMixVectors = 12;
#else
inline constexpr int kMixVectors = 8;
#endif
inline constexpr int kMixRows = 4;

template <class T>
inline constexpr int64_t kMixColumns = kMixVectors * kLanes<T>;

// Two bfloat16 of one column: of an even input in the lower half, of the next in the upper.
struct BfloatPair {
  uint32_t bits;
};

// Inputs that one packed number holds.
template <class P>
inline constexpr int kInputs = 1;
template <>
inline constexpr int kInputs<BfloatPair> = 2;

// Per gate H padded to whole vectors; of the four gates together, whole panels of kMixColumns.
template <class T>
XLSTM_INLINE int64_t slstm_padded(int64_t H) {
  return round_up(H, kLanes<T>);
}
template <class T>
XLSTM_INLINE int64_t slstm_columns(int64_t H) {
  return round_up(4 * slstm_padded<T>(H), kMixColumns<T>);
}

// What stands before the packed numbers.
struct alignas(kVectorBytes) PackedHead {
  int32_t is_paired;
};

template <class T>
size_t slstm_packed_size(const Problem& problem) {
  const int64_t H = problem.sizes[slstm::size_H];
  const int64_t numbers = problem.sizes[slstm::size_N] * H * slstm_columns<T>(H);
  return sizeof(PackedHead) + static_cast<size_t>(numbers) * sizeof(T);
}

// Numbers of one head in packed form.
template <class T, class P>
XLSTM_INLINE int64_t slstm_head_numbers(int64_t H) {
  return round_up(H, kInputs<P>) / kInputs<P> * slstm_columns<T>(H);
}

XLSTM_INLINE void put(double* to, int64_t, Vec<double> v) { store(to, v); }
XLSTM_INLINE void put(float* to, int64_t, Vec<float> v) { store(to, v); }
XLSTM_INLINE void put(BfloatPair* to, int64_t input, Vec<float> v) {
  const Uint32s bits = (Uint32s)v;
  Uint32s pair = bits >> 16;
  if (input % 2 != 0) {
    std::memcpy(&pair, to, sizeof pair);
    pair |= bits & 0xffff0000u;
  }
  std::memcpy(to, &pair, sizeof pair);
}

// R [N,H_in,4,H_out] -> [N][panel][H_in][kMixColumns], columns in the order gate, padded H_out;
// with pairs [N][panel][ceil(H_in/2)][kMixColumns]. `out` holds zeros.
template <class TX, class P>
void slstm_pack_as(const Problem& problem, const TX* R, P* out) {
  using T = Arithmetic<TX>;
  const int64_t N = problem.sizes[slstm::size_N], H = problem.sizes[slstm::size_H];
  const int64_t padded = slstm_padded<T>(H), panel_inputs = round_up(H, kInputs<P>) / kInputs<P>;
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t j = 0; j < H; ++j) {
      for (int64_t gate = 0; gate < 4; ++gate) {
        for (int64_t e = 0; e < H; e += kLanes<T>) {
          const int64_t column = gate * padded + e;
          const int64_t panel = column / kMixColumns<T>, place = column % kMixColumns<T>;
          put(out + (panel * panel_inputs + j / kInputs<P>) * kMixColumns<T> + place, j,
              load_wide_first(R + (j * 4 + gate) * H + e, H - e));
        }
      }
    }
    R += H * 4 * H;
    out += slstm_head_numbers<T, P>(H);
  }
}

XLSTM_INLINE bool are_bfloat16(const double*, int64_t) { return false; }
template <class TX>
bool are_bfloat16(const TX* numbers, int64_t count) {
  Uint32s lower = {};
  for (int64_t i = 0; i < count; i += kLanes<float>) {
    lower |= (Uint32s)load_wide_first(numbers + i, count - i) & 0xffffu;
  }
  uint32_t found = 0;
  for (int lane = 0; lane < kLanes<float>; ++lane) found |= lower[lane];
  return found == 0;
}

template <class TX>
void slstm_pack(const Problem& problem, const void* constant, void* packed) {
  using T = Arithmetic<TX>;
  const int64_t N = problem.sizes[slstm::size_N], H = problem.sizes[slstm::size_H];
  const TX* R = static_cast<const TX*>(constant);
  std::memset(packed, 0, slstm_packed_size<T>(problem));
  auto* head = static_cast<PackedHead*>(packed);
  head->is_paired = are_bfloat16(R, N * H * 4 * H);
  if constexpr (sizeof(T) == sizeof(float)) {
    if (head->is_paired) return slstm_pack_as(problem, R, reinterpret_cast<BfloatPair*>(head + 1));
  }
  slstm_pack_as(problem, R, reinterpret_cast<T*>(head + 1));
}

// sum[r][v] += y[r] R over the inputs of one packed number, of vector v of a panel.
template <int kRows, class T>
XLSTM_INLINE void add_products(Vec<T> (&sum)[kRows], const T* R, const Vec<T> (&y)[1][kRows]) {
  const Vec<T> column = load(R);
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) sum[r] = fma(y[0][r], column, sum[r]);
}
template <int kRows>
XLSTM_INLINE void add_products(Vec<float> (&sum)[kRows], const BfloatPair* R,
                               const Vec<float> (&y)[2][kRows]) {
  Uint32s pair;
  std::memcpy(&pair, R, sizeof pair);
  const auto even = (Vec<float>)(pair << 16), odd = (Vec<float>)(pair & 0xffff0000u);
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) sum[r] = fma(y[1][r], odd, fma(y[0][r], even, sum[r]));
}

// raw[row][column] = sum_j y[row][j] R[j][column] over kVectors of a panel, for kRows rows.
template <int kRows, int kVectors, class T, class P>
XLSTM_INLINE void slstm_mix_tile(const T* y, int64_t y_stride, int64_t size, const P* R, T* raw,
                                 int64_t raw_stride) {
  Vec<T> sum[kVectors][kRows];
  for (auto& vector : sum) {
    for (auto& row : vector) row = zero<T>();
  }
  for (int64_t j = 0; j < size; j += kInputs<P>) {
    Vec<T> element[kInputs<P>][kRows];
    for (int i = 0; i < kInputs<P>; ++i) {  // behind an odd size stands a zero
      for (int r = 0; r < kRows; ++r) element[i][r] = broadcast(y[r * y_stride + j + i]);
    }
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) add_products(sum[v], R + v * kLanes<T>, element);
    R += kMixColumns<T>;
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) store(raw + r * raw_stride + v * kLanes<T>, sum[v][r]);
  }
}

// y R of kRows rows for all panels of one head.
template <int kRows, class T, class P>
XLSTM_INLINE void slstm_mix_rows(const T* y, int64_t y_stride, int64_t size, const P* R,
                                 int64_t columns, T* raw) {
  constexpr int kShared = kMixVectors / kRows;
  const int64_t panel_inputs = round_up(size, kInputs<P>) / kInputs<P>;
  for (int64_t panel = 0; panel < columns; panel += kMixColumns<T>) {
    for (int v = 0; v < kMixVectors; v += kShared) {
      slstm_mix_tile<kRows, kShared>(y, y_stride, size,
                                     R + panel * panel_inputs + v * kLanes<T>,
                                     raw + panel + v * kLanes<T>, columns);
    }
  }
}

// The same of `rows` rows, at most kMixRows: they share the reading of R, and none changes the bits
// of another. Beside three rows a fourth is computed, which no one reads.
template <class T, class P>
XLSTM_INLINE void slstm_mix(const T* y, int64_t y_stride, int64_t rows, int64_t size, const P* R,
                            int64_t columns, T* raw) {
  if (rows == 1) {
    slstm_mix_rows<1>(y, y_stride, size, R, columns, raw);
  } else if (rows == 2) {
    slstm_mix_rows<2>(y, y_stride, size, R, columns, raw);
  } else {
    slstm_mix_rows<kMixRows>(y, y_stride, size, R, columns, raw);
  }
}

}  // namespace xlstm::cpu::XLSTM_ISA
