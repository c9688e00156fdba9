// h of every chunk at once: a block per head, chunk and 128 columns of V.
//
//   h = (w q^T C + P v) / (max(|w q^T n + sum P|, e^{-m_t}) + eps)
//
// with w the weight of what was before the chunk, and P = q^T k times each step's.
//
// q, k and C pass through shared memory in panels of 64 rows of K; S = q^T k and q^T C take their
// operands from the same panel. n is three columns of another operand, its bfloat16 terms. A warp
// has 32 steps, half the columns of S and half those of h.
#pragma once

#include "chunk.h"
#include "chunk_decay.h"

namespace xlstm::cuda {

inline constexpr int kOutputsThreads = 128;
inline constexpr int kOutputColumns = 128;
inline constexpr int kOutputsStages = 2;
inline constexpr int kPanelParts = kTile / 16;             // of K
inline constexpr int kColumnParts = kOutputColumns / 16;   // of V

template <class TX>
struct OutputsPanel {
  TX q[kChunk * kTile];
  TX k[kChunk * kTile];
  Fragment C[kPanelParts * kColumnParts * kWarp];
};

template <class TX>
struct OutputsShared {
  OutputsPanel<TX> stages[kOutputsStages];  // v takes the place of a panel
  TX weights[kChunk * kTile];               // P, a tile
  ChunkDecay decay;
  float q_n[kChunk];      // of n before the chunk
  float sums[2][kChunk];  // of P, by half

  // Behind it: operands of n, [whole panels of K/16][lanes][2].
  __device__ uint32_t* n() { return reinterpret_cast<uint32_t*>(this + 1); }
  static size_t bytes(int64_t qk_dim) {
    const int64_t n = round_up(qk_dim, kTile) / 16 * kWarp * 2 * int64_t{sizeof(uint32_t)};
    return sizeof(OutputsShared) + static_cast<size_t>(n);
  }
};

// What a block makes: columns [begin, end) of a chunk's h.
struct OutputsPart {
  int64_t head, chunk;
  int64_t first;                 // of its steps among [B,T,N]
  int begin, end;
  int count;                     // steps of the chunk
  int lane;
  int steps_half, columns_half;  // of this warp
};

// For each tile of columns the panels of C and then v; with the first tile's, q and k.
template <class TX>
struct OutputsCopies {
  CopyPlace<kOutputsThreads / 8> place;
  int64_t q, v;                  // this thread's first elements of q and k, and of the tile's v
  const Fragment* C;             // this thread's of the tile's first panel
  int row, rows;                 // of the next panel, and K; past the last panel comes v
  int parts;                     // of V from this tile on
  int stage;

  __device__ OutputsCopies(const ChunkProblem<TX>& x, const OutputsPart& part)
      : place{static_cast<int>(threadIdx.x / 8), static_cast<int>(threadIdx.x % 8)}, row(0),
        rows(static_cast<int>(x.qk_dim)), parts((part.end - part.begin) / 16), stage(0) {
    const int64_t step = part.first + place.row * x.heads;
    q = step * x.qk_dim + place.eighth * 8;
    v = step * x.v_dim + part.begin + place.eighth * 8;
    C = x.snapshot(part.head, part.chunk) + part.begin / 16 * kWarp + threadIdx.x;
  }

  // Start what comes next, if anything, into the stage whose turn it is.
  __device__ void next(const ChunkProblem<TX>& x, const OutputsPart& part, OutputsShared<TX>& s,
                       bool has_k) {
    OutputsPanel<TX>& to = s.stages[stage];
    if (parts > 0 && row < rows) {
      const bool is_inside = row + place.eighth * 8 < rows;
      const int64_t from = q + row, stride = x.heads * x.qk_dim;
      place.copy(to.q, x.q + from, stride, part.count, is_inside, x.is_aligned);
      if (has_k) place.copy(to.k, x.k + from, stride, part.count, is_inside, x.is_aligned);
      next_C(to.C, x.v_dim / 16 * kWarp);
      row += kTile;
    } else if (parts > 0) {
      const int64_t stride = x.heads * x.v_dim;
      const int half = place.eighth / 2;
      place.copy(to.q, x.v + v, stride, part.count, half < parts, x.is_aligned);
      place.copy(to.k, x.v + v + kTile, stride, part.count, half + 4 < parts, x.is_aligned);
      v += kOutputColumns;
      C += kColumnParts * kWarp;
      parts -= kColumnParts;
      row = 0;
    }
    copy_async_commit();
    stage ^= 1;
  }

