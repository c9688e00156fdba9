// What benchmarks/gpu needs of the CUDA driver beyond tests/cuda/shim/driver.cpp, on the emulator:
// events read the clock, since a stream does its work at once. Linked with the emulator.
#include <chrono>
#include <cstring>

#include "stream.h"

#define XLSTM_DRIVER_API extern "C" __attribute__((visibility("default")))

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kL2CacheBytes = 38;

}  // namespace

XLSTM_DRIVER_API int cuDriverGetVersion(int* version) { return *version = 12040, 0; }
XLSTM_DRIVER_API int cuDeviceGetAttribute(int* value, int attribute, int) {
  return *value = attribute == kL2CacheBytes ? 1 << 16 : 1, 0;
}
XLSTM_DRIVER_API int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = 1 << 30, 0; }

XLSTM_DRIVER_API int cuEventCreate(void** event, unsigned) {
  return *event = new Clock::time_point, 0;
}
XLSTM_DRIVER_API int cuEventDestroy_v2(void* event) {
  return delete static_cast<Clock::time_point*>(event), 0;
}
XLSTM_DRIVER_API int cuEventRecord(void* event, void*) {
  return *static_cast<Clock::time_point*>(event) = Clock::now(), 0;
}
XLSTM_DRIVER_API int cuEventElapsedTime(float* milliseconds, void* start, void* stop) {
  const auto& end = *static_cast<Clock::time_point*>(stop);
  const auto taken = end - *static_cast<Clock::time_point*>(start);
  return *milliseconds = std::chrono::duration<float, std::milli>(taken).count(), 0;
}

XLSTM_DRIVER_API int cuMemsetD8Async(void* memory, unsigned char value, size_t bytes, void*) {
  return std::memset(memory, value, bytes), 0;
}
XLSTM_DRIVER_API int cuMemcpyDtoDAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
  auto& queue = *static_cast<CUstream_st*>(stream);
  const auto copy = [=] { return std::memcpy(to, from, bytes), cudaSuccess; };
  if (!queue.captures) return copy();
  return queue.captured.push_back(copy), 0;
}
