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
struct OutputsScratch {
  OutputsPanel<TX>* panels;  // [stages]; v takes the place of one after the last
  TX* weights;               // P, a tile
  uint32_t* n;               // [whole panels of K/16][lanes][2] operands
  ChunkDecay decay;
  float* q_n;                // [L] of n before the chunk
  float* sums;               // [2][L] of P, by half

  __host__ __device__ OutputsScratch(Arena& arena, int64_t qk_dim) : decay(arena) {
    panels = arena.take<OutputsPanel<TX>>(kOutputsStages);
    weights = arena.take<TX>(kChunk * kTile);
    n = arena.take<uint32_t>(round_up(qk_dim, kTile) / 16 * kWarp * 2);
    q_n = arena.take<float>(kChunk);
    sums = arena.take<float>(2 * kChunk);
  }
};

struct OutputsTile {
  int64_t head, chunk, column;
  int lane, warp;
  int steps_half, columns_half;  // of this warp
};

// q, k and C of a chunk, panel after panel, and then v.
template <class TX>
struct OutputsCopies {
  StepsCopy<TX> q, k;
  const Fragment* C;     // this lane's of the warp's part of the next panel
  int64_t left;          // rows from the next panel on
  int64_t columns_left;  // parts of V from the block's first
  int count;             // steps of the chunk

  __device__ OutputsCopies(const ChunkProblem<TX>& x, const OutputsTile& tile, int64_t steps)
      : left(x.qk_dim), columns_left(x.v_dim / 16 - tile.column / 16),
        count(static_cast<int>(min_of(steps - tile.chunk * kChunk, kChunk))) {
    const int row = threadIdx.x / 8, eighth = threadIdx.x % 8;
    const int64_t place = x.place(tile.head, tile.chunk * kChunk + row, x.qk_dim) + eighth * 8;
    const int64_t stride = x.heads * x.qk_dim;
    q = {x.q + place, stride, row, eighth, true};
    k = {x.k + place, stride, row, eighth, true};
    C = x.snapshot(tile.head, tile.chunk) + tile.column / 16 * kWarp + tile.lane;
  }

  __device__ void next_panel(const ChunkProblem<TX>& x, OutputsPanel<TX>& to) {
    constexpr int kRowsAtOnce = kOutputsThreads / 8;
    q.is_inside = k.is_inside = q.eighth * 8 < left;
    q.template copy<kRowsAtOnce>(to.q, count, x.is_aligned);
    k.template copy<kRowsAtOnce>(to.k, count, x.is_aligned);
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int64_t row = x.v_dim / 16 * kWarp;
#pragma unroll
    for (int down = 0; down < kPanelParts; ++down) {
#pragma unroll
      for (int across = warp; across < kColumnParts; across += kOutputsThreads / kWarp) {
        const bool there = down * 16 < left && across < columns_left;
        copy_async_16(to.C + (down * kColumnParts + across) * kWarp + lane,
                      there ? C + down * row + across * kWarp : C, there);
      }
    }
    q.from += kTile;
    k.from += kTile;
    C += kPanelParts * row;
    left -= kTile;
  }

  // In two tiles of 64 columns.
  __device__ void v(const ChunkProblem<TX>& x, const OutputsTile& tile, TX* to) {
    const int row = threadIdx.x / 16, eighth = threadIdx.x % 16;
    const int64_t column = tile.column + eighth * 8;
    const bool is_inside = column < x.v_dim;
    const int64_t place =
        is_inside ? x.place(tile.head, tile.chunk * kChunk + row, x.v_dim) + column : 0;
    const StepsCopy<TX> copy = {x.v + place, x.heads * x.v_dim, row, eighth % 8, is_inside};
    copy.template copy<kOutputsThreads / 16>(to + eighth / 8 * kChunk * kTile, count,
                                             x.is_aligned);
  }
};

// n before the chunk as an operand whose first three columns are its terms.
template <class TX>
__device__ void outputs_split_n(const ChunkProblem<TX>& x, const OutputsTile& tile,
                                uint32_t* to) {
  const float* n = x.n_snapshot(tile.head, tile.chunk);
  const int64_t size = round_up(x.qk_dim, kTile) / 16 * kWarp * 2;
  for (int64_t u = threadIdx.x; u < size; u += kOutputsThreads) {
    const int column = u / 2 % kWarp / 4;
    const int64_t row = u / 2 / kWarp * 16 + u % 2 * 8 + u / 2 % 4 * 2;
    uint32_t pair = 0;
    if (column < 3 && row < x.qk_dim) {
      float low = n[row], high = n[row + 1];
      for (int term = 0; term <= column; ++term) pair = take_term(low, high, TX{});
    }
    to[u] = pair;
  }
}

// Accumulators of a warp, by 16 steps: S of 32 steps, h of 64 columns, and q^T n.
struct OutputsSums {
  float S[2][4][4], h[2][8][4], q_n[2][4];
};

