// C and n over the chunks: a block per head and [64,64] tile of C, which stays in registers.
//
// A warp has 16 rows (of K) of the tile and all its columns. It computes C^T = v^T (w k), so that
// two neighbouring rows of C lie in one thread: packed in 16 bits, its accumulators are the B
// operands of q^T C. w k, with w the weight of a step at the chunk's end, is exact to three terms
// of bfloat16; each chunk is summed apart and then added, because tensor cores round toward zero.
#pragma once

#include "chunk.h"

namespace xlstm::cuda {

inline constexpr int kStatesThreads = 128;
inline constexpr int kStatesStages = 3;  // chunks of k and v under way or at work
inline constexpr int kTileElements = kChunk * kTile;
inline constexpr int kTerms = 3;

template <class TX>
struct StatesScratch {
  TX* k;         // [stages] tiles
  TX* v;         // [stages] tiles
  float* write;  // [2][L] weights of the steps, k's scale with them

  __host__ __device__ explicit StatesScratch(Arena& arena) {
    k = arena.take<TX>(kStatesStages * kTileElements);
    v = arena.take<TX>(kStatesStages * kTileElements);
    write = arena.take<float>(2 * kChunk);
  }
};

// The tile of a block, and its lane's and warp's place.
struct StatesTile {
  int64_t head, row, column;  // first row (of K) and column (of V) of the tile
  int lane, warp;
};

// Gates of one chunk: what its steps need, and m after it.
struct ChunkGates {
  float forget, top, to_end;  // to_end of this thread's step
};

template <class TX>
__device__ ChunkGates states_read_gates(const ChunkProblem<TX>& x, const StatesTile& tile,
                                        int64_t chunk, int64_t end) {
  const int64_t place = tile.head * x.chunks + min_of(chunk, end - 1);
  const int step = threadIdx.x % kChunk;
  return {x.forget[place], x.top[place], x.to_end[place * kChunk + step]};
}

// k and v, chunk after chunk, into stages that take turns.
template <class TX>
struct StatesCopies {
  StepsCopy<TX> k, v;
  int64_t left;  // steps from the next chunk on
  int stage;     // of the next chunk

  __device__ StatesCopies(const ChunkProblem<TX>& x, const StatesTile& tile, int64_t first,
                          int64_t end)
      : left(end - first), stage(0) {
    const int row = threadIdx.x / 8, eighth = threadIdx.x % 8;
    const auto copy = [&](const TX* from, int64_t size, int64_t column) {
      const bool is_inside = left > 0 && column < size;
      const int64_t place = is_inside ? x.place(tile.head, first + row, size) + column : 0;
      return StepsCopy<TX>{from + place, x.heads * size, row, eighth, is_inside};
    };
    k = copy(x.k, x.qk_dim, tile.row + eighth * 8);
    v = copy(x.v, x.v_dim, tile.column + eighth * 8);
  }

