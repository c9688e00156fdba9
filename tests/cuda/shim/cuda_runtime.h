// The part of the CUDA runtime that the kernels use, so that a C++ compiler takes their source.
//
// A launch runs at once, on the calling thread (or is kept, where its stream captures): blocks, or
// clusters of them, one after another, their threads as fibers that change over at barriers and
// shuffles only. See emulator.h for what is checked.
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
#define __launch_bounds__(...)
#define __CUDA_ARCH__ 900

struct uint3 {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
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
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
  cudaDevAttrClusterLaunch = 120,
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributeNonPortableClusterSizeAllowed = 14,
};
struct cudaFuncAttributes {};
enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension = 4 };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    struct {
      unsigned x, y, z;
    } clusterDim;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

namespace emulator {
cudaError_t launch(const void* kernel, const cudaLaunchConfig_t& config,
                   const std::function<void()>& body);
void synchronize_block(int line);
void arrive_at_cluster(int line);
void wait_for_cluster(int line);
// 4 bytes to where `place` is in the block of that rank: there past the cluster's barrier.
void store_to_block(void* place, int rank, uint32_t value, int line);
// End the launch: operands of `what` lie where the instruction does not take them.
void fail_here(const char* what, int line);
// Wait for all lanes of the warp, and copy what each has at `mine` to `all`; at most 64 bytes each.
void gather(const void* mine, size_t bytes, void* all, int line);
// Wait for all lanes of the warp, let `compute` change what they have at `mine`, once for all.
void together(void* mine, size_t bytes, void (*compute)(void* const (&all)[32]), int line);
// A thread's copies to shared memory, made at once or when they are waited for; null: zeros.
void copy_later(void* to, const void* from, size_t bytes);
void close_group();
void finish_groups(int pending);
// A matrix product's sum as float32.
float round_sum(double sum);
// Wait for the lanes of `mask`, give each `bits` of this one, return those of lane `from`.
uint64_t exchange(unsigned mask, uint64_t bits, int from, int line);
int lane();
}  // namespace emulator

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  return emulator::launch(
      reinterpret_cast<const void*>(kernel), *config,
      [kernel, kept = std::make_tuple(arguments...)] { std::apply(kernel, kept); });
}
cudaError_t cudaGetDevice(int* index);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int index);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t cudaOccupancyMaxActiveClusters(int* count, const void* kernel,
                                           const cudaLaunchConfig_t* config);
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

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int line = __builtin_LINE()) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = emulator::exchange(mask, bits, from, line);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

struct alignas(16) float4 {
  float x, y, z, w;
};
inline unsigned __float_as_uint(float value) {
  unsigned bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
// Loads and stores with a hint for the caches.
template <class T>
T __ldcg(const T* from) {
  return *from;
}
template <class T>
void __stcg(T* to, T value) {
  *to = value;
}

// Approximations, here as far off as the hardware's may be.
inline float __expf(float x) { return std::exp(x) * (1 + 0x1p-22f); }
inline float __fdividef(float x, float y) { return x / y * (1 + 0x1p-22f); }

using std::min;
