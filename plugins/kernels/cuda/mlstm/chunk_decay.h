// The weight of each step of a chunk for each later one, from sums in two stages: within groups of
// 16 steps in pairs, and between groups by what follows a step in its group, the groups between
// and what precedes the later step in its own. No sum is a difference of sums.
#pragma once

#include "chunk.h"

namespace xlstm::cuda {

struct ChunkDecay {
  static constexpr int kGroup = 16;
  static constexpr int kGroups = kChunk / kGroup;
  static constexpr int kStride = kGroup + 1;  // spreads a column of pairs over banks

  float input[kChunk], log_forget[kChunk];
  float pairs[kChunk * kStride];   // [L][kStride] a(s..t] + i_s of step t and those of its group
  float since[kGroups * kChunk];   // [kGroups][L] a from the end of an earlier group to step t
  float until[kChunk];             // a(s..] + i_s to the end of the group of s
  float within[kChunk];            // a from the start of its group to step t
  float stabiliser[kChunk];        // m_t
  float unit[kChunk];              // of P
  float carry[kChunk];             // weight of what was before the chunk and q's scale, over unit

  // Of key s for query t, s <= t.
  __device__ float weight(int t, int s) const {
    const float sum = s / kGroup == t / kGroup ? pairs[t * kStride + s % kGroup]
                                               : since[s / kGroup * kChunk + t] + until[s];
    return std::exp(sum - stabiliser[t]);
  }

  // What each of the first 2 L threads needs of memory, to be read early.
  struct Gates {
    float input, log_forget, stabiliser;
  };
  template <class TX>
  static __device__ Gates read(const ChunkProblem<TX>& x, int64_t head, int64_t chunk) {
    const int64_t place = (head * x.chunks + chunk) * kChunk + threadIdx.x % kChunk;
    return {x.input[place], x.log_forget[place], x.stabiliser[head * (x.chunks + 1) + chunk]};
  }

  // By a block of at least 2 L threads; a barrier must follow.
  __device__ void prepare(const Gates& gates, float q_scale, bool has_units) {
    const int t = threadIdx.x % kChunk;
    if (threadIdx.x < kChunk) {
      input[t] = gates.input;
      log_forget[t] = gates.log_forget;
    }
    __syncthreads();
    float top = -INFINITY;
    if (threadIdx.x < kChunk) {
      top = sum_backwards(t);
    } else if (threadIdx.x < 2 * kChunk) {
      sum_onwards(t);
    }
    __syncthreads();
    if (threadIdx.x >= kChunk) return;
    const float carried = sum_groups(t, top) + gates.stabiliser;
    const float m = at_least(carried, top);
    stabiliser[t] = m;
    // no weight is more than e^{top - m}; where that is next to nothing, so is P
    unit[t] = has_units ? power_of_two(std::fmax(std::exp(top - m), 1e-12f)) : 1.f;
    carry[t] = std::exp(carried - m) * q_scale / unit[t];
  }

 private:
  // Pairs of step t and the sum of its group up to it; answers the largest pair.
  __device__ float sum_backwards(int t) {
    float sum = 0.f, top = -INFINITY;
#pragma unroll
    for (int back = 0; back < kGroup; ++back) {
      const int s = back <= t % kGroup ? t - back : t;  // reads what is there, all at once
      const float pair = sum + input[s], after = sum + log_forget[s];
      if (back > t % kGroup) continue;
      pairs[t * kStride + s % kGroup] = pair;
      top = at_least(top, pair);
      sum = after;
    }
    within[t] = sum;
    return top;
  }

  __device__ void sum_onwards(int s) {
    float sum = 0.f;
#pragma unroll
    for (int on = 1; on < kGroup; ++on) {
      if (s % kGroup + on < kGroup) sum += log_forget[s + on];
    }
    until[s] = sum + input[s];
  }

  // Sums since earlier groups; answers a(0..t] and raises `top` to the largest a(s..t] + i_s.
  __device__ float sum_groups(int t, float& top) {
    float sum = within[t];
    for (int group = t / kGroup - 1; group >= 0; --group) {
      since[group * kChunk + t] = sum;
#pragma unroll
      for (int s = group * kGroup; s < (group + 1) * kGroup; ++s) {
        top = at_least(top, sum + until[s]);
      }
      sum += within[(group + 1) * kGroup - 1];
    }
    return sum;
  }
};

}  // namespace xlstm::cuda
