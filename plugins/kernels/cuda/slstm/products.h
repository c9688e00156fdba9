// y R on tensor cores, with R in registers: raw^T = R^T y^T.
//
// R^T [4 H, H] is the A operand, loaded once and kept; y^T [H, rows] is the B operand, which every
// warp reads from shared memory. The rows of R^T are ordered so that a thread gets i, f, z and o of
// the same cells.
//
// Operands are float16 whatever TX. y is two terms, which hold 22 bits of it: one alone fails the
// accuracy rule by far, and two of bfloat16 fail it where a state is a sum over many steps. A block
// has up to four rows, so that both terms of each are columns of one product.
#pragma once

#include <ptx.h>

#include "element.h"
#include "operands.h"

namespace xlstm::cuda {

// How the units of a head and the rows of a block are spread over a block's threads: a warp has one
// or two groups of eight units, and each thread one cell.
template <int kUnits, int kRows>
struct Spread {
  static constexpr int units = kUnits, rows = kRows, groups = 4 / kRows;
  static constexpr int threads = kUnits * kRows;
  static constexpr int tiles = kUnits / 16;             // of inputs
  static constexpr int chains = groups == 1 ? 2 : 1;    // of products: four in a warp

  // y^T by columns: the terms of a row lie `low` bytes apart, the rows `pair`. So neither the
  // 16-byte loads of a warp nor its stores meet a bank twice.
  static constexpr int low = 2 * kUnits | 64;
  static constexpr int pair = (low + 2 * kUnits + 95) / 128 * 128 + 32;
  static constexpr int buffer_bytes = kRows * pair;

