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
struct StatesShared {
  TX k[kStatesStages][kTileElements], v[kStatesStages][kTileElements];
  float write[2][kChunk];  // weights of the steps, k's scale with them
};

// The tile of a block, and its lane's and warp's place.
struct StatesTile {
  int64_t head, row, column;  // first row (of K) and column (of V) of the tile
  int lane, warp;
};

// k and v, chunk after chunk, into stages that take turns.
template <class TX>
struct StatesCopies {
  CopyPlace<kStatesThreads / 8> place;
  const TX *k, *v;               // of the next chunk
  int64_t k_stride, v_stride;    // between steps
  bool has_k, has_v;
  int left;                      // steps from the next chunk on
  int stage;                     // of the next chunk

  __device__ StatesCopies(const ChunkProblem<TX>& x, const StatesTile& tile, int64_t first,
                          int64_t end)
      : place{static_cast<int>(threadIdx.x / 8), static_cast<int>(threadIdx.x % 8)},
        k_stride(x.heads * x.qk_dim), v_stride(x.heads * x.v_dim),
        left(static_cast<int>(end - first)), stage(0) {
    const int64_t row = tile.row + place.eighth * 8, column = tile.column + place.eighth * 8;
    k = x.k + x.place(tile.head, first + place.row, x.qk_dim) + row;
    v = x.v + x.place(tile.head, first + place.row, x.v_dim) + column;
    has_k = row < x.qk_dim;
    has_v = column < x.v_dim;
  }