  // Start the next chunk, if there is one.
  __device__ void next(const StatesScratch<TX>& s, bool is_aligned) {
    constexpr int kRowsAtOnce = kStatesThreads / 8;
    if (left > 0) {
      k.template copy<kRowsAtOnce>(s.k + stage * kTileElements, left, is_aligned);
      v.template copy<kRowsAtOnce>(s.v + stage * kTileElements, left, is_aligned);
      k.from += kChunk * k.stride;
      v.from += kChunk * v.stride;
      left -= kChunk;
    }
    copy_async_commit();
    stage = stage + 1 == kStatesStages ? 0 : stage + 1;
  }
};

// The warp's part of the tile: [V/16][K/8][element].
struct StatesPart {
  float at[4][2][4];
};

// `body` with every element of this thread that is there, and its place in `C` [K,V].
template <class Place, class Body>
__device__ void states_for_each(const StatesTile& tile, int64_t K, int64_t V, Place* C,
                                StatesPart& part, Body body) {
#pragma unroll
  for (int down = 0; down < 4; ++down) {
    const int64_t row = tile.row + tile.warp * 16 + tile.lane % 4 * 2 + down / 2 * 8 + down % 2;
    const int64_t column = tile.column + tile.lane / 4;
    const int64_t columns = row < K ? V - column : 0;
    Place* const at = C + row * V + column;
#pragma unroll
    for (int across = 0; across < 8; ++across) {
      float& element = part.at[across / 2][down / 2][across % 2 * 2 + down % 2];
      if (across * 8 < columns) body(element, at[across * 8]);
    }
  }
}

// C before a chunk as operands of q^T C.
template <class TX>
__device__ void states_store_snapshot(const ChunkProblem<TX>& x, const StatesTile& tile,
                                      int64_t chunk, const StatesPart& C) {
  const int64_t row = tile.row / 16 + tile.warp, column = tile.column / 16;
  const int64_t columns = x.v_dim / 16;
  if (row >= x.qk_dim / 16) return;
  Fragment* to = x.snapshot(tile.head, chunk) + (row * columns + column) * kWarp + tile.lane;
#pragma unroll
  for (int across = 0; across < 4; ++across) {
    const auto& part = C.at[across];
    if (column + across < columns) {
      to[across * kWarp] = {{pack(part[0][0], part[0][1], TX{}), pack(part[1][0], part[1][1], TX{}),
                             pack(part[0][2], part[0][3], TX{}),
                             pack(part[1][2], part[1][3], TX{})}};
    }
  }
}

// sum += v^T (w k) over the chunk's steps, and n_sum += w k over this thread's.
template <class TX>
__device__ void states_add_chunk(const StatesTile& tile, const TX* k, const TX* v,
                                 const float* write, StatesPart& sum, float (&n_sum)[2]) {
  const int lane = tile.lane, matrix = lane / 8;
#pragma unroll 1  // fully unrolled, registers spill
  for (int s = 0; s < kChunk / 16; ++s) {
    uint32_t keys[4], terms[kTerms][2][2];
    load_matrix_x4_transposed(keys, k + tile_place(16 * s + matrix % 2 * 8 + lane % 8,
                                                   2 * tile.warp + matrix / 2));
#pragma unroll
    for (int r = 0; r < 4; ++r) {  // rows 8 (r / 2) + lane / 4, steps 8 (r % 2) + 2 (lane % 4)
      const auto weight =
          *reinterpret_cast<const FloatPair*>(write + 16 * s + r % 2 * 8 + lane % 4 * 2);
      float low, high;
      unpack(keys[r], TX{}, low, high);
      low *= weight.low;
      high *= weight.high;
      n_sum[r / 2] += low + high;
#pragma unroll
      for (int term = 0; term < kTerms; ++term) {
        terms[term][r / 2][r % 2] = take_term(low, high, TX{});
      }
    }
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {  // 4 sums at once hide the time that one takes
      uint32_t values[2][4];
#pragma unroll
      for (int across = 0; across < 2; ++across) {
        const int eighth = 4 * pair + 2 * across + matrix % 2;
        load_matrix_x4_transposed(values[across],
                                  v + tile_place(16 * s + matrix / 2 * 8 + lane % 8, eighth));
      }
#pragma unroll
      for (int term = kTerms - 1; term >= 0; --term) {  // the small ones first
#pragma unroll
        for (int across = 0; across < 2; ++across) {
          auto& to = sum.at[2 * pair + across];
          mma_m16n8k16(to[0], values[across], terms[term][0], TX{});
          mma_m16n8k16(to[1], values[across], terms[term][1], TX{});
        }
      }
    }
  }
}

template <class TX>
__device__ void chunk_states_of(const ChunkProblem<TX>& x, const StatesTile& tile,
                                const StatesScratch<TX>& s) {
  const int64_t steps = valid_steps(x.lengths, x.lengths_size, tile.head / x.heads, x.time);
  const int64_t begin = x.first_chunk;
  const int64_t end = min_of(parts_of(steps, kChunk), begin + x.chunks_here);
  if (begin > 0 && begin >= end) return;  // the slice before has stored the states
  StatesCopies<TX> copies(x, tile, begin * kChunk, min_of(steps, end * kChunk));
#pragma unroll
  for (int stage = 0; stage < kStatesStages - 1; ++stage) copies.next(s, x.is_aligned);

  // n is carried by the blocks of the first columns alone: by each warp, four lanes alike
  const bool has_n = tile.column == 0;
  const int64_t n_row = tile.row + tile.warp * 16 + tile.lane / 4;
  float n[2] = {};
  const float* n_from = (begin == 0 ? x.n : x.n_out) + tile.head * x.qk_dim;
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    if (has_n && n_row + 8 * e < x.qk_dim) n[e] = n_from[n_row + 8 * e];
  }
  const auto store_n = [&](float* to) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if (has_n && tile.lane % 4 == 0 && n_row + 8 * e < x.qk_dim) to[n_row + 8 * e] = n[e];
    }
  };
  StatesPart C{};
  states_for_each(tile, x.qk_dim, x.v_dim,
                  (begin == 0 ? x.C : x.C_out) + tile.head * x.qk_dim * x.v_dim, C,
                  [](float& element, const float& from) { element = from; });

  float* stabilisers = x.stabiliser + tile.head * (x.chunks + 1);
  const bool is_first = tile.row == 0 && tile.column == 0 && threadIdx.x == 0;
  float m = stabilisers[begin], keep = 0.f;
  // m after `chunk`, what is kept of C over it, and its steps' weights
  const auto enter = [&](const ChunkGates& gates, int64_t chunk) {
    const float after = at_least(gates.forget + m, gates.top);
    keep = std::exp(gates.forget + m - after);
    m = after;
    if (threadIdx.x < kChunk) {
      s.write[chunk % 2 * kChunk + threadIdx.x] = std::exp(gates.to_end - after) * x.k_scale;
    }
    if (is_first) stabilisers[chunk + 1] = after;
  };
  ChunkGates next{};
  if (begin < end) {
    next = states_read_gates(x, tile, begin + 1, end);
    enter(states_read_gates(x, tile, begin, end), begin);
  }
  int stage = 0;
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    copy_async_wait<kStatesStages - 2>();
    __syncthreads();  // k, v and the weights are there, and those of the chunk before are free
    copies.next(s, x.is_aligned);
    states_store_snapshot(x, tile, chunk, C);
    store_n(x.n_snapshot(tile.head, chunk));
    const float kept = keep;
    if (chunk + 1 < end) {
      const ChunkGates gates = next;
      next = states_read_gates(x, tile, chunk + 2, end);
      enter(gates, chunk + 1);
    }
    StatesPart sum{};
    float n_sum[2] = {};
    states_add_chunk(tile, s.k + stage * kTileElements, s.v + stage * kTileElements,
                     s.write + chunk % 2 * kChunk, sum, n_sum);
    stage = stage + 1 == kStatesStages ? 0 : stage + 1;