 private:
  __device__ void next_C(Fragment* to, int64_t stride) const {
    constexpr int kWarps = kOutputsThreads / kWarp;
    const int warp = threadIdx.x / kWarp;
    const Fragment* from = C + row / 16 * stride;
    to += threadIdx.x;
#pragma unroll
    for (int down = 0; down < kPanelParts; ++down, from += stride) {
#pragma unroll
      for (int across = 0; across < kColumnParts; across += kWarps) {
        copy_async_16(to + (down * kColumnParts + across) * kWarp, from + across * kWarp,
                      row + down * 16 < rows && across + warp < parts);
      }
    }
  }
};

// n before the chunk as an operand whose first three columns are its terms.
template <class TX>
__device__ void outputs_split_n(const float* n, int rows, uint32_t* to, TX tag) {
  const int size = static_cast<int>(round_up(rows, kTile)) / 16 * kWarp * 2;
  for (int u = threadIdx.x; u < size; u += kOutputsThreads) {
    const int column = u / 2 % kWarp / 4;
    const int row = u / 2 / kWarp * 16 + u % 2 * 8 + u / 2 % 4 * 2;
    uint32_t pair = 0;
    if (column < 3 && row < rows) {
      float low = n[row], high = n[row + 1];
      for (int term = 0; term <= column; ++term) pair = take_term(low, high, tag);
    }
    to[u] = pair;
  }
}

// Accumulators of a warp, by 16 steps: S of 32 steps, h of 64 columns, and q^T n.
struct OutputsSums {
  float S[2][4][4], h[2][8][4], q_n[2][4];
};

template <class TX>
__device__ void outputs_add_panel(const OutputsPart& part, const OutputsPanel<TX>& panel,
                                  const uint32_t* n, bool is_first, OutputsSums& sums) {
  const int lane = part.lane, matrix = lane / 8;
  // a tile's later columns are done with S; its keys are not all later than its steps
  const bool has_S = is_first && part.columns_half <= part.steps_half;
  const bool has_n = is_first && part.columns_half == 1;
#pragma unroll 2
  for (int p = 0; p < kPanelParts; ++p) {
    uint32_t queries[2][4];
#pragma unroll
    for (int down = 0; down < 2; ++down) {
      const int row = 32 * part.steps_half + 16 * down + matrix % 2 * 8 + lane % 8;
      load_matrix_x4(queries[down], panel.q + tile_place(row, 2 * p + matrix / 2));
    }
    const Fragment* C =
        panel.C + (p * kColumnParts + part.columns_half * kColumnParts / 2) * kWarp + lane;
#pragma unroll
    for (int across = 0; across < kColumnParts / 2; ++across) {
      const Fragment values = C[across * kWarp];
#pragma unroll
      for (int down = 0; down < 2; ++down) {
        mma_m16n8k16(sums.h[down][2 * across], queries[down], {values.at[0], values.at[1]}, TX{});
        mma_m16n8k16(sums.h[down][2 * across + 1], queries[down], {values.at[2], values.at[3]},
                     TX{});
      }
    }
    if (has_S) {
#pragma unroll
      for (int across = 0; across < 2; ++across) {
        const int row = 32 * part.columns_half + 16 * across + matrix / 2 * 8 + lane % 8;
        uint32_t keys[4];
        load_matrix_x4(keys, panel.k + tile_place(row, 2 * p + matrix % 2));
#pragma unroll
        for (int down = 0; down < 2; ++down) {
          mma_m16n8k16(sums.S[down][2 * across], queries[down], {keys[0], keys[1]}, TX{});
          mma_m16n8k16(sums.S[down][2 * across + 1], queries[down], {keys[2], keys[3]}, TX{});
        }
      }
    }
    if (has_n) {
      const uint32_t* operand = n + (p * kWarp + lane) * 2;
#pragma unroll
      for (int down = 0; down < 2; ++down) {
        mma_m16n8k16(sums.q_n[down], queries[down], {operand[0], operand[1]}, TX{});
      }
    }
  }
}

// P of this warp's part of S to shared memory, the sums of its rows, and q^T n.
template <class TX>
__device__ void outputs_weigh(const OutputsPart& part, float scale, OutputsShared<TX>& s,
                              const OutputsSums& sums) {
  const int lane = part.lane;
#pragma unroll
  for (int down = 0; down < 2; ++down) {
#pragma unroll
    for (int e = 0; e < 4; e += 2) {
      const int row = 32 * part.steps_half + 16 * down + e / 2 * 8 + lane / 4;
      float sum = 0.f;
#pragma unroll
      for (int across = 0; across < 4; ++across) {
        const int column = 32 * part.columns_half + 8 * across + lane % 4 * 2;
        float weight[2] = {};
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          if (column + c > row) continue;  // a later key has no part, whatever it holds
          weight[c] = sums.S[down][across][e + c] * scale * s.decay.weight(row, column + c);
        }
        sum += weight[0] + weight[1];
        const uint32_t pair = pack(weight[0], weight[1], TX{});
        TX* to = s.weights + tile_place(row, column / 8) + column % 8;
        *reinterpret_cast<uint32_t*>(to) = pair;
      }
      sum = sum_quad(sum);
      const float q_n = sum_quad(sums.q_n[down][e] + sums.q_n[down][e + 1]);
      if (lane % 4 == 0) {
        s.sums[part.columns_half][row] = sum;
        if (part.columns_half == 1) s.q_n[row] = q_n;
      }
    }
  }
}

