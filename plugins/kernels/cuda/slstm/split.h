// y R with R split over the blocks of a cluster: raw^T = R^T y^T on tensor cores.
//
// A block has some units of a head, with all four gates, and that part of R^T stays in it for the
// whole sequence, in registers as the A operand and, where they are too few, in shared memory as
// the registers that a lane would have. y^T [H, rows] is the B operand: every block has all of it
// in its shared memory, written there by the blocks whose units it is.
//
// y is two terms of float16, as in products.h, or one where the state is rounded to bfloat16, which
// float16 holds whole down to 2^-22. A product has eight columns: four rows or eight.
#pragma once

#include "weights.h"

namespace xlstm::cuda {

// Heads of up to `units` x `blocks`: each block has `units` of them; the inputs of a group of eight
// units are shared by `turns` warps, of whose parts of 32 inputs `kept` are in registers.
template <int kUnits, int kBlocks, int kTurns, int kKept>
struct ClusterShape {
  static constexpr int units = kUnits, blocks = kBlocks, turns = kTurns;
  static constexpr int inputs = kUnits * kBlocks, parts = inputs / 32;
  static constexpr int own_parts = parts / kTurns;  // of a warp
  static constexpr int kept = kKept, stored = own_parts - kKept;
  static constexpr int warps = kUnits / 8 * kTurns, threads = kWarp * warps;
};

// A shape with so many products of eight columns, and one or two terms of y.
template <class Shape, int kTiles, int kTerms>
struct Split : Shape {
  static constexpr int groups = 1, tiles = kTiles, terms = kTerms;
  // The cells of two tiles are shared by two warps of a group, a tile each; else the first has all.
  static constexpr bool shares = kTiles == 2 && Shape::turns == 2;
  static constexpr int own_tiles = shares ? 1 : kTiles;
  // of a thread
  static constexpr int cells_of_tile = 2 / kTerms, cells = own_tiles * cells_of_tile;
  static constexpr int rows = 8 * kTiles / kTerms;
  // Of products that do not wait for each other: with both halves of the gates, eight or more of
  // them on each of a processor's four parts.
  static constexpr int chains = kTiles == 1 && Shape::warps <= 8 ? 2 : 1;

  // y^T by columns. Neither the 16-byte loads of a warp, two columns at a time, nor its stores, of
  // 16 bytes to each of eight columns, meet a bank twice.
  static constexpr int odd = 2 * Shape::inputs + 64;         // from a column to the odd one
  static constexpr int pair = 4 * Shape::inputs + 128 + 16;  // from two columns to the next
  static constexpr int buffer_bytes = kTiles * 4 * pair;

  static constexpr int parts_staged = 4, part_bytes = 32 * 4 * Shape::units * 2;
  static constexpr int stored_bytes = Shape::warps * Shape::stored * 4 * kWarp * 16;
  // sums that a warp leaves to another of its group
  static constexpr int sums_bytes = (Shape::warps - (shares ? 0 : Shape::units / 8)) * cells * 4 *
                                    kWarp * static_cast<int>(sizeof(float));
  static constexpr int memory_bytes =
      static_cast<int>(max_of(parts_staged * part_bytes, 2 * buffer_bytes + sums_bytes));
  static constexpr size_t shared_bytes = stored_bytes + memory_bytes + Shape::units * 16;

  static __device__ int first_unit(const Lane& lane, int = 0) {
    return lane.warp % (Shape::units / 8) * 8;
  }
  static __device__ int turn(const Lane& lane) {  // among the warps of its group
    return lane.warp / (Shape::units / 8);
  }
  static __device__ bool has_cells(const Lane& lane) { return shares || turn(lane) == 0; }
  static __device__ int first_tile(const Lane& lane) { return shares ? turn(lane) : 0; }
  // The row of a thread's first cell among the cluster's, and how far from it that of another is.
  static __device__ int first_row(const Lane& lane) {
    return first_tile(lane) * (8 / kTerms) + lane.pair * cells_of_tile;
  }
  static __host__ __device__ constexpr int row_of(int cell) {
    return cell / cells_of_tile * (8 / kTerms) + cell % cells_of_tile;
  }
};

// A thread's part of R^T: of each part of 32 inputs two tiles of i over f and two of z over o.
template <class S>
struct SplitWeights {
  uint32_t kept[S::kept][2][2][4];
  // This lane's 16 bytes of the warp's first tile, in bytes from where shared memory begins: a
  // pointer kept here would be read as one to any memory.
  int stored;
  float factor;  // makes products what they should be

  __device__ explicit SplitWeights(const Lane& lane)
      : stored(((lane.warp * S::stored * 4) * kWarp + lane.row * 4 + lane.pair) * 16) {}

