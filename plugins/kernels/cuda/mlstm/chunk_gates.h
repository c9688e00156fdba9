// The gates of every chunk, a warp each: O(T) bytes, all chunks at once.
#pragma once

#include "chunk.h"

namespace xlstm::cuda {

inline constexpr int kGatesThreads = 128;

template <class TX>
__device__ void chunk_gates_of(const ChunkProblem<TX>& x, int64_t head, int64_t chunk, int lane) {
  const int64_t steps = valid_steps(x.lengths, x.lengths_size, head / x.heads, x.time);
  const int64_t place = (head * x.chunks + chunk) * kChunk;
  float input[2], log_forget[2];  // of this lane's two steps
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int64_t step = chunk * kChunk + 2 * lane + e;
    input[e] = -INFINITY;
    log_forget[e] = 0.f;
    if (step < steps) {
      const int64_t from = x.place(head, step, 1);
      input[e] = soft_cap(x.i[from], x.soft_cap);
      log_forget[e] = log_sigmoid(soft_cap(x.f[from], x.soft_cap));
    }
    x.input[place + 2 * lane + e] = input[e];
    x.log_forget[place + 2 * lane + e] = log_forget[e];
  }
  // Lanes join in groups of 2, 4, ... 32: their sum, and what comes after this lane within it.
  float sum = log_forget[0] + log_forget[1], after = 0.f;
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const float other = __shfl_xor_sync(kAllLanes, sum, distance);
    if ((lane & distance) == 0) after += other;
    sum += other;
  }
  const float first = after + log_forget[1] + input[0], second = after + input[1];
  float* to_end = x.to_end + (head * x.chunks + chunk) * kToEnd;
  to_end[2 * lane] = first;
  to_end[2 * lane + 1] = second;
  float top = at_least(first, second);
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    top = at_least(top, __shfl_xor_sync(kAllLanes, top, distance));
  }
  if (lane > 0) return;
  to_end[kChunk] = top;
  to_end[kChunk + 1] = sum;
  if (chunk == 0) x.stabiliser[head * (x.chunks + 1)] = x.m[head];
}

template <class TX>
__global__ void __launch_bounds__(kGatesThreads, 1) chunk_gates(ChunkProblem<TX> x) {
  const int64_t warps = blockDim.x / kWarp, units = x.batch * x.heads * x.chunks;
  const int64_t first = blockIdx.x * warps + threadIdx.x / kWarp;
  for (int64_t unit = first; unit < units; unit += gridDim.x * warps) {
    chunk_gates_of(x, unit / x.chunks, unit % x.chunks, threadIdx.x % kWarp);
  }
}

}  // namespace xlstm::cuda
