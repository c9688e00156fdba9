// C and n over the chunks: a block per head and [64,64] tile of C, which stays in registers.
//
// A warp has 16 rows (of K) of the tile and all its columns. It computes C^T = v^T (w k), so that
// two neighbouring rows of C lie in one thread: packed in 16 bits, its accumulators are the B
// operands of q^T C. w k, with w the weight of a step at the chunk's end, is exact to three terms
// of bfloat16; each chunk is summed apart and then added, because tensor cores round toward zero.
#pragma once

#include "chunk.h"
#include "chunk_split.h"

namespace xlstm::cuda {

inline constexpr int kStatesThreads = 128;
inline constexpr int kStatesStages = 3;  // chunks of k and v under way or at work
inline constexpr int kTileElements = kChunk * kTile;

template <class TX>
struct StatesShared {
  TX k[kStatesStages][kTileElements], v[kStatesStages][kTileElements];
  float write[2][kChunk];  // weights of the steps, k's scale with them
};

// The tile of a block, and its lane's and warp's place.
struct StatesTile {
  int64_t head;
  int row, column;  // first of K and of V
  int lane, warp;
};

// k and v, chunk after chunk, into stages that take turns.
template <class TX>
struct StatesCopies {
  CopyPlace<kStatesThreads> place;
  const TX *k, *v;  // this thread's of the next chunk
  int left;         // steps from it on
  int stage;        // for it

  __device__ StatesCopies(const ChunkProblem<TX>& x, const StatesTile& tile, int64_t first,
                          int64_t end)
      : left(static_cast<int>(end - first)), stage(0) {
    const int64_t step = x.place(tile.head, first + place.row, 1);
    k = x.k + step * x.qk_dim + tile.row + place.eighth * 8;
    v = x.v + step * x.v_dim + tile.column + place.eighth * 8;
  }