  __device__ char* place(int part, int parity, int half) const {
    const int tile = (part - S::kept) * 4 + parity * 2 + half;
    return reinterpret_cast<char*>(shared_memory) + stored + tile * kWarp * 16;
  }
  __device__ void keep(const TilePlace& at, const uint32_t (&tile)[4]) {
    if (at.part >= S::kept) {
      *reinterpret_cast<uint4*>(place(at.part, at.parity, at.half)) = {tile[0], tile[1], tile[2],
                                                                      tile[3]};
      return;
    }
#pragma unroll
    for (int r = 0; r < 4; ++r) kept[at.part][at.parity][at.half][r] = tile[r];
  }
};

// Of each eight columns and each half of the gates, in chains that do not wait for each other.
template <class S>
using SplitSums = float[S::tiles][2][S::chains][4];

// sum += R^T y^T over the inputs of this warp.
template <class S>
__device__ void add_products(const SplitWeights<S>& weights, const char* buffer, const Lane& lane,
                             SplitSums<S>& sum) {
  const char* from = buffer + lane.row / 2 * S::pair + lane.row % 2 * S::odd + lane.pair * 16 +
                     S::turn(lane) * S::own_parts * 64;
#pragma unroll
  for (int part = 0; part < S::own_parts; ++part, from += 64) {
    uint32_t y[S::tiles][2][2];
#pragma unroll
    for (int tile = 0; tile < S::tiles; ++tile) {
      const auto words = *reinterpret_cast<const uint4*>(from + tile * 4 * S::pair);
      y[tile][0][0] = words.x, y[tile][0][1] = words.y;
      y[tile][1][0] = words.z, y[tile][1][1] = words.w;
    }
#pragma unroll
    for (int parity = 0; parity < 2; ++parity) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t a[4];
        if (part < S::kept) {
#pragma unroll
          for (int r = 0; r < 4; ++r) a[r] = weights.kept[part][parity][half][r];
        } else {
          const auto words = *reinterpret_cast<const uint4*>(weights.place(part, parity, half));
          a[0] = words.x, a[1] = words.y, a[2] = words.z, a[3] = words.w;
        }
#pragma unroll
        for (int tile = 0; tile < S::tiles; ++tile) {
          mma_m16n8k16(sum[tile][half][parity % S::chains], a, y[tile][parity], __half{});
        }
      }
    }
  }
}

// A cell's gate of y R, but for the factor: the sum of chains and terms.
template <class S>
__device__ float total(const SplitSums<S>& sum, int cell, int gate) {
  const auto& chain = sum[cell / S::cells_of_tile][gate / 2];
  const int d = gate % 2 * 2 + cell % S::cells_of_tile;
  const float first = S::chains == 1 ? chain[0][d] : chain[0][d] + chain[S::chains - 1][d];
  if (S::terms == 1) return first;
  return first + (S::chains == 1 ? chain[0][d + 1] : chain[0][d + 1] + chain[S::chains - 1][d + 1]);
}

// Leave products to another warp of the group, and add what another has left.
__device__ inline void leave(float* place, const float (&p)[4]) {
  *reinterpret_cast<float4*>(place) = {p[0], p[1], p[2], p[3]};
}
__device__ inline void add_left(const float* place, float (&p)[4]) {
  const auto left = *reinterpret_cast<const float4*>(place);
  p[0] += left.x, p[1] += left.y, p[2] += left.z, p[3] += left.w;
}

// The products of a group's warps summed up for the cells of each: `products` of those that have
// some.
template <class S>
__device__ void sum_up(const SplitSums<S>& sum, const Lane& lane, float* memory,
                       float (&products)[S::cells][4]) {
  constexpr int kStep = S::units / 8 * S::cells * 4 * kWarp;  // floats of one turn
  float* const mine = memory + ((lane.warp % (S::units / 8)) * S::cells * kWarp +
                                lane.row * 4 + lane.pair) * 4;
  const int turn = S::turn(lane);
#pragma unroll
  for (int cell = 0; cell < S::cells; ++cell) {
    float others[4];
#pragma unroll
    for (int gate = 0; gate < 4; ++gate) {
      const float first = total<S>(sum, cell, gate);
      const float second = S::shares ? total<S>(sum, S::cells + cell, gate) : first;
      products[cell][gate] = turn == 0 ? first : second;
      others[gate] = turn == 0 ? second : first;
    }
    if (S::shares) {
      leave(mine + (1 - turn) * kStep + cell * kWarp * 4, others);
    } else if (turn > 0) {
      leave(mine + (turn - 1) * kStep + cell * kWarp * 4, others);
    }
  }
  if (S::turns == 1) return;
  __syncthreads();
  if (!S::has_cells(lane)) return;
#pragma unroll
  for (int other = 0; other < S::turns - 1; ++other) {
#pragma unroll
    for (int cell = 0; cell < S::cells; ++cell) {
      add_left(mine + (S::first_tile(lane) + other) * kStep + cell * kWarp * 4, products[cell]);
    }
  }
}

// y of a group's cells to where the next step reads it, in every block of the cluster: a lane has
// a unit of two columns, and sends two units of one.
template <class S>
__device__ void send(char* buffer, const Lane& lane, int rank, const float (&y)[S::cells]) {
  const int unit = rank * S::units + S::first_unit(lane);
  char* const to = buffer + S::first_tile(lane) * 4 * S::pair + lane.row / 2 * S::pair +
                   lane.row % 2 * S::odd + unit * 2 + lane.pair * 4;
#pragma unroll
  for (int tile = 0; tile < S::own_tiles; ++tile) {
    const float high = y[tile * S::cells_of_tile] * kScaleY;
    const float other = S::terms == 1 ? y[tile * S::cells_of_tile + S::cells_of_tile - 1] * kScaleY
                                      : high - widen(narrow<__half>(high));
    const uint32_t units = transpose_matrix(pack(high, other, __half{}));
#pragma unroll
    for (int block = 0; block < S::blocks; ++block) {
      store_to_block(to + tile * 4 * S::pair, block, units);
    }
  }
}

}  // namespace xlstm::cuda
