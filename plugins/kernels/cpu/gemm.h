// Register tiles of a matrix product: kTileRows x kTileColumns elements of C += A B.
//
// B is laid out in panels of kTileColumns columns, [depth][kTileColumns]; A is read where it is,
// by two strides. Each element is one chain of multiply-adds in the order of depth, whatever the
// tile it falls into: results do not depend on how the work is cut.
#pragma once

#include "simd.h"

namespace xlstm::cpu::XLSTM_ISA {

// As many accumulators as leave room for one row of B and one element of A.
#if defined(__AVX512F__) || defined(__ARM_NEON)
inline constexpr int kTileRows = 8;
#elif defined(__AVX2__)
inline constexpr int kTileRows = 6;
#else
inline constexpr int kTileRows = 4;
#endif
inline constexpr int kTileVectors = 2;
template <class T>
inline constexpr int kTileColumns = kTileVectors * kLanes<T>;

template <class T>
struct Tile {
  Vec<T> at[kTileRows][kTileVectors];
};

template <class T>
XLSTM_INLINE Tile<T> zero_tile() {
  Tile<T> tile;
  for (auto& row : tile.at) {
    for (auto& vector : row) vector = zero<T>();
  }
  return tile;
}

// tile[r][c] += sum over d < depth of a[r * row_stride + d * depth_stride] b[d][c]
template <class T>
XLSTM_INLINE void multiply_add(Tile<T>& tile, int64_t depth, const T* a, int64_t row_stride,
                               int64_t depth_stride, const T* b) {
  Tile<T> sum = tile;
  for (int64_t d = 0; d < depth; ++d) {
    Vec<T> columns[kTileVectors];
    for (int c = 0; c < kTileVectors; ++c) columns[c] = load(b + c * kLanes<T>);
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r) {
      const Vec<T> element = broadcast(a[r * row_stride]);
#pragma GCC unroll 2
      for (int c = 0; c < kTileVectors; ++c) sum.at[r][c] = fma(element, columns[c], sum.at[r][c]);
    }
    a += depth_stride;
    b += kTileColumns<T>;
  }
  tile = sum;
}

}  // namespace xlstm::cpu::XLSTM_ISA