template <class TX>
__device__ void outputs_add_panel(const OutputsTile& tile, const OutputsPanel<TX>& panel,
                                  const uint32_t* n, OutputsSums& sums) {
  const int lane = tile.lane, matrix = lane / 8;
  const bool has_S = tile.columns_half <= tile.steps_half;  // its keys are not all later
#pragma unroll
  for (int part = 0; part < kPanelParts; ++part) {
    uint32_t queries[2][4];
#pragma unroll
    for (int down = 0; down < 2; ++down) {
      const int row = 32 * tile.steps_half + 16 * down + matrix % 2 * 8 + lane % 8;
      load_matrix_x4(queries[down], panel.q + tile_place(row, 2 * part + matrix / 2));
    }
    if (has_S) {
#pragma unroll
      for (int across = 0; across < 2; ++across) {
        const int row = 32 * tile.columns_half + 16 * across + matrix / 2 * 8 + lane % 8;
        uint32_t keys[4];
        load_matrix_x4(keys, panel.k + tile_place(row, 2 * part + matrix % 2));
#pragma unroll
        for (int down = 0; down < 2; ++down) {
          mma_m16n8k16(sums.S[down][2 * across], queries[down], {keys[0], keys[1]}, TX{});
          mma_m16n8k16(sums.S[down][2 * across + 1], queries[down], {keys[2], keys[3]}, TX{});
        }
      }
    }
    const Fragment* C =
        panel.C + (part * kColumnParts + tile.columns_half * kColumnParts / 2) * kWarp + lane;
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
    if (tile.columns_half == 1) {
      const uint32_t* operand = n + (part * kWarp + lane) * 2;
#pragma unroll
      for (int down = 0; down < 2; ++down) {
        mma_m16n8k16(sums.q_n[down], queries[down], {operand[0], operand[1]}, TX{});
      }
    }
  }
}

// Sum over the 4 lanes of a row.
__device__ inline float sum_quad(float value) {
  value += __shfl_xor_sync(kAllLanes, value, 1);
  return value + __shfl_xor_sync(kAllLanes, value, 2);
}