  // R passes through shared memory in parts of 32 inputs, two at a time.
  static constexpr int parts = kUnits / 32, parts_staged = 2, part_bytes = 32 * 4 * kUnits * 2;
};

// Where a thread stands, in mma's terms: it has rows `row` and `row` + 8 of A and D, column `row`
// of B, and columns 2 `pair` and 2 `pair` + 1 of D.
struct Lane {
  int warp, row, pair;
  __device__ Lane()
      : warp(static_cast<int>(threadIdx.x) / kWarp),
        row(static_cast<int>(threadIdx.x) % kWarp / 4),
        pair(static_cast<int>(threadIdx.x) % 4) {}
};

// The row in the block, and the unit, of a thread's cell. Of two rows each fills two pairs of
// columns, whose products are the same, and a lane takes one of the two groups.
template <class S>
__device__ int row_of(const Lane& lane) {
  return lane.pair / S::groups;
}
template <class S>
__device__ int unit_of(const Lane& lane) {
  return (lane.warp * S::groups + lane.pair % S::groups) * 8 + lane.row;
}

// --- R ------------------------------------------------------------------------------------------

// A thread's part of R^T: of each group a tile of i over f and one of z over o.
template <class S>
using Weights = uint32_t[S::groups][2][S::tiles][4];

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
__device__ void for_places(const SlstmOperands<TX>& x, int64_t head, int part, char* to,
                           Body body) {
  const int H = x.size;
  constexpr int kWidth = 4 * S::units / kStep;
#pragma unroll 1  // registers are for the parts that are there already
  for (int i = threadIdx.x; i < 32 * kWidth; i += S::threads) {
    const int j = i / kWidth, column = i % kWidth * kStep;
    const int gate = column / S::units, unit = column % S::units;
    const TX* from = x.R + ((head * H + 32 * part + j) * 4 + gate) * H + unit;
    body(to + staged<S>(j, gate, unit), from, 32 * part + j < H && unit < H);
  }
}

template <class TX>
__device__ bool in_pieces(const SlstmOperands<TX>& x) {
  return x.size % 8 == 0 && reinterpret_cast<uintptr_t>(x.R) % 16 == 0;
}

// Ask for a part of R, zeros where there is none.
template <class TX, class S>
__device__ void stage(const SlstmOperands<TX>& x, int64_t head, int part, char* to) {
  if (in_pieces(x)) {
    for_places<TX, S, 8>(x, head, part, to, [&](char* place, const TX* from, bool there) {
      copy_async_16(place, there ? from : x.R, there);
    });
  }
}

// Scale this thread's places of a part that has come. Returns the largest magnitude.
template <class TX, class S>
__device__ float convert(const SlstmOperands<TX>& x, int64_t head, int part, char* to,
                         float scale) {
  float largest = 0;
  if (in_pieces(x)) {
    for_places<TX, S, 8>(x, head, part, to, [&](char* place, const TX*, bool) {
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
    for_places<TX, S, 1>(x, head, part, to, [&](char* place, const TX* from, bool there) {
      const float weight = there ? widen(*from) : 0.f;
      largest = maximum(largest, std::fabs(weight));
      *reinterpret_cast<__half*>(place) = narrow<__half>(weight * scale);
    });
  }
  return largest;
}

// R^T, scaled, to registers by way of `memory`. Returns the largest magnitude this thread has seen.
template <class TX, class S>
__device__ float load_scaled(const SlstmOperands<TX>& x, int64_t head, const Lane& lane,
                             char* memory, float scale, Weights<S>& weights) {
  const int thread = static_cast<int>(threadIdx.x), matrix = thread % kWarp / 8, k = thread % 8;
  float largest = 0;
#pragma unroll
  for (int part = 0; part < S::parts_staged; ++part) {
    if (part < S::parts) stage<TX, S>(x, head, part, memory + part * S::part_bytes);
    copy_async_commit();
  }
#pragma unroll
  for (int part = 0; part < S::parts; ++part) {
    char* const from = memory + part % S::parts_staged * S::part_bytes;
    copy_async_wait<S::parts_staged - 1>();
    largest = maximum(largest, convert<TX, S>(x, head, part, from, scale));
    __syncthreads();
#pragma unroll
    for (int parity = 0; parity < 2; ++parity) {
      // the order in which a lane's 16 bytes of y hold the inputs of two tiles
      const int j = k / 2 * 8 + parity * 4 + matrix / 2 * 2 + k % 2;
#pragma unroll
      for (int group = 0; group < S::groups; ++group) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          load_matrix_x4_transposed(
              weights[group][half][2 * part + parity],
              from + staged<S>(j, 2 * half + matrix % 2, (lane.warp * S::groups + group) * 8));
        }
      }
    }
    __syncthreads();
    if (part + S::parts_staged < S::parts) {
      stage<TX, S>(x, head, part + S::parts_staged, from);
    }
    copy_async_commit();
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
  memory[lane.warp] = value;
  __syncthreads();
  for (int warp = 0; warp < S::threads / kWarp; ++warp) value = maximum(value, memory[warp]);
  __syncthreads();
  return value;
}

constexpr float kScaleY = 256;   // y is within (-1, 1): float16 has it to 2^-32
constexpr float kScaleR = 1024;  // where R is below 63: a bfloat16 of at least 2^-27 is exact

// R^T to registers by way of `memory`. Returns the factor that makes products what they should be.
template <class TX, class S>
__device__ float load_weights(const SlstmOperands<TX>& x, int64_t head, const Lane& lane,
                              char* memory, Weights<S>& weights) {
  constexpr float kMost = 65504;  // of float16
  float scale = kScaleR;
#pragma unroll 1
  for (bool is_scaled = false; !is_scaled;) {  // again only for what no trained network has
    const float largest = largest_of<S>(load_scaled<TX, S>(x, head, lane, memory, scale, weights),
                                        lane, reinterpret_cast<float*>(memory));
    is_scaled = true;
    while (largest * scale > kMost && scale > 0x1p-113f) {
      scale /= 2;
      is_scaled = false;
    }
  }
  return 1 / (scale * kScaleY);
}

// --- y ------------------------------------------------------------------------------------------

// Both terms of a cell's y where the next step reads them.
template <class S>
__device__ void put_terms(char* buffer, const Lane& lane, float y) {
  const float scaled = y * kScaleY;
  const auto high = narrow<__half>(scaled);
  char* const to = buffer + row_of<S>(lane) * S::pair + unit_of<S>(lane) * 2;
  *reinterpret_cast<__half*>(to) = high;
  *reinterpret_cast<__half*>(to + S::low) = narrow<__half>(scaled - widen(high));
}

// A thread's part of the products, of each tile in chains that do not wait for each other.
template <class S>
using Sums = float[S::groups][2][S::chains][4];

// sum += R^T y^T
template <class S>
__device__ void add_products(const Weights<S>& weights, const char* buffer, const Lane& lane,
                             Sums<S>& sum) {
  const int row = lane.row / (2 * S::groups);
  const char* part = buffer + row * S::pair + lane.row % 2 * S::low + lane.pair * 16;
#pragma unroll
  for (int two = 0; two < S::tiles / 2; ++two, part += 64) {
    const auto y = *reinterpret_cast<const uint4*>(part);
    const uint32_t b[2][2] = {{y.x, y.y}, {y.z, y.w}};
#pragma unroll
    for (int parity = 0; parity < 2; ++parity) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int group = 0; group < S::groups; ++group) {
          mma_m16n8k16(sum[group][half][parity % S::chains],
                       weights[group][half][2 * two + parity], b[parity], __half{});
        }
      }
    }
  }
}

// A group's gate, but for the factor: the sum of chains and terms.
template <class S>
__device__ float total(const Sums<S>& sum, int group, int gate) {
  const auto& chain = sum[group][gate / 2];
  const int d = gate % 2 * 2;
  if (S::chains == 1) return chain[0][d] + chain[0][d + 1];
  return (chain[0][d] + chain[S::chains - 1][d]) + (chain[0][d + 1] + chain[S::chains - 1][d + 1]);
}

// This thread's.
template <class S>
__device__ float mixed(const Sums<S>& sum, const Lane& lane, int gate) {
  const float first = total<S>(sum, 0, gate), last = total<S>(sum, S::groups - 1, gate);
  return lane.pair % S::groups == 0 ? first : last;
}

}  // namespace xlstm::cuda
