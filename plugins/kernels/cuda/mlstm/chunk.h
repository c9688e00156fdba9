// XlstmMLSTM over time in chunks of L = 64 steps, on tensor cores: what its three kernels share.
//
// With a = log f, s and t steps of a chunk, m, C, n the states before it and a(s..t] the sum of a
// over s < r <= t:
//
//   m_t = max(a(0..t] + m, max_{s<=t} a(s..t] + i_s)
//   h_t = (e^{a(0..t]+m-m_t} q_t^T C + sum_{s<=t} q_t^T k_s e^{a(s..t]+i_s-m_t} v_s)
//         / (max(|the same with n and 1 for C and v|, e^{-m_t}) + eps)
//   C' = e^{a(0..L]+m-m'} C + sum_s (e^{a(s..L]+i_s-m'} k_s) v_s^T
//
// Every exponent is at most 0, and every sum of log f is taken over its own steps: differences of
// running sums cancel where gates are extreme, and are NaN where one is -inf.
//
// `chunk_gates` prepares the sums, `chunk_states` carries C and n over the chunks and leaves them
// as they are before each, `chunk_outputs` makes h of every chunk at once. C lies in the workspace
// in 16 bits; it only meets q there, which does no harm beside h's own 16 bits. C itself is carried
// in float32, and so its update needs e^{..} k as exactly: in three bfloat16 terms.
#pragma once

#include <ptx.h>

#include <cstring>
#include <type_traits>

#include "device.h"
#include "element.h"
#include "gates.h"

namespace xlstm::cuda {

inline constexpr int kChunk = 64;  // steps
inline constexpr int kToEnd = kChunk + 2;
inline constexpr int kTile = 64;   // rows or columns of C that lie together in shared memory

// float16 has bits enough and no range: what becomes it is divided by a power of two first, its
// unit. C has one for 16 rows and 64 columns, n one, and P one for each step.
template <class TX>
inline constexpr bool kHasUnits = std::is_same<TX, __half>::value;

// A [16,16] part of C^T as the B operands of two products, a lane's share.
struct alignas(16) Fragment {
  uint32_t at[4];
};

// Operands of a call, what its kernels hand each other, and the slice of it that a launch works on.
template <class TX>
struct ChunkProblem : MlstmOperands<TX> {
  int64_t chunks;              // of the call's time
  float *input, *log_forget;   // [B,N,chunks,L] -inf and 0 past the length
  float* to_end;               // [B,N,chunks,L+2] a(s..L] + i_s, the largest of them, and a(0..L]
  float* stabiliser;           // [B,N,chunks+1] m before each chunk and after the last
  Fragment* C_before;          // [slice's heads, slice's chunks, K/16, V/16, lanes]
  float* n_before;             // [slice's heads, slice's chunks, K]
  float* units;                // [slice's heads, slice's chunks, V/64, K/16] of C
  int64_t first_head, heads_here, first_chunk, chunks_here;  // the slice
  int tiles_here;              // of columns that a block of outputs makes
  bool is_aligned;             // q, k, v and h to 16 bytes