// P of this warp's part of S to shared memory, and the sums of its rows.
template <class TX>
__device__ void outputs_weigh(const OutputsTile& tile, float scale, const OutputsScratch<TX>& s,
                              const OutputsSums& sums) {
  const int lane = tile.lane;
#pragma unroll
  for (int down = 0; down < 2; ++down) {
#pragma unroll
    for (int e = 0; e < 4; e += 2) {
      const int row = 32 * tile.steps_half + 16 * down + e / 2 * 8 + lane / 4;
      float sum = 0.f;
#pragma unroll
      for (int across = 0; across < 4; ++across) {
        const int column = 32 * tile.columns_half + 8 * across + lane % 4 * 2;
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
      if (lane % 4 == 0) s.sums[tile.columns_half * kChunk + row] = sum;
    }
  }
}

// h += P v.
template <class TX>
__device__ void outputs_add_chunk(const OutputsTile& tile, const TX* weights, const TX* v,
                                  OutputsSums& sums) {
  const int lane = tile.lane, matrix = lane / 8;
  v += tile.columns_half * kChunk * kTile;
#pragma unroll
  for (int part = 0; part < kChunk / 16; ++part) {
    if (part >= 2 * (tile.steps_half + 1)) break;
    uint32_t factors[2][4];
#pragma unroll
    for (int down = 0; down < 2; ++down) {
      const int row = 32 * tile.steps_half + 16 * down + matrix % 2 * 8 + lane % 8;
      load_matrix_x4(factors[down], weights + tile_place(row, 2 * part + matrix / 2));
    }
#pragma unroll
    for (int across = 0; across < kColumnParts / 2; ++across) {
      uint32_t values[4];
      load_matrix_x4_transposed(values, v + tile_place(16 * part + matrix % 2 * 8 + lane % 8,
                                                       2 * across + matrix / 2));
#pragma unroll
      for (int down = 0; down < 2; ++down) {
        mma_m16n8k16(sums.h[down][2 * across], factors[down], {values[0], values[1]}, TX{});
        mma_m16n8k16(sums.h[down][2 * across + 1], factors[down], {values[2], values[3]}, TX{});
      }
    }
  }
}

// h of the steps that count, 0 past them.
template <class TX>
__device__ void outputs_store(const ChunkProblem<TX>& x, const OutputsTile& tile, int64_t steps,
                              const OutputsScratch<TX>& s, const OutputsSums& sums) {
  const int lane = tile.lane;
#pragma unroll
  for (int down = 0; down < 2; ++down) {
#pragma unroll
    for (int e = 0; e < 4; e += 2) {
      const int t = 32 * tile.steps_half + 16 * down + e / 2 * 8 + lane / 4;
      const int64_t step = tile.chunk * kChunk + t;
      if (step >= x.time) continue;
      const float q_n = s.q_n[t] * s.decay.carry[t] + s.sums[t] + s.sums[kChunk + t];
      const float size = at_least(std::fabs(q_n), std::exp(-s.decay.stabiliser[t]));
      const float scale = 1.f / (size + x.eps);
      TX* h = x.h + x.place(tile.head, step, x.v_dim);
#pragma unroll
      for (int across = 0; across < kColumnParts; ++across) {
        const int64_t column =
            tile.column + (tile.columns_half * kColumnParts + across) * 8 + lane % 4 * 2;
        if (column >= x.v_dim) continue;
        const uint32_t pair =
            step < steps ? pack(sums.h[down][across][e] * scale,
                                sums.h[down][across][e + 1] * scale, TX{})
                         : 0;
        if (x.is_aligned) {
          *reinterpret_cast<uint32_t*>(h + column) = pair;
        } else {
          std::memcpy(static_cast<void*>(h + column), &pair, sizeof(TX));
          const uint32_t upper = pair >> 16;
          std::memcpy(static_cast<void*>(h + column + 1), &upper, sizeof(TX));
        }
      }
    }
  }
}

template <class TX>
__device__ void chunk_outputs_of(const ChunkProblem<TX>& x, const OutputsTile& tile,
                                 const OutputsScratch<TX>& s) {
  const int64_t steps = valid_steps(x.lengths, x.lengths_size, tile.head / x.heads, x.time);
  if (tile.column == 0 && tile.chunk == x.chunks - 1 && threadIdx.x == 0) {
    x.m_out[tile.head] = x.stabiliser[tile.head * (x.chunks + 1) + parts_of(steps, kChunk)];
  }
  OutputsSums sums{};
  if (tile.chunk * kChunk < steps) {
    const int panels = static_cast<int>(parts_of(x.qk_dim, kTile));
    OutputsCopies<TX> copies(x, tile, steps);
    copies.next_panel(x, s.panels[0]);
    copy_async_commit();
    outputs_split_n(x, tile, s.n);
    s.decay.prepare(x, tile.head, tile.chunk);
    for (int panel = 0; panel < panels; ++panel) {
      copy_async_wait<0>();
      __syncthreads();  // the panel is there, and the one before is free
      OutputsPanel<TX>& next = s.panels[(panel + 1) % kOutputsStages];
      if (panel + 1 < panels) {
        copies.next_panel(x, next);
      } else {
        copies.v(x, tile, next.q);
      }
      copy_async_commit();
      outputs_add_panel(tile, s.panels[panel % kOutputsStages],
                        s.n + panel * kPanelParts * kWarp * 2, sums);
    }
    outputs_weigh(tile, x.q_scale * x.k_scale, s, sums);
#pragma unroll
    for (int down = 0; down < 2; ++down) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int t = 32 * tile.steps_half + 16 * down + e / 2 * 8 + tile.lane / 4;
        const float carry = s.decay.carry[t];
#pragma unroll
        for (int across = 0; across < kColumnParts; ++across) sums.h[down][across][e] *= carry;
      }
      const float upper = sum_quad(sums.q_n[down][0] + sums.q_n[down][1]);
      const float lower = sum_quad(sums.q_n[down][2] + sums.q_n[down][3]);
      if (tile.columns_half == 1 && tile.lane % 4 == 0) {
        float* q_n = s.q_n + 32 * tile.steps_half + 16 * down + tile.lane / 4;
        q_n[0] = upper;
        q_n[8] = lower;
      }
    }
    copy_async_wait<0>();
    __syncthreads();  // P, its sums and v are there
    outputs_add_chunk(tile, s.weights, s.panels[panels % kOutputsStages].q, sums);
  }
  outputs_store(x, tile, steps, s, sums);
}

template <class TX>
__global__ void __launch_bounds__(kOutputsThreads, 2) chunk_outputs(ChunkProblem<TX> x) {
#if __CUDA_ARCH__ >= 800
  Arena arena(shared_memory);
  const OutputsScratch<TX> scratch(arena, x.qk_dim);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t columns = parts_of(x.v_dim, kOutputColumns);
  for (int64_t unit = blockIdx.x; unit < x.heads_here * x.chunks_here * columns;
       unit += gridDim.x) {
    const int64_t part = unit / columns;  // neighbours share q and k
    const OutputsTile tile = {x.first_head + part / x.chunks_here,
                              x.first_chunk + part % x.chunks_here,
                              unit % columns * kOutputColumns,
                              lane, warp, warp % 2, warp / 2};
    __syncthreads();  // the tile before has left shared memory
    chunk_outputs_of(x, tile, scratch);
  }
#endif
}

}  // namespace xlstm::cuda
