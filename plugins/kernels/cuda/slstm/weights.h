// R on its way to registers, as the A operand of y R on tensor cores: raw^T = R^T y^T.
//
// R^T [4 H, H] is taken in tiles whose rows are ordered so that a thread gets i, f, z and o of the
// same cells: of eight units a tile of i over f and one of z over o. Its elements are float16
// whatever TX, scaled into that type's range.
//
// A spread S says how a head is laid over a block: its `units`, `threads`, and `groups` of eight
// units in each warp. R passes through shared memory in `parts` of 32 inputs, `parts_staged` at a
// time, of `part_bytes` each. Warps may share the inputs of a group; then each has its `turn`.
#pragma once

#include <ptx.h>

#include "element.h"
#include "operands.h"

namespace xlstm::cuda {

// Where a thread stands, in mma's terms: it has rows `row` and `row` + 8 of A and D, column `row`
// of B, and columns 2 `pair` and 2 `pair` + 1 of D.
struct Lane {
  int warp, row, pair;
  __device__ Lane()
      : warp(static_cast<int>(threadIdx.x / kWarp)),
        row(static_cast<int>(threadIdx.x % kWarp / 4)),
        pair(static_cast<int>(threadIdx.x % 4)) {}
};

// Units of a head from `unit` on.
struct Slice {
  int64_t head;
  int unit;
};

// Where a tile stands in a warp: of its parts of 32 inputs, their first or second 16 as a lane's 16
// bytes of y hold them; of a group of units, i over f or z over o.
struct TilePlace {
  int part, parity, group, half;
};

// R in shared memory, 32 inputs at a time: input by input, the 16-byte pieces of each exchanged so
// that load_matrix's eight inputs lie in different banks.
template <class S>
__device__ int staged(int j, int gate, int unit) {
  const int piece = (gate * S::units + unit) / 8, key = (j >> 3 & 3) | (j & 1) << 2;
  return (j * 4 * S::units / 8 + (piece ^ key)) * 16 + unit % 8 * 2;
}

// `body` with each place of a staged part that is this thread's, where it comes from, and whether
// that is there. A place has eight elements, or one where R has no whole pieces.
template <class TX, class S, int kStep, class Body>
__device__ void for_places(const SlstmOperands<TX>& x, const Slice& slice, int part, char* to,
                           Body body) {
  const int H = x.size;
  constexpr int kWidth = 4 * S::units / kStep;
#pragma unroll 1  // registers are for the parts that are there already
  for (int i = threadIdx.x; i < 32 * kWidth; i += S::threads) {
    const int j = i / kWidth, column = i % kWidth * kStep;
    const int gate = column / S::units, place = column % S::units, unit = slice.unit + place;
    const TX* from = x.R + ((slice.head * H + 32 * part + j) * 4 + gate) * H + unit;
    body(to + staged<S>(j, gate, place), from, 32 * part + j < H && unit < H);
  }
}

template <class TX>
__device__ bool in_pieces(const SlstmOperands<TX>& x) {
  return x.size % 8 == 0 && reinterpret_cast<uintptr_t>(x.R) % 16 == 0;
}

// Ask for a part of R, zeros where there is none.
template <class TX, class S>
__device__ void stage(const SlstmOperands<TX>& x, const Slice& slice, int part, char* to) {
  if (in_pieces(x)) {
    for_places<TX, S, 8>(x, slice, part, to, [&](char* place, const TX* from, bool there) {
      copy_async_16(place, there ? from : x.R, there);
    });
  }
}

// Scale this thread's places of a part that has come. Returns the largest magnitude.
template <class TX, class S>
__device__ float convert(const SlstmOperands<TX>& x, const Slice& slice, int part, char* to,
                         float scale) {
  float largest = 0;
  if (in_pieces(x)) {
    for_places<TX, S, 8>(x, slice, part, to, [&](char* place, const TX*, bool) {
      auto* const words = reinterpret_cast<uint4*>(place);
      uint32_t pairs[4] = {words->x, words->y, words->z, words->w};
#pragma unroll
      for (uint32_t& pair : pairs) {
        const auto* const two = reinterpret_cast<const TX*>(&pair);
        const float low = widen(two[0]), high = widen(two[1]);
        largest = maximum(largest, maximum(std::fabs(low), std::fabs(high)));
        pair = pack(low * scale, high * scale, __half{});
      }
      *words = {pairs[0], pairs[1], pairs[2], pairs[3]};
    });
  } else {
    for_places<TX, S, 1>(x, slice, part, to, [&](char* place, const TX* from, bool there) {
      const float weight = there ? widen(*from) : 0.f;
      largest = maximum(largest, std::fabs(weight));
      *reinterpret_cast<__half*>(place) = narrow<__half>(weight * scale);
    });
  }
  return largest;
}

// The part that is the `own`-th of the warps with that turn, and where it is staged.
template <class S>
__device__ int part_of(int own, int turn) {
  return turn * (S::parts / S::turns) + own;
}
template <class S>
__device__ char* staged_part(char* memory, int own, int turn) {
  constexpr int kAhead = S::parts_staged / S::turns;
  return memory + (turn + own % kAhead * S::turns) * S::part_bytes;
}

// `keep` with each tile of this warp's in a staged part, its `own`-th.
template <class S, class Keep>
__device__ void take_tiles(const Lane& lane, const char* from, int own, Keep keep) {
  const int thread = static_cast<int>(threadIdx.x), matrix = thread % kWarp / 8, k = thread % 8;
#pragma unroll
  for (int parity = 0; parity < 2; ++parity) {
    // the order in which a lane's 16 bytes of y hold the inputs of two tiles
    const int j = k / 2 * 8 + parity * 4 + matrix / 2 * 2 + k % 2;
#pragma unroll
    for (int group = 0; group < S::groups; ++group) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t tile[4];
        load_matrix_x4_transposed(
            tile, from + staged<S>(j, 2 * half + matrix % 2, S::first_unit(lane, group)));
        keep(TilePlace{own, parity, group, half}, tile);
      }
    }
  }
}