#pragma unroll
    for (int e = 0; e < 32; ++e) {
      float& element = C.at[e / 8][e / 4 % 2][e % 4];
      element = std::fma(kept, element, sum.at[e / 8][e / 4 % 2][e % 4]);
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      n_sum[e] += __shfl_xor_sync(kAllLanes, n_sum[e], 1);
      n_sum[e] += __shfl_xor_sync(kAllLanes, n_sum[e], 2);
      n[e] = std::fma(kept, n[e], n_sum[e]);
    }
  }
  copy_async_wait<0>();
  states_for_each(tile, x.qk_dim, x.v_dim, x.C_out + tile.head * x.qk_dim * x.v_dim, C,
                  [](const float& element, float& to) { to = element; });
  store_n(x.n_out + tile.head * x.qk_dim);
}

template <class TX>
__global__ void __launch_bounds__(kStatesThreads, 3) chunk_states(ChunkProblem<TX> x) {
#if __CUDA_ARCH__ >= 800
  Arena arena(shared_memory);
  const StatesScratch<TX> scratch(arena);
  const int64_t columns = parts_of(x.v_dim, kTile), tiles = parts_of(x.qk_dim, kTile) * columns;
  for (int64_t unit = blockIdx.x; unit < x.heads_here * tiles; unit += gridDim.x) {
    const StatesTile tile = {x.first_head + unit / tiles, unit % tiles / columns * kTile,
                             unit % columns * kTile, static_cast<int>(threadIdx.x % kWarp),
                             static_cast<int>(threadIdx.x / kWarp)};
    __syncthreads();  // the tile before has left shared memory
    chunk_states_of(x, tile, scratch);
  }
#endif
}

}  // namespace xlstm::cuda