  // Chunks of `head`'s own steps.
  __device__ int64_t chunks_of(int64_t head) const {
    return parts_of(valid_steps(this->lengths, this->lengths_size, head / this->heads, this->time),
                    kChunk);
  }
  // Offset of [row, step, head] in q, k (size K) or v, h (size V).
  __device__ int64_t place(int64_t head, int64_t step, int64_t size) const {
    return ((head / this->heads * this->time + step) * this->heads + head % this->heads) * size;
  }
  __device__ Fragment* snapshot(int64_t head, int64_t chunk) const {
    const int64_t parts = this->qk_dim / 16 * (this->v_dim / 16);
    return C_before +
           ((head - first_head) * chunks_here + chunk - first_chunk) * parts * kWarp;
  }
  __device__ float* snapshot_units(int64_t head, int64_t chunk) const {
    return units + ((head - first_head) * chunks_here + chunk - first_chunk) *
                       parts_of(this->v_dim, kTile) * (this->qk_dim / 16);
  }
  __device__ float* n_snapshot(int64_t head, int64_t chunk) const {
    return n_before + ((head - first_head) * chunks_here + chunk - first_chunk) * this->qk_dim;
  }
};

// Where a tile [rows, kWidth] in shared memory has the 8 elements `eighth` of a row: shuffled so
// that 8 rows of one column lie in different banks. 128 bytes are all banks once.
template <int kWidth = kTile>
__device__ int tile_place(int row, int eighth) {
  static_assert(kWidth == 64 || kWidth == 32);
  return row * kWidth + (eighth ^ (kWidth == 64 ? row % 8 : row / 2 % 4)) * 8;
}

// A thread's place in a tile that a block copies: the 8 elements `eighth` of every kRowsAtOnce-th
// row from `row` on.
template <int kThreads, int kWidth = kTile>
struct CopyPlace {
  static constexpr int kRowsAtOnce = kThreads / (kWidth / 8);
  int row, eighth;
  __device__ CopyPlace()
      : row(static_cast<int>(threadIdx.x) / (kWidth / 8)),
        eighth(static_cast<int>(threadIdx.x) % (kWidth / 8)) {}
  static_assert(kRowsAtOnce % 8 == 0);

  // Rows from `from` on, `stride` elements apart, of which `count` are there (none where not
  // `is_inside`); the others become zeros. In the background where addresses are aligned.
  template <class TX>
  __device__ void copy(TX* to, const TX* from, int64_t stride, int count, bool is_inside,
                       bool is_aligned) const {
    to += tile_place<kWidth>(row, eighth);  // kRowsAtOnce rows on it lies in the same banks
    if (is_aligned) {
#pragma unroll
      for (int i = 0; i < kChunk / kRowsAtOnce; ++i, from += kRowsAtOnce * stride) {
        copy_async_16(to + i * kRowsAtOnce * kWidth, from,
                      is_inside && row + i * kRowsAtOnce < count);
      }
    } else {
#pragma unroll 1
      for (int step = 0; step < kChunk - row; step += kRowsAtOnce, from += kRowsAtOnce * stride) {
        const bool there = is_inside && row + step < count;
        for (int e = 0; e < 8; ++e) to[step * kWidth + e] = there ? from[e] : narrow<TX>(0.f);
      }
    }
  }
};

// The largest power of two that is at most x, which is a normal number above 0.
__device__ inline float power_of_two(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits &= 0x7f800000u;
  std::memcpy(&x, &bits, sizeof bits);
  return x;
}

// The two elements of a register.
__device__ inline void unpack(uint32_t pair, __nv_bfloat16, float& low, float& high) {
  const uint32_t low_bits = pair << 16, high_bits = pair & 0xffff0000u;
  std::memcpy(&low, &low_bits, sizeof low);
  std::memcpy(&high, &high_bits, sizeof high);
}
__device__ inline void unpack(uint32_t pair, __half, float& low, float& high) {
  __half at[2];
  std::memcpy(static_cast<void*>(at), &pair, sizeof at);
  low = widen(at[0]);
  high = widen(at[1]);
}

// Sum over the 4 lanes of a row.
__device__ inline float sum_quad(float value) {
  value += __shfl_xor_sync(kAllLanes, value, 1);
  return value + __shfl_xor_sync(kAllLanes, value, 2);
}

struct alignas(8) FloatPair {
  float low, high;
};

// Take the nearest 16-bit pair off `low` and `high`.
template <class TX>
__device__ uint32_t take_term(float& low, float& high, TX tag) {
  const uint32_t pair = pack(low, high, tag);
  float taken_low, taken_high;
  unpack(pair, tag, taken_low, taken_high);
  low -= taken_low;
  high -= taken_high;
  return pair;
}

}  // namespace xlstm::cuda
