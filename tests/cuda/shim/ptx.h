// What plugins/kernels/cuda/ptx.h does, in C++: lanes hand each other their registers.
//
// A matrix product sums exactly and then rounds to float32 as the emulator is told: to nearest, or
// toward zero, which is nearer to what tensor cores do.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda_runtime.h"

namespace xlstm::cuda {

inline double from_bits(uint16_t bits, __nv_bfloat16) { return __bfloat162float({bits}); }
inline double from_bits(uint16_t bits, __half) { return __half2float({bits}); }

// A lane's registers of a product.
struct MmaRegisters {
  uint32_t a[4], b[2];
  float d[4];
};

// d += a b for the whole warp, kDepth products in a sum. `read_a(registers, i, k)` is element k of
// row `i` of A in the lane that has it, `read_b` of B's column; lanes are given by `lane_of(k)` of
// their row or column.
template <int kDepth, class Lane, class ReadA, class ReadB>
void multiply(void* const (&all)[32], Lane lane_of, ReadA read_a, ReadB read_b) {
  const auto at = [&](int lane) -> MmaRegisters& {
    return *static_cast<MmaRegisters*>(all[lane]);
  };
  double a[16][kDepth], b[kDepth][8];
  for (int k = 0; k < kDepth; ++k) {
    for (int row = 0; row < 16; ++row) a[row][k] = read_a(at(row % 8 * 4 + lane_of(k)), row / 8, k);
    for (int column = 0; column < 8; ++column) {
      b[k][column] = read_b(at(column * 4 + lane_of(k)), k);
    }
  }
  for (int row = 0; row < 16; ++row) {
    double sum[8];
    const auto d = [&](int column) -> float& {
      return at(row % 8 * 4 + column / 2).d[row / 8 * 2 + column % 2];
    };
    for (int column = 0; column < 8; ++column) sum[column] = d(column);
    for (int k = 0; k < kDepth; ++k) {
      for (int column = 0; column < 8; ++column) sum[column] += a[row][k] * b[k][column];
    }
    for (int column = 0; column < 8; ++column) d(column) = emulator::round_sum(sum[column]);
  }
}

template <class TX>
void multiply_halves(void* const (&all)[32]) {
  const auto half = [](uint32_t pair, int k) {
    return from_bits(static_cast<uint16_t>(pair >> 16 * (k % 2)), TX{});
  };
  multiply<16>(
      all, [](int k) { return k % 8 / 2; },
      [&](const MmaRegisters& r, int lower, int k) { return half(r.a[lower + k / 8 * 2], k); },
      [&](const MmaRegisters& r, int k) { return half(r.b[k / 8], k); });
}

inline void multiply_tf32(void* const (&all)[32]) {
  const auto value = [](uint32_t bits) {
    float read;
    bits &= 0xffffe000u;
    std::memcpy(&read, &bits, sizeof read);
    return static_cast<double>(read);
  };
  multiply<8>(
      all, [](int k) { return k % 4; },
      [&](const MmaRegisters& r, int lower, int k) { return value(r.a[lower + k / 4 * 2]); },
      [&](const MmaRegisters& r, int k) { return value(r.b[k / 4]); });
}

// What all lanes' registers give together, computed once for the warp.
inline void multiply_together(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              void (*compute)(void* const (&)[32]), int line) {
  MmaRegisters mine;
  std::memcpy(mine.a, a, sizeof mine.a);
  std::memcpy(mine.b, b, sizeof mine.b);
  std::memcpy(mine.d, d, sizeof mine.d);
  emulator::together(&mine, sizeof mine, compute, line);
  std::memcpy(d, mine.d, sizeof mine.d);
}

template <class TX>
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], TX,
                  int line = __builtin_LINE()) {
  multiply_together(d, a, b, multiply_halves<TX>, line);
}
inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             int line = __builtin_LINE()) {
  multiply_together(d, a, b, multiply_tf32, line);
}

