// The part of the CUDA driver that tests/gpu uses, on the emulator: device memory is the heap,
// a stream does its work at once, a graph keeps launches to repeat them.
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "cuda_runtime.h"
#include "stream.h"

#define XLSTM_DRIVER_API extern "C" __attribute__((visibility("default")))

namespace {

struct Graph {
  std::vector<std::function<cudaError_t()>> work;
};

constexpr int kOutOfMemory = 2;

}  // namespace

XLSTM_DRIVER_API int cuInit(unsigned) { return 0; }
XLSTM_DRIVER_API int cuDeviceGetCount(int* count) { return *count = 1, 0; }
XLSTM_DRIVER_API int cuDeviceGet(int* device, int) { return *device = 0, 0; }
XLSTM_DRIVER_API int cuDeviceGetName(char* name, int size, int) {
  std::strncpy(name, "emulator", static_cast<size_t>(size));
  return 0;
}
XLSTM_DRIVER_API int cuDevicePrimaryCtxRetain(void** context, int) {
  return *context = nullptr, 0;
}
XLSTM_DRIVER_API int cuCtxSetCurrent(void*) { return 0; }

XLSTM_DRIVER_API int cuMemAlloc_v2(void** memory, size_t bytes) {
  constexpr size_t kAlignment = 256;
  *memory = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  return *memory == nullptr ? kOutOfMemory : 0;
}
XLSTM_DRIVER_API int cuMemFree_v2(void* memory) { return std::free(memory), 0; }
XLSTM_DRIVER_API int cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void*) {
  return std::memcpy(to, from, bytes), 0;
}
XLSTM_DRIVER_API int cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, void*) {
  return std::memcpy(to, from, bytes), 0;
}

XLSTM_DRIVER_API int cuStreamCreate(void** stream, unsigned) {
  return *stream = new CUstream_st, 0;
}
XLSTM_DRIVER_API int cuStreamDestroy_v2(void* stream) {
  return delete static_cast<CUstream_st*>(stream), 0;
}
XLSTM_DRIVER_API int cuStreamSynchronize(void*) { return 0; }
XLSTM_DRIVER_API int cuStreamBeginCapture_v2(void* stream, int) {
  static_cast<CUstream_st*>(stream)->captures = true;
  return 0;
}
XLSTM_DRIVER_API int cuStreamEndCapture(void* stream, void** graph) {
  auto& from = *static_cast<CUstream_st*>(stream);
  from.captures = false;
  *graph = new Graph{std::move(from.captured)};
  from.captured.clear();
  return 0;
}

XLSTM_DRIVER_API int cuGraphInstantiateWithFlags(void** executable, void* graph,
                                                 unsigned long long) {
  return *executable = new Graph(*static_cast<Graph*>(graph)), 0;
}
XLSTM_DRIVER_API int cuGraphLaunch(void* executable, void*) {
  for (const auto& work : static_cast<Graph*>(executable)->work) {
    if (const cudaError_t error = work(); error != cudaSuccess) return error;
  }
  return 0;
}
XLSTM_DRIVER_API int cuGraphGetNodes(void* graph, void*, size_t* count) {
  return *count = static_cast<Graph*>(graph)->work.size(), 0;
}
XLSTM_DRIVER_API int cuGraphExecDestroy(void* executable) {
  return delete static_cast<Graph*>(executable), 0;
}
XLSTM_DRIVER_API int cuGraphDestroy(void* graph) { return delete static_cast<Graph*>(graph), 0; }