  // Start the next chunk, if there is one.
  __device__ void next(const ChunkProblem<TX>& x, const StatesTile& tile,
                       StatesShared<TX>& s) {
    if (left > 0) {
      const int64_t k_stride = x.heads * x.qk_dim, v_stride = x.heads * x.v_dim;
      place.copy(s.k[stage], k, k_stride, left, tile.row + place.eighth * 8 < x.qk_dim,
                 x.is_aligned);
      place.copy(s.v[stage], v, v_stride, left, tile.column + place.eighth * 8 < x.v_dim,
                 x.is_aligned);
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
  static constexpr int kParts = kTile / 16, kElements = 8 * kParts;
  float at[kParts][2][4];
};

// `body` with every element of this thread that is there, and its place in `C` [K,V].
template <class Place, class Body>
__device__ void states_for_each(const StatesTile& tile, int K, int V, Place* C, StatesPart& part,
                                Body body) {
#pragma unroll
  for (int down = 0; down < 4; ++down) {
    const int row = tile.row + tile.warp * 16 + tile.lane % 4 * 2 + down / 2 * 8 + down % 2;
    const int column = tile.column + tile.lane / 4;
    const int columns = row < K ? V - column : 0;
    Place* const at = C + int64_t{row} * V + column;
#pragma unroll
    for (int across = 0; across < kTile / 8; ++across) {
      float& element = part.at[across / 2][down / 2][across % 2 * 2 + down % 2];
      if (across * 8 < columns) body(element, at[across * 8]);
    }
  }
}

// A power of two that takes the warp's part of C to where float16 is exact to 11 bits; mostly 1.
__device__ inline float states_unit(const StatesPart& C) {
  float largest = 0.f;
#pragma unroll
  for (int e = 0; e < StatesPart::kElements; ++e) {
    largest = std::fmax(largest, std::fabs(C.at[e / 8][e / 4 % 2][e % 4]));
  }
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    largest = std::fmax(largest, __shfl_xor_sync(kAllLanes, largest, distance));
  }
  float unit = 1.f;  // the largest lies in [2^-6, 2^10) of it, if it is a number and not 0
  while (largest >= unit * 1024.f && unit < 1e33f) unit *= 65536.f;
  while (largest < unit / 64.f && unit > 1e-33f && largest > 0.f) unit /= 65536.f;
  return unit;
}

// C over `unit` as operands of q^T C, for `columns` parts of 16 that are there, to this lane's
// place.
template <class TX>
__device__ void states_store_snapshot(const StatesPart& C, float unit, int columns, Fragment* to,
                                      TX tag) {
  const float scale = 1.f / unit;
  const auto both = [&](float low, float high) {
    return kHasUnits<TX> ? pack(low * scale, high * scale, tag) : pack(low, high, tag);
  };
#pragma unroll
  for (int across = 0; across < StatesPart::kParts; ++across) {
    const auto& part = C.at[across];
    if (across < columns) {
      to[across * kWarp] = {{both(part[0][0], part[0][1]), both(part[1][0], part[1][1]),
                             both(part[0][2], part[0][3]), both(part[1][2], part[1][3])}};
    }
  }
}

// sum += v^T (w k) over the chunk's steps, and n_sum += w k over this thread's.
template <class TX>
__device__ void states_add_chunk(const StatesTile& tile, const TX* k, const TX* v,
                                 const float* write, StatesPart& sum, float (&n_sum)[2]) {
  const int lane = tile.lane, matrix = lane / 8;
#pragma unroll
  for (int s = 0; s < kChunk / 16; ++s) {
    uint32_t keys[4];
    load_matrix_x4_transposed(keys, k + tile_place(16 * s + matrix % 2 * 8 + lane % 8,
                                                   2 * tile.warp + matrix / 2));
    std::conditional_t<kHasUnits<TX>, SplitKeysTf32, SplitKeys> split;
#pragma unroll
    for (int r = 0; r < 4; ++r) {  // rows 8 (r / 2) + lane / 4, steps 8 (r % 2) + 2 (lane % 4)
      const auto weight =
          *reinterpret_cast<const FloatPair*>(write + 16 * s + r % 2 * 8 + lane % 4 * 2);
      float low, high;
      unpack(keys[r], TX{}, low, high);
      low *= weight.low;
      high *= weight.high;
      n_sum[r / 2] += low + high;
      split.set(r / 2, r % 2, low, high);
    }
#pragma unroll
    for (int pair = 0; pair < StatesPart::kParts / 2; ++pair) {  // 4 sums hide the time of one
      uint32_t values[2][4];
#pragma unroll
      for (int across = 0; across < 2; ++across) {
        const int eighth = 4 * pair + 2 * across + matrix % 2;
        load_matrix_x4_transposed(values[across],
                                  v + tile_place(16 * s + matrix / 2 * 8 + lane % 8, eighth));
      }
      split.add(values, sum.at + 2 * pair);
    }
  }
}

// m over the chunks, ahead of C: the gates of the chunk after next are on their way.
template <class TX>
struct StatesGates {
  const float* to_end;  // of the next chunk
  float* stabiliser;    // m before it, if this thread leaves m
  int left;             // chunks from the next on
  float next_forget = 0.f, next_top = 0.f, next_to_end = 0.f, m;

  __device__ StatesGates(const ChunkProblem<TX>& x, const StatesTile& tile, int begin, int end)
      : left(end - begin) {
    to_end = x.to_end + (tile.head * x.chunks + begin) * kToEnd;
    float* stabilisers = x.stabiliser + tile.head * (x.chunks + 1) + begin;
    m = *stabilisers;
    const bool leaves_m = tile.row == 0 && tile.column == 0 && threadIdx.x == 0;
    stabiliser = leaves_m ? stabilisers : nullptr;
    read();
  }

  __device__ void read() {
    if (left-- <= 0) return;
    next_to_end = to_end[threadIdx.x % kChunk];
    next_top = to_end[kChunk];
    next_forget = to_end[kChunk + 1];
    to_end += kToEnd;
  }

