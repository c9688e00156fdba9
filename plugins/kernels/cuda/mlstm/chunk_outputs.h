// h of every chunk at once: a block per head, chunk and 128 columns of V.
//
//   h = (w q^T C + P v) / (max(|w q^T n + sum P|, e^{-m_t}) + eps)
//
// with w the weight of what was before the chunk, and P = q^T k times each step's.
//
// q, k and C pass through shared memory in panels of 32 rows of K, three ahead of the products:
// C comes from far. S = q^T k and q^T C take their operands from the same panel. n is three columns
// of another operand, its bfloat16 terms. A warp has 32 steps, half the columns of S and half
// those of h.
#pragma once

#include "chunk.h"
#include "chunk_decay.h"
#include "chunk_panels.h"

namespace xlstm::cuda {

// What the unit of n is made of; a barrier must follow.
template <class TX>
__device__ void outputs_largest_n(const float* n, int rows, OutputsShared<TX>& s) {
  float largest = 1e-30f;
  for (int row = threadIdx.x; row < rows; row += kOutputsThreads) {
    largest = std::fmax(largest, std::fabs(n[row]));
  }
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    largest = std::fmax(largest, __shfl_xor_sync(kAllLanes, largest, distance));
  }
  if (threadIdx.x % kWarp == 0) s.largest_n[threadIdx.x / kWarp] = largest;
}

// n before the chunk over `unit` as an operand whose first three columns are its terms.
template <class TX>
__device__ void outputs_split_n(const float* n, int rows, float unit, uint32_t* to, TX tag) {
  const int pairs = static_cast<int>(round_up(rows, kPanel)) / 2;
  const float scale = 1.f / unit;
  for (int pair = threadIdx.x; pair < pairs; pair += kOutputsThreads) {
    const bool there = 2 * pair < rows;
    float low = there ? n[2 * pair] * scale : 0.f, high = there ? n[2 * pair + 1] * scale : 0.f;
    uint32_t* at = to + (pair / 8 * kWarp + pair % 4) * 2 + pair % 8 / 4;
#pragma unroll
    for (int column = 0; column < 8; ++column) {
      at[column * 8] = column < 3 ? take_term(low, high, tag) : 0;
    }
  }
}

// Accumulators of a warp, by 16 steps: S of 32 steps, h of 64 columns, and q^T n.
struct OutputsSums {
  float S[2][4][4], h[2][8][4], q_n[2][4];
  float unit;  // of h before P's part

  __device__ void scale_h(float scale) {
#pragma unroll
    for (int e = 0; e < 64; ++e) h[e / 32][e / 4 % 8][e % 4] *= scale;
  }
};