// Ask for the parts whose tiles all warps take next, one for each turn.
template <class TX, class S>
__device__ void stage_turns(const SlstmOperands<TX>& x, const Slice& slice, int own, char* memory) {
  if (own < S::parts / S::turns) {
#pragma unroll 1
    for (int turn = 0; turn < S::turns; ++turn) {
      stage<TX, S>(x, slice, part_of<S>(own, turn), staged_part<S>(memory, own, turn));
    }
  }
  copy_async_commit();
}

// `keep` with each tile of R^T, scaled, that is this warp's, by way of `memory`. Returns the
// largest magnitude this thread has seen. No tile is kept under a condition: registers that may
// keep what they had would count as R's from the start, while they are needed to convert it.
template <class TX, class S, class Keep>
__device__ float load_scaled(const SlstmOperands<TX>& x, const Slice& slice, const Lane& lane,
                             char* memory, float scale, Keep keep) {
  constexpr int kAhead = S::parts_staged / S::turns;
  float largest = 0;
#pragma unroll
  for (int own = 0; own < kAhead; ++own) stage_turns<TX, S>(x, slice, own, memory);
#pragma unroll
  for (int own = 0; own < S::parts / S::turns; ++own) {
    copy_async_wait<kAhead - 1>();
#pragma unroll 1
    for (int turn = 0; turn < S::turns; ++turn) {
      largest = maximum(largest, convert<TX, S>(x, slice, part_of<S>(own, turn),
                                                staged_part<S>(memory, own, turn), scale));
    }
    __syncthreads();
    take_tiles<S>(lane, staged_part<S>(memory, own, S::turn(lane)), own, keep);
    __syncthreads();
    stage_turns<TX, S>(x, slice, own + kAhead, memory);
  }
  return largest;
}

// The largest of a block's values, by way of `memory`.
template <class S>
__device__ float largest_of(float value, const Lane& lane, float* memory) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value = maximum(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  if (threadIdx.x % kWarp == 0) memory[lane.warp] = value;
  __syncthreads();
  for (int warp = 0; warp < S::threads / kWarp; ++warp) value = maximum(value, memory[warp]);
  __syncthreads();
  return value;
}

constexpr float kScaleY = 256;   // y is within (-1, 1): float16 has it to 2^-32
constexpr float kScaleR = 1024;  // where R is below 63: a bfloat16 of at least 2^-27 is exact

// `keep` with each of this warp's tiles, by way of `memory`, at the last as they are to stay.
// Returns the factor that makes products what they should be.
template <class TX, class S, class Keep>
__device__ float load_weights(const SlstmOperands<TX>& x, const Slice& slice, const Lane& lane,
                              char* memory, Keep keep) {
  constexpr float kMost = 65504;  // of float16
  float scale = kScaleR;
#pragma unroll 1
  for (bool is_scaled = false; !is_scaled;) {  // again only for what no trained network has
    const float largest = largest_of<S>(load_scaled<TX, S>(x, slice, lane, memory, scale, keep),
                                        lane, reinterpret_cast<float*>(memory));
    is_scaled = true;
    while (largest * scale > kMost && scale > 0x1p-113f) {
      scale /= 2;
      is_scaled = false;
    }
  }
  return 1 / (scale * kScaleY);
}

}  // namespace xlstm::cuda
