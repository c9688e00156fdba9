// The mLSTM one step at a time: what a chunk of few steps takes.
//
//   C' = F C + I k v^T,  n' = F n + I k,  h = q^T C' / (max(|q^T n'|, exp(-m')) + eps)
// with m' = max(log f + m, i), F = exp(log f + m - m'), I = exp(i - m').
#pragma once

#include "mlstm_chunk.h"

namespace xlstm::cpu::XLSTM_ISA {

// Rows of C carried at once: the row of v and the sums over rows are read once for all of them.
inline constexpr int kStepRows = 4;

// Which element of C is asked for ahead: that at `first`, for one more row of the block that at
// `per_row`, one more column at `per_column`. Rows follow each other in memory. Asked for in that
// order, kAhead bytes before their turn, they come twice as fast as in the order of use, which is
// several rows side by side. Of a block of columns the rows lie apart.
struct MlstmAhead {
  int64_t first, per_row, per_column;
};
template <class T>
XLSTM_INLINE MlstmAhead mlstm_ahead(int64_t stride, int64_t columns) {
  constexpr int64_t kAhead = 8192;  // as measured
  if (columns == stride) return {kAhead / static_cast<int64_t>(sizeof(T)), kLanes<T>, kStepRows};
  return {2 * kStepRows * stride, stride, 1};
}

// C_out = F C + (I k) v^T and numerator += q^T C_out for `rows` rows and all columns.
// q and k_written are the rows' elements; v and numerator are padded to whole vectors.
// kStreams: C_out goes past the caches, see mlstm_streams.
template <int kRows, bool kStreams, class T>
XLSTM_INLINE void mlstm_step_rows(const T* C, T* C_out, int64_t stride, int64_t columns, T forget,
                                  const T* q, const T* k_written, const T* v, T* numerator) {
  const MlstmAhead ahead = mlstm_ahead<T>(stride, columns);
  const Vec<T> kept = broadcast(forget);
  const auto carry = [&](Vec<T>* rows, int64_t c) __attribute__((always_inline)) {
    const Vec<T> value = load(v + c);
    Vec<T> sum = load(numerator + c);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      rows[r] = fma(broadcast(k_written[r]), value, kept * rows[r]);
      sum = fma(broadcast(q[r]), rows[r], sum);
    }
    store(numerator + c, sum);
  };
  Vec<T> rows[kRows];
  int64_t c = 0;
  for (; c + kLanes<T> <= columns; c += kLanes<T>) {
    for (int r = 0; r < kRows; ++r) {
      __builtin_prefetch(C + ahead.first + r * ahead.per_row + c * ahead.per_column);
    }
    for (int r = 0; r < kRows; ++r) rows[r] = load(C + r * stride + c);
    carry(rows, c);
    for (int r = 0; r < kRows; ++r) {
      T* const out = C_out + r * stride + c;
      if constexpr (kStreams) store_past_caches(out, rows[r]); else store(out, rows[r]);
    }
  }
  if (c < columns) {
    for (int r = 0; r < kRows; ++r) rows[r] = load_first(C + r * stride + c, columns - c);
    carry(rows, c);
    for (int r = 0; r < kRows; ++r) store_first(C_out + r * stride + c, rows[r], columns - c);
  }
}

// All rows of C.
template <bool kStreams, class TX, class T = Arithmetic<TX>>
XLSTM_INLINE void mlstm_step_matrix(const MlstmOperands<TX>& x, const MlstmUnit& unit, const T* C,
                                    T* C_out, T forget, MlstmScratch<T>& s) {
  const int64_t stride = x.v_dim;
  const auto carry = [&](auto rows, int64_t j) __attribute__((always_inline)) {
    mlstm_step_rows<decltype(rows)::value, kStreams>(
        C + j * stride, C_out + j * stride, stride, unit.columns, forget, s.q + j,
        s.k_written + j, s.v_panel, s.numerator);
  };
  int64_t j = 0;
  for (; j + kStepRows <= x.qk_dim; j += kStepRows) {
    carry(std::integral_constant<int, kStepRows>(), j);
  }
  for (; j < x.qk_dim; ++j) carry(std::integral_constant<int, 1>(), j);
  if constexpr (kStreams) await_stores();
}