template <class TX>
__device__ void outputs_add_panel(const OutputsPart& part, const OutputsPanel<TX>& panel,
                                  const uint32_t* n, const float* units, bool is_first,
                                  OutputsSums& sums) {
  const int lane = part.lane, matrix = lane / 8;
  // a tile's later columns are done with S; its keys are not all later than its steps
  const bool has_S = is_first && part.columns_half <= part.steps_half;
  const bool has_n = is_first && part.columns_half == 1;
#pragma unroll 1
  for (int p = 0; p < kPanelParts; ++p) {
    uint32_t queries[2][4];
#pragma unroll
    for (int down = 0; down < 2; ++down) {
      const int row = 32 * part.steps_half + 16 * down + matrix % 2 * 8 + lane % 8;
      load_matrix_x4(queries[down], panel.q + tile_place<kPanel>(row, 2 * p + matrix / 2));
    }
    if (kHasUnits<TX> && units[p] != sums.unit) {
      sums.scale_h(sums.unit / units[p]);
      sums.unit = units[p];
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
        load_matrix_x4(keys, panel.k + tile_place<kPanel>(row, 2 * p + matrix % 2));
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
      const float scale_P = 1.f / s.decay.unit[row];
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
        const uint32_t pair = pack(weight[0] * scale_P, weight[1] * scale_P, TX{});
        TX* to = s.weights + tile_place(row, column / 8) + column % 8;
        *reinterpret_cast<uint32_t*>(to) = pair;
      }
      sum = sum_quad(sum);
      const float q_n = sum_quad(sums.q_n[down][e] + sums.q_n[down][e + 1]);
      if (lane % 4 == 0) {
        s.sums[part.columns_half][row] = sum;
        if (part.columns_half == 1) s.q_n[row] = q_n * s.n_unit();
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
      const float q_n =
          s.q_n[t] * (s.decay.carry[t] * s.decay.unit[t]) + s.sums[0][t] + s.sums[1][t];
      const float size = at_least(std::fabs(q_n), std::exp(-s.decay.stabiliser[t]));
      const float scale = s.decay.unit[t] / (size + x.eps);
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

// Units of C's parts in both halves of a tile of columns.
template <class TX>
__device__ void outputs_read_units(const ChunkProblem<TX>& x, const OutputsPart& part, int column,
                                   int parts, OutputsShared<TX>& s) {
  const int rows = static_cast<int>(x.qk_dim) / 16;
  for (int half = 0; half < 2; ++half) {
    const int first = column + half * kTile;
    const float* from = x.snapshot_units(part.head, part.chunk) + first / kTile * rows;
    for (int p = threadIdx.x; p < parts; p += kOutputsThreads) {
      s.units(parts, half)[p] = p < rows && first < part.end ? from[p] : 1.f;
    }
  }
}

template <class TX>
__device__ void chunk_outputs_of(const ChunkProblem<TX>& x, const OutputsPart& part,
                                 OutputsShared<TX>& s) {
  outputs_clear(x, part);
  if (part.count == 0) return;
  const ChunkDecay::Gates gates = ChunkDecay::read(x, part.head, part.chunk);
  const int rows = static_cast<int>(x.qk_dim);
  const int parts = static_cast<int>(round_up(rows, kPanel)) / 16;
  OutputsCopies<TX> copies(x, part);
#pragma unroll 1
  for (int ahead = 0; ahead < kOutputsStages - 1; ++ahead) copies.next(x, part, s);
  const float* n = x.n_snapshot(part.head, part.chunk);
  if (kHasUnits<TX>) {
    outputs_largest_n(n, rows, s);
    __syncthreads();
  }
  outputs_split_n(n, rows, s.n_unit(), s.n(), TX{});
  s.decay.prepare(gates, x.q_scale, kHasUnits<TX>);
  int stage = 0;
  // the next panel, or v, once all warps are done with the one before
  const auto advance = [&]() -> OutputsPanel<TX>& {
    copy_async_wait<kOutputsStages - 2>();
    __syncthreads();
    copies.next(x, part, s);
    OutputsPanel<TX>& panel = s.stages[stage];
    stage = (stage + 1) % kOutputsStages;
    return panel;
  };
  OutputsSums sums{};
  for (int column = part.begin; column < part.end; column += kOutputColumns) {
    const bool is_first = column == part.begin;
    if (kHasUnits<TX>) outputs_read_units(x, part, column, parts, s);
    sums.unit = 1.f;
    for (int row = 0; row < rows; row += kPanel) {
      const OutputsPanel<TX>& panel = advance();
      const int p = row / 16;
      outputs_add_panel(part, panel, s.n() + p * kWarp * 2,
                        s.units(parts, part.columns_half) + p, is_first, sums);
    }
    if (kHasUnits<TX>) sums.scale_h(sums.unit);
    if (is_first) outputs_weigh(part, x.q_scale * x.k_scale, s, sums);
#pragma unroll
    for (int e = 0; e < 64; ++e) {
      const int t = 32 * part.steps_half + e / 32 * 16 + e / 2 % 2 * 8 + part.lane / 4;
      sums.h[e / 32][e / 4 % 8][e % 4] *= s.decay.carry[t];
    }
    OutputsPanel<TX>& panel = advance();  // P and its sums are there, too
    outputs_add_chunk(part, s.weights, panel.v(part.columns_half), sums);
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