template <int kMatrices>
void load_matrices(uint32_t (&r)[kMatrices], const void* row, bool transposed, int line) {
  uint16_t mine[8] = {}, all[32][8];
  const int lane = emulator::lane(), g = lane / 4, t = lane % 4;
  if (lane < 8 * kMatrices) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) emulator::fail_here("ldmatrix", line);
    std::memcpy(mine, row, sizeof mine);
  }
  emulator::gather(mine, sizeof mine, all, line);
  for (int i = 0; i < kMatrices; ++i) {
    const uint32_t low = transposed ? all[8 * i + 2 * t][g] : all[8 * i + g][2 * t];
    const uint32_t high = transposed ? all[8 * i + 2 * t + 1][g] : all[8 * i + g][2 * t + 1];
    r[i] = low | high << 16;
  }
}

inline void load_matrix_x4(uint32_t (&r)[4], const void* row, int line = __builtin_LINE()) {
  load_matrices(r, row, false, line);
}
inline void load_matrix_x4_transposed(uint32_t (&r)[4], const void* row,
                                      int line = __builtin_LINE()) {
  load_matrices(r, row, true, line);
}
inline void load_matrix_x2(uint32_t (&r)[2], const void* row, int line = __builtin_LINE()) {
  load_matrices(r, row, false, line);
}
inline void load_matrix_x2_transposed(uint32_t (&r)[2], const void* row,
                                      int line = __builtin_LINE()) {
  load_matrices(r, row, true, line);
}

inline void copy_async_16(void* shared, const void* global, bool there = true,
                          int line = __builtin_LINE()) {
  const auto aligned = [](const void* place) {
    return reinterpret_cast<uintptr_t>(place) % 16 == 0;
  };
  if (!aligned(shared) || (there && !aligned(global))) emulator::fail_here("cp.async", line);
  emulator::copy_later(shared, there ? global : nullptr, 16);
}
inline void copy_async_4(void* shared, const void* global, int line = __builtin_LINE()) {
  const auto places = reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global);
  if (places % 4 != 0) emulator::fail_here("cp.async", line);
  emulator::copy_later(shared, global, 4);
}
inline void copy_async_commit() { emulator::close_group(); }
template <int kPending>
void copy_async_wait() {
  emulator::finish_groups(kPending);
}

inline uint32_t transpose_matrix(uint32_t row, int line = __builtin_LINE()) {
  uint32_t all[32];
  emulator::gather(&row, sizeof row, all, line);
  const int g = emulator::lane() / 4, t = emulator::lane() % 4;
  const auto element = [&](int i, int j) { return all[4 * i + j / 2] >> 16 * (j % 2) & 0xffffu; };
  return element(2 * t, g) | element(2 * t + 1, g) << 16;
}

inline void store_to_block(void* shared, int rank, uint32_t value, int line = __builtin_LINE()) {
  emulator::store_to_block(shared, rank, value, line);
}
inline void cluster_arrive(int line = __builtin_LINE()) { emulator::arrive_at_cluster(line); }
inline void cluster_wait(int line = __builtin_LINE()) { emulator::wait_for_cluster(line); }

// As far from `exact` as the hardware may be, to a side that depends on the bits of x.
inline float approximate(double exact, float x, double most) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits = (bits ^ bits >> 15) * 0x9e3779b1u;
  const auto y = static_cast<float>(exact * (1 + (bits >> 31 ? most : -most)));
  return std::fabs(y) < 0x1p-126f ? std::copysign(0.f, y) : y;
}
inline float exp2_approximate(float x) {
  return x == 0 ? 1 : approximate(std::exp2(static_cast<double>(x)), x, 0x1p-22);
}
inline float reciprocal_approximate(float x) {
  const double normal = std::fabs(x) < 0x1p-126f ? std::copysign(0., x) : x;
  return x == 1 ? 1 : approximate(1 / normal, x, 0x1p-24);
}

inline float maximum(float a, float b) { return a < b || b != b ? b : a; }
inline float minimum(float a, float b) { return b < a || b != b ? b : a; }

inline uint32_t pack(float low, float high, __nv_bfloat16) {
  const uint32_t bits = __float2bfloat16_rn(high).bits;
  return __float2bfloat16_rn(low).bits | bits << 16;
}
inline uint32_t pack(float low, float high, __half) {
  const uint32_t bits = __float2half_rn(high).bits;
  return __float2half_rn(low).bits | bits << 16;
}

}  // namespace xlstm::cuda
