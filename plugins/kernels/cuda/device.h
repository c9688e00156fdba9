// What the kernels share: launching, memory, and the rule of lengths.
#pragma once

#include <cuda_runtime.h>
#include <shared.h>

#include <cstddef>
#include <cstdint>

#include "xlstm/call.h"

namespace xlstm::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;
// Shared memory a block has on every GPU without asking for more.
inline constexpr size_t kSharedBytes = 48 * 1024;

__host__ __device__ constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
__host__ __device__ constexpr int64_t max_of(int64_t a, int64_t b) { return a < b ? b : a; }
__host__ __device__ constexpr int64_t parts_of(int64_t count, int64_t size) {
  return (count + size - 1) / size;
}
__host__ __device__ constexpr int64_t round_up(int64_t count, int64_t multiple) {
  return parts_of(count, multiple) * multiple;
}

// Cuts one piece of memory into arrays, each aligned to 16 bytes. With null it only counts.
class Arena {
 public:
  __host__ __device__ explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

  template <class T>
  __host__ __device__ T* take(int64_t count) {
    char* const place = base_ == nullptr ? nullptr : base_ + used_;
    used_ += static_cast<size_t>(round_up(count * static_cast<int64_t>(sizeof(T)), 16));
    return reinterpret_cast<T*>(place);
  }

  __host__ __device__ size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

// Steps of `row` that count: -1 is all, and no more than there are.
__device__ inline int64_t valid_steps(const int32_t* lengths, int64_t lengths_size, int64_t row,
                                      int64_t time) {
  const int64_t length = lengths[lengths_size == 1 ? 0 : row];
  return length < 0 ? time : min_of(length, time);
}

// What the device said to the last launch of this thread that it refused.
extern thread_local cudaError_t launch_error;

// kLaunchFailed with its cause where `error` is one.
inline Status status_of(cudaError_t error) {
  if (error == cudaSuccess) return Status::kOk;
  launch_error = error;
  cudaGetLastError();  // reported here, so that the caller's next call does not meet it
  return Status::kLaunchFailed;
}

// Load kernels, so that no launch in a capture has to.
template <class... Kernels>
Status load_kernels(Kernels... kernels) {
  cudaFuncAttributes ignored;
  Status status = Status::kOk;
  for (const void* kernel : {reinterpret_cast<const void*>(kernels)...}) {
    if (status == Status::kOk) status = status_of(cudaFuncGetAttributes(&ignored, kernel));
  }
  return status;
}

// Let `kernel` be launched with up to `bytes` of shared memory.
template <class Kernel>
Status allow_shared(Kernel kernel, size_t bytes) {
  return status_of(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                        cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(bytes)));
}

// How a launch asks for clusters of so many blocks.
inline cudaLaunchAttribute cluster_of(int blocks) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(blocks);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  return attribute;
}

// Queue `kernel`, which loops from blockIdx.x to `units` by gridDim.x, in clusters of so many
// blocks; units are a multiple of them.
template <class Operands>
Status launch_kernel(void (*kernel)(Operands), const Operands& operands, int64_t units,
                     int64_t threads, size_t shared_bytes, void* stream, int cluster = 1) {
  constexpr int64_t kMostBlocks = int64_t{1} << 30;
  cudaLaunchAttribute attribute = cluster_of(cluster);
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(min_of(units, kMostBlocks)));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &attribute;
  config.numAttrs = cluster > 1 ? 1 : 0;
  return status_of(cudaLaunchKernelEx(&config, kernel, operands));
}

// Let `kernel` be launched in clusters of `cluster` blocks, more than eight too, which not every
// GPU with clusters takes. Returns how many of them run at once; 0 where they cannot.
template <class Kernel>
int allow_clusters(Kernel kernel, int cluster, int threads, size_t shared_bytes) {
  const auto function = reinterpret_cast<const void*>(kernel);
  cudaLaunchAttribute attribute = cluster_of(cluster);
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(cluster));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int at_once = 0;
  if (cudaFuncSetAttribute(function, cudaFuncAttributeNonPortableClusterSizeAllowed, 1) ==
          cudaSuccess &&
      cudaOccupancyMaxActiveClusters(&at_once, function, &config) == cudaSuccess) {
    return at_once;
  }
  cudaGetLastError();  // a size that the device does not have is no fault
  return 0;
}

}  // namespace xlstm::cuda