// Whether C_out is better written past the caches: it is not the memory of C, a call of one step
// does not read it again, and it is so large that the weights of the layers in between put it out
// of them before the next call. A store to memory that is in no cache reads it first otherwise,
// half as much again as the step has to move.
template <class TX, class T = Arithmetic<TX>>
XLSTM_INLINE bool mlstm_streams(const MlstmOperands<TX>& x, const T* C, const T* C_out) {
  constexpr int64_t kLarge = 256 * 1024, kElement = sizeof(T);
  return x.time == 1 && C != C_out &&
         x.batch * x.heads * x.qk_dim * x.v_dim * kElement >= kLarge &&
         x.v_dim * kElement % kVectorBytes == 0 &&
         reinterpret_cast<uintptr_t>(C_out) % kVectorBytes == 0;
}

// The steps [start, start + length); C is read from `C` and left in C_out (they may be one).
// Both point at the unit's first column, with rows of v_dim. Returns m after the last step.
template <class TX, class T = Arithmetic<TX>>
T mlstm_steps(const MlstmOperands<TX>& x, const MlstmUnit& unit, int64_t start, int64_t length,
              T m, const T* C, T* C_out, MlstmScratch<T>& s) {
  mlstm_gates(x, unit, start, length, s);
  for (int64_t t = 0; t < length; ++t) {
    const T kept = s.log_forget[t] + m;
    const bool writes = kept < s.input_gate[t] || s.input_gate[t] != s.input_gate[t];  // NaN stays
    m = writes ? s.input_gate[t] : kept;
    s.inter[t] = kept - m;
    s.write[t] = s.input_gate[t] - m;
    s.floor[t] = -m;
  }
  for (int64_t t = 0; t < length; t += kLanes<T>) {
    store(s.inter + t, exp<T>(load(s.inter + t)));
    store(s.write + t, exp<T>(load(s.write + t)));
    store(s.floor + t, exp<T>(load(s.floor + t)));
  }
  const int64_t qk_first = ((unit.row * x.time + start) * x.heads + unit.head) * x.qk_dim;
  const int64_t v_first =
      ((unit.row * x.time + start) * x.heads + unit.head) * x.v_dim + unit.column;
  T* const k_written = s.k_written;
  const bool streams = mlstm_streams(x, C, C_out);
  for (int64_t t = 0; t < length; ++t) {
    const TX* q = x.q + qk_first + t * x.heads * x.qk_dim;
    const TX* k = x.k + qk_first + t * x.heads * x.qk_dim;
    const TX* v = x.v + v_first + t * x.heads * x.v_dim;
    const Vec<T> forget = broadcast(s.inter[t]), write = broadcast(s.write[t]);
    Vec<T> q_n = zero<T>();
    for (int64_t j = 0; j < x.qk_dim; j += kLanes<T>) {
      const Vec<T> query = load_wide_first(q + j, x.qk_dim - j) * broadcast(x.q_scale);
      const Vec<T> key = load_wide_first(k + j, x.qk_dim - j) * broadcast(x.k_scale) * write;
      const Vec<T> n = fma(forget, load(s.n + j), key);
      store(s.q + j, query);
      store(k_written + j, key);
      store(s.n + j, n);
      q_n = fma(query, n, q_n);
    }
    for (int64_t c = 0; c < unit.columns; c += kLanes<T>) {
      store(s.v_panel + c, load_wide_first(v + c, unit.columns - c));
      store(s.numerator + c, zero<T>());
    }
    if (streams) {
      mlstm_step_matrix<true>(x, unit, C, C_out, s.inter[t], s);
    } else {
      mlstm_step_matrix<false>(x, unit, C, C_out, s.inter[t], s);
    }
    C = C_out;
    const T dot = sum_lanes<T>(q_n), size = dot < T(0) ? -dot : dot;
    const RowDivisor<T> divisor((size < s.floor[t] ? s.floor[t] : size) + x.eps);
    TX* h = x.h + v_first + t * x.heads * x.v_dim;
    for (int64_t c = 0; c < unit.columns; c += kLanes<T>) {
      store_narrow_first(h + c, divisor.divide(load(s.numerator + c)), unit.columns - c);
    }
  }
  return m;
}

}  // namespace xlstm::cpu::XLSTM_ISA