// h = carry h + P v.
template <class TX>
__device__ void outputs_add_chunk(const OutputsPart& part, const TX* weights, const TX* v,
                                  OutputsSums& sums) {
  const int lane = part.lane, matrix = lane / 8;
#pragma unroll
  for (int p = 0; p < kChunk / 16; ++p) {
    if (p >= 2 * (part.steps_half + 1)) break;
    uint32_t factors[2][4];
#pragma unroll
    for (int down = 0; down < 2; ++down) {
      const int row = 32 * part.steps_half + 16 * down + matrix % 2 * 8 + lane % 8;
      load_matrix_x4(factors[down], weights + tile_place(row, 2 * p + matrix / 2));
    }
#pragma unroll
    for (int across = 0; across < kColumnParts / 2; ++across) {
      uint32_t values[4];
      load_matrix_x4_transposed(values, v + tile_place(16 * p + matrix % 2 * 8 + lane % 8,
                                                       2 * across + matrix / 2));
#pragma unroll
      for (int down = 0; down < 2; ++down) {
        mma_m16n8k16(sums.h[down][2 * across], factors[down], {values[0], values[1]}, TX{});
        mma_m16n8k16(sums.h[down][2 * across + 1], factors[down], {values[2], values[3]}, TX{});
      }
    }
  }
}

// h of the steps that count, from `column` on.
template <class TX>
__device__ void outputs_store(const ChunkProblem<TX>& x, const OutputsPart& part, int column,
                              const OutputsShared<TX>& s, const OutputsSums& sums) {
  column += part.columns_half * kTile + part.lane % 4 * 2;
#pragma unroll
  for (int down = 0; down < 2; ++down) {
#pragma unroll
    for (int e = 0; e < 4; e += 2) {
      const int t = 32 * part.steps_half + 16 * down + e / 2 * 8 + part.lane / 4;
      if (t >= part.count) continue;
      const float q_n = s.q_n[t] * s.decay.carry[t] + s.sums[0][t] + s.sums[1][t];
      const float size = at_least(std::fabs(q_n), std::exp(-s.decay.stabiliser[t]));
      const float scale = 1.f / (size + x.eps);
      TX* h = x.h + (part.first + t * x.heads) * x.v_dim + column;
#pragma unroll
      for (int across = 0; across < kColumnParts; ++across) {
        if (column + across * 8 >= part.end) continue;
        const auto& sum = sums.h[down][across];
        const uint32_t pair = pack(sum[e] * scale, sum[e + 1] * scale, TX{});
        if (x.is_aligned) {
          *reinterpret_cast<uint32_t*>(h + across * 8) = pair;
        } else {
          TX both[2];
          std::memcpy(static_cast<void*>(both), &pair, sizeof both);
          h[across * 8] = both[0];
          h[across * 8 + 1] = both[1];
        }
      }
    }
  }
}