  // m over the next chunk, and its steps' weights; answers what is kept of C.
  __device__ float enter(float k_scale, float* write) {
    const float carried = next_forget + m;
    m = at_least(carried, next_top);
    if (threadIdx.x < kChunk) write[threadIdx.x] = std::exp(next_to_end - m) * k_scale;
    if (stabiliser != nullptr) *++stabiliser = m;
    read();
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
  for (int stage = 0; stage < kStatesStages - 1; ++stage) copies.next(x, tile, s);

  // n is carried by the blocks of the first columns alone: by each warp, four lanes alike
  const int K = static_cast<int>(x.qk_dim), V = static_cast<int>(x.v_dim);
  const int row = tile.row + tile.warp * 16, n_row = row + tile.lane / 4;
  const bool has_n = tile.column == 0 && row < K;
  const bool leaves_n = has_n && tile.lane % 4 == 0;
  const float* n_from = (begin == 0 ? x.n : x.n_out) + tile.head * x.qk_dim + n_row;
  float n[2] = {has_n ? n_from[0] : 0.f, has_n ? n_from[8] : 0.f};
  float* n_to = x.n_snapshot(tile.head, begin) + n_row;
  StatesPart C{};
  states_for_each(tile, K, V,
                  (begin == 0 ? x.C : x.C_out) + tile.head * x.qk_dim * x.v_dim, C,
                  [](float& element, const float& from) { element = from; });
  const int columns = V / 16;
  const int parts = row < K ? columns - tile.column / 16 : 0;
  Fragment* C_to = x.snapshot(tile.head, begin) +
                   (int64_t{row} / 16 * columns + tile.column / 16) * kWarp + tile.lane;

  float keep = 0.f;
  if (begin < end) {
    StatesGates<TX> gates(x, tile, begin, end);
    keep = gates.enter(x.k_scale, s.write[begin % 2]);
    int stage = 0;
    for (int chunk = begin; chunk < end; ++chunk) {
      copy_async_wait<kStatesStages - 2>();
      __syncthreads();  // k, v and the weights are there, and those of the chunk before are free
      copies.next(x, tile, s);
      StatesPart sum{};
      float n_sum[2] = {};
      states_add_chunk(tile, s.k[stage], s.v[stage], s.write[chunk % 2], sum, n_sum);
      stage = stage + 1 == kStatesStages ? 0 : stage + 1;
      const float unit = kHasUnits<TX> ? states_unit(C) : 1.f;
      states_store_snapshot(C, unit, parts, C_to, TX{});  // while the products are under way
      if (kHasUnits<TX> && tile.lane == 0 && parts > 0) {
        x.snapshot_units(tile.head, chunk)[tile.column / kTile * (K / 16) + row / 16] = unit;
      }
      C_to += x.qk_dim / 16 * (x.v_dim / 16) * kWarp;
      if (leaves_n) {
        n_to[0] = n[0];
        n_to[8] = n[1];
      }
      n_to += x.qk_dim;
      const float kept = keep;
      if (chunk + 1 < end) keep = gates.enter(x.k_scale, s.write[(chunk + 1) % 2]);
#pragma unroll
      for (int e = 0; e < StatesPart::kElements; ++e) {
        float& element = C.at[e / 8][e / 4 % 2][e % 4];
        element = std::fma(kept, element, sum.at[e / 8][e / 4 % 2][e % 4]);
      }
#pragma unroll
      for (int e = 0; e < 2; ++e) n[e] = std::fma(kept, n[e], sum_quad(n_sum[e]));
    }
  }
  copy_async_wait<0>();
  states_for_each(tile, K, V, x.C_out + tile.head * x.qk_dim * x.v_dim, C,
                  [](const float& element, float& to) { to = element; });
  if (leaves_n) {
    float* n_out = x.n_out + tile.head * x.qk_dim + n_row;
    n_out[0] = n[0];
    n_out[8] = n[1];
  }
}

template <class TX>
__global__ void __launch_bounds__(kStatesThreads, 2) chunk_states(ChunkProblem<TX> x) {
#if __CUDA_ARCH__ >= 800
  auto& shared = *reinterpret_cast<StatesShared<TX>*>(shared_memory);
  const int columns = static_cast<int>(parts_of(x.v_dim, kTile));
  const int64_t tiles = parts_of(x.qk_dim, kTile) * columns;
  for (int64_t unit = blockIdx.x; unit < x.heads_here * tiles; unit += gridDim.x) {
    const int part = static_cast<int>(unit % tiles), thread = threadIdx.x;
    const StatesTile tile = {x.first_head + unit / tiles, part / columns * kTile,
                             part % columns * kTile, thread % kWarp, thread / kWarp};
    __syncthreads();  // the tile before has left shared memory
    chunk_states_of(x, tile, shared);
  }
#endif
}

}  // namespace xlstm::cuda
