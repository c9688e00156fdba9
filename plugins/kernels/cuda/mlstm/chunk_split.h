// The weighted keys of 16 steps as operands, exact enough for a state in float32.
#pragma once

#include "chunk.h"

namespace xlstm::cuda {

// bfloat16: three terms, [term][8 rows][register], which have float32's 24 bits.
struct SplitKeys {
  static constexpr int kTerms = 3;
  uint32_t at[kTerms][2][2];

  __device__ void set(int row, int half, float low, float high) {
#pragma unroll
    for (int term = 0; term < kTerms; ++term) {
      at[term][row][half] = take_term(low, high, __nv_bfloat16{});
    }
  }

  template <int kCount>
  __device__ void add(const uint32_t (&values)[kCount][4], float (*sums)[2][4]) const {
#pragma unroll
    for (int term = kTerms - 1; term >= 0; --term) {  // the small ones first
#pragma unroll
      for (int across = 0; across < kCount; ++across) {
        mma_m16n8k16(sums[across][0], values[across], at[term][0], __nv_bfloat16{});
        mma_m16n8k16(sums[across][1], values[across], at[term][1], __nv_bfloat16{});
      }
    }
  }
};

// float16 has no range for terms: two of tf32, of which v is one. Its products have 8 steps; the
// two steps of a register become one of the first and one of the last four, alike for both sides.
struct SplitKeysTf32 {
  static constexpr int kTerms = 2;
  uint32_t at[kTerms][2][2][2];  // and the steps of a register

  __device__ void set(int row, int half, float low, float high) {
    const float both[2] = {low, high};
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      uint32_t bits;
      std::memcpy(&bits, &both[e], sizeof bits);
      bits &= 0xffffe000u;
      at[0][row][half][e] = bits;
      float first;
      std::memcpy(&first, &bits, sizeof first);
      const float second = both[e] - first;
      std::memcpy(&at[1][row][half][e], &second, sizeof second);
    }
  }

  template <int kCount>
  __device__ void add(const uint32_t (&values)[kCount][4], float (*sums)[2][4]) const {
#pragma unroll
    for (int across = 0; across < kCount; ++across) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float at_once[4];  // columns 0-7 and 8-15 of the first of two steps, then of the second
        unpack(values[across][2 * half], __half{}, at_once[0], at_once[2]);
        unpack(values[across][2 * half + 1], __half{}, at_once[1], at_once[3]);
        uint32_t bits[4];
        std::memcpy(bits, at_once, sizeof bits);
#pragma unroll
        for (int term = kTerms - 1; term >= 0; --term) {
          mma_m16n8k8_tf32(sums[across][0], bits, at[term][0][half]);
          mma_m16n8k8_tf32(sums[across][1], bits, at[term][1][half]);
        }
      }
    }
  }
};

}  // namespace xlstm::cuda
