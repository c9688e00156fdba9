// The part of the CUDA runtime that the kernels use, so that a C++ compiler takes their source.
//
// A launch runs at once, on the calling thread (or is kept, where its stream captures): blocks one after another, the threads of a block
// as fibers that change over at barriers and shuffles only. See emulator.h for what is checked.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>

#define __global__
#define __device__
#define __host__
#define __shared__  // all of it is the launch's dynamic shared memory, which emulator.cpp defines
#define __launch_bounds__(...)

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_size = 1, unsigned y_size = 1, unsigned z_size = 1)
      : x(x_size), y(y_size), z(z_size) {}
};
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorLaunchFailure = 719 };
struct cudaLaunchAttribute;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

namespace emulator {
cudaError_t launch(const cudaLaunchConfig_t& config, const std::function<void()>& body);
void synchronize_block(int line);
// Wait for the lanes of `mask`, give each `bits` of this one, return those of lane `from`.
uint64_t exchange(unsigned mask, uint64_t bits, int from, int line);
int lane();
}  // namespace emulator

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  return emulator::launch(*config, [kernel, kept = std::make_tuple(arguments...)] {
    std::apply(kernel, kept);
  });
}
cudaError_t cudaGetLastError();
const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);

inline void __syncthreads(int line = __builtin_LINE()) { emulator::synchronize_block(line); }

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int distance, int width = 32,
                  int line = __builtin_LINE()) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  const int lane = emulator::lane(), other = lane ^ distance;
  const bool inside = other / width == lane / width;
  bits = emulator::exchange(mask, bits, inside ? other : lane, line);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
