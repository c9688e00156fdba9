// y R with R in the registers of one block: raw^T = R^T y^T on tensor cores.
//
// R^T [4 H, H] is the A operand, which weights.h loads and which is kept; y^T [H, rows] is the B
// operand, which every warp reads from shared memory.
//
// y is two terms of float16, which hold 22 bits of it: one alone fails the accuracy rule by far,
// and two of bfloat16 fail it where a state is a sum over many steps. A block has up to four rows,
// so that both terms of each are columns of one product.
#pragma once

#include "weights.h"

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

  static constexpr int parts = kUnits / 32, parts_staged = 2, part_bytes = 32 * 4 * kUnits * 2;
  static constexpr int turns = 1;
  static __device__ int turn(const Lane&) { return 0; }
  static __device__ int first_unit(const Lane& lane, int group) {
    return (lane.warp * groups + group) * 8;
  }
};

// The row in the block, and the unit, of a thread's cell. Of two rows each fills two pairs of
// columns, whose products are the same, and a lane takes one of the two groups.
template <class S>
__device__ int row_of(const Lane& lane) {
  return lane.pair / S::groups;
}
template <class S>
__device__ int unit_of(const Lane& lane) {
  return S::first_unit(lane, lane.pair % S::groups) + lane.row;
}

// A thread's part of R^T: of each group a tile of i over f and one of z over o.
template <class S>
using Weights = uint32_t[S::groups][2][S::tiles][4];

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