  // Start the next chunk, if there is one.
  __device__ void next(StatesShared<TX>& s, bool is_aligned) {
    if (left > 0) {
      place.copy(s.k[stage], k, k_stride, left, has_k, is_aligned);
      place.copy(s.v[stage], v, v_stride, left, has_v, is_aligned);
      k += kChunk * k_stride;
      v += kChunk * v_stride;
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

// C as operands of q^T C, for `columns` parts of 16 that are there, to this lane's place.
template <class TX>
__device__ void states_store_snapshot(const StatesPart& C, int columns, Fragment* to, TX tag) {
#pragma unroll
  for (int across = 0; across < 4; ++across) {
    const auto& part = C.at[across];
    if (across < columns) {
      to[across * kWarp] = {{pack(part[0][0], part[0][1], tag), pack(part[1][0], part[1][1], tag),
                             pack(part[0][2], part[0][3], tag),
                             pack(part[1][2], part[1][3], tag)}};
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

// m over the chunks, ahead of C: the gates of the chunk after next are on their way.
template <class TX>
struct StatesGates {
  const float *forget, *top, *to_end;  // of the head; to_end of this thread's step
  float* stabiliser;                   // where m is left, or null
  int last;                            // chunk
  float next_forget, next_top, next_to_end, m;

  __device__ StatesGates(const ChunkProblem<TX>& x, const StatesTile& tile, int64_t begin,
                         int64_t end)
      : last(static_cast<int>(end) - 1) {
    const int64_t first = tile.head * x.chunks;
    forget = x.forget + first;
    top = x.top + first;
    to_end = x.to_end + first * kChunk + threadIdx.x % kChunk;
    float* stabilisers = x.stabiliser + tile.head * (x.chunks + 1);
    m = stabilisers[begin];
    const bool leaves_m = tile.row == 0 && tile.column == 0 && threadIdx.x == 0;
    stabiliser = leaves_m ? stabilisers : nullptr;
    read(static_cast<int>(begin));
  }

  __device__ void read(int chunk) {
    chunk = chunk < last ? chunk : last;
    next_forget = forget[chunk];
    next_top = top[chunk];
    next_to_end = to_end[chunk * int64_t{kChunk}];
  }

  // m over `chunk`, and its steps' weights; answers what is kept of C.
  __device__ float enter(int chunk, float k_scale, float* write) {
    const float carried = next_forget + m;
    m = at_least(carried, next_top);
    if (threadIdx.x < kChunk) write[threadIdx.x] = std::exp(next_to_end - m) * k_scale;
    if (stabiliser != nullptr) stabiliser[chunk + 1] = m;
    read(chunk + 1);
    return std::exp(carried - m);
  }
};

template <class TX>
__device__ void chunk_states_of(const ChunkProblem<TX>& x, const StatesTile& tile,
                                StatesShared<TX>& s) {
  const int64_t steps = valid_steps(x.lengths, x.lengths_size, tile.head / x.heads, x.time);
  const int begin = static_cast<int>(x.first_chunk);
  const int end = static_cast<int>(min_of(parts_of(steps, kChunk), begin + x.chunks_here));
  if (begin > 0 && begin >= end) return;  // the slice before has stored the states
  StatesCopies<TX> copies(x, tile, begin * kChunk, min_of(steps, int64_t{end} * kChunk));
#pragma unroll
  for (int stage = 0; stage < kStatesStages - 1; ++stage) copies.next(s, x.is_aligned);

  // n is carried by the blocks of the first columns alone: by each warp, four lanes alike
  const int64_t row = tile.row + tile.warp * 16, n_row = row + tile.lane / 4;
  const bool has_n = tile.column == 0 && row < x.qk_dim;
  const bool leaves_n = has_n && tile.lane % 4 == 0;
  const float* n_from = (begin == 0 ? x.n : x.n_out) + tile.head * x.qk_dim + n_row;
  float n[2] = {has_n ? n_from[0] : 0.f, has_n ? n_from[8] : 0.f};
  float* n_to = x.n_snapshot(tile.head, begin) + n_row;
  StatesPart C{};
  states_for_each(tile, x.qk_dim, x.v_dim,
                  (begin == 0 ? x.C : x.C_out) + tile.head * x.qk_dim * x.v_dim, C,
                  [](float& element, const float& from) { element = from; });
  const int64_t columns = x.v_dim / 16;
  const int parts = row < x.qk_dim ? static_cast<int>(columns - tile.column / 16) : 0;
  Fragment* C_to = x.snapshot(tile.head, begin) +
                   (row / 16 * columns + tile.column / 16) * kWarp + tile.lane;
  const int64_t C_size = x.qk_dim / 16 * columns * kWarp;

  float keep = 0.f;
  if (begin < end) {
    StatesGates<TX> gates(x, tile, begin, end);
    keep = gates.enter(begin, x.k_scale, s.write[begin % 2]);
    int stage = 0;
    for (int chunk = begin; chunk < end; ++chunk) {
      copy_async_wait<kStatesStages - 2>();
      __syncthreads();  // k, v and the weights are there, and those of the chunk before are free
      copies.next(s, x.is_aligned);
      states_store_snapshot(C, parts, C_to, TX{});
      C_to += C_size;
      if (leaves_n) {
        n_to[0] = n[0];
        n_to[8] = n[1];
      }
      n_to += x.qk_dim;
      const float kept = keep;
      if (chunk + 1 < end) keep = gates.enter(chunk + 1, x.k_scale, s.write[(chunk + 1) % 2]);
      StatesPart sum{};
      float n_sum[2] = {};
      states_add_chunk(tile, s.k[stage], s.v[stage], s.write[chunk % 2], sum, n_sum);
      stage = stage + 1 == kStatesStages ? 0 : stage + 1;
#pragma unroll
      for (int e = 0; e < 32; ++e) {
        float& element = C.at[e / 8][e / 4 % 2][e % 4];
        element = std::fma(kept, element, sum.at[e / 8][e / 4 % 2][e % 4]);
      }
#pragma unroll
      for (int e = 0; e < 2; ++e) n[e] = std::fma(kept, n[e], sum_quad(n_sum[e]));
    }
  }
  copy_async_wait<0>();
  states_for_each(tile, x.qk_dim, x.v_dim, x.C_out + tile.head * x.qk_dim * x.v_dim, C,
                  [](const float& element, float& to) { to = element; });
  if (leaves_n) {
    float* n_out = x.n_out + tile.head * x.qk_dim + n_row;
    n_out[0] = n[0];
    n_out[8] = n[1];
  }
}

template <class TX>
__global__ void __launch_bounds__(kStatesThreads, 3) chunk_states(ChunkProblem<TX> x) {
#if __CUDA_ARCH__ >= 800
  auto& shared = *reinterpret_cast<StatesShared<TX>*>(shared_memory);
  const int64_t columns = parts_of(x.v_dim, kTile), tiles = parts_of(x.qk_dim, kTile) * columns;
  for (int64_t unit = blockIdx.x; unit < x.heads_here * tiles; unit += gridDim.x) {
    const StatesTile tile = {x.first_head + unit / tiles, unit % tiles / columns * kTile,
                             unit % columns * kTile, static_cast<int>(threadIdx.x % kWarp),
                             static_cast<int>(threadIdx.x / kWarp)};
    __syncthreads();  // the tile before has left shared memory
    chunk_states_of(x, tile, shared);
  }
#endif
}

}  // namespace xlstm::cuda