// 0 past the row's length.
template <class TX>
__device__ void outputs_clear(const ChunkProblem<TX>& x, const OutputsPart& part) {
  const int columns = part.end - part.begin;
  const int steps = static_cast<int>(min_of(kChunk, x.time - part.chunk * kChunk));
  for (int t = part.count; t < steps; ++t) {
    TX* h = x.h + (part.first + t * x.heads) * x.v_dim + part.begin;
    for (int c = threadIdx.x; c < columns; c += kOutputsThreads) h[c] = narrow<TX>(0.f);
  }
}

template <class TX>
__device__ void chunk_outputs_of(const ChunkProblem<TX>& x, const OutputsPart& part,
                                 OutputsShared<TX>& s) {
  outputs_clear(x, part);
  if (part.count == 0) return;
  const int rows = static_cast<int>(x.qk_dim);
  OutputsCopies<TX> copies(x, part);
  copies.next(x, part, s, true);
  outputs_split_n(x.n_snapshot(part.head, part.chunk), rows, s.n(), TX{});
  s.decay.prepare(x, part.head, part.chunk);
  int stage = 0;
  OutputsSums sums{};
  for (int column = part.begin; column < part.end; column += kOutputColumns) {
    const bool is_first = column == part.begin;
    for (int row = 0; row < rows; row += kTile) {
      copy_async_wait<0>();
      __syncthreads();  // the panel is there, and the one before is free
      copies.next(x, part, s, is_first);
      outputs_add_panel(part, s.stages[stage], s.n() + row / 16 * kWarp * 2, is_first, sums);
      stage ^= 1;
    }
    if (is_first) outputs_weigh(part, x.q_scale * x.k_scale, s, sums);
#pragma unroll
    for (int e = 0; e < 64; ++e) {
      const int t = 32 * part.steps_half + e / 32 * 16 + e / 2 % 2 * 8 + part.lane / 4;
      sums.h[e / 32][e / 4 % 8][e % 4] *= s.decay.carry[t];
    }
    copy_async_wait<0>();
    __syncthreads();  // P, its sums and v are there
    copies.next(x, part, s, false);
    const OutputsPanel<TX>& v = s.stages[stage];
    outputs_add_chunk(part, s.weights, part.columns_half == 0 ? v.q : v.k, sums);
    stage ^= 1;
    outputs_store(x, part, column, s, sums);
#pragma unroll
    for (int e = 0; e < 64; ++e) sums.h[e / 32][e / 4 % 8][e % 4] = 0.f;
  }
  copy_async_wait<0>();
}

template <class TX>
__global__ void __launch_bounds__(kOutputsThreads, 2) chunk_outputs(ChunkProblem<TX> x) {
#if __CUDA_ARCH__ >= 800
  auto& shared = *reinterpret_cast<OutputsShared<TX>*>(shared_memory);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int columns = x.tiles_here * kOutputColumns;
  const int64_t parts = parts_of(x.v_dim, columns);
  for (int64_t unit = blockIdx.x; unit < x.heads_here * x.chunks_here * parts;
       unit += gridDim.x) {
    const int64_t place = unit / parts;  // neighbours share q and k
    const int64_t head = x.first_head + place / x.chunks_here;
    const int64_t chunk = x.first_chunk + place % x.chunks_here;
    const int64_t steps = valid_steps(x.lengths, x.lengths_size, head / x.heads, x.time);
    const int begin = static_cast<int>(unit % parts) * columns;
    if (begin == 0 && chunk == x.chunks - 1 && threadIdx.x == 0) {
      x.m_out[head] = x.stabiliser[head * (x.chunks + 1) + parts_of(steps, kChunk)];
    }
    __syncthreads();  // the part before has left shared memory
    chunk_outputs_of(x,
                     {head, chunk, x.place(head, chunk * kChunk, 1), begin,
                      static_cast<int>(min_of(begin + columns, x.v_dim)),
                      static_cast<int>(max_of(min_of(steps - chunk * kChunk, kChunk), 0)), lane,
                      warp % 2, warp / 2},
                     shared);
  }
#endif
}

}  // namespace xlstm::cuda
