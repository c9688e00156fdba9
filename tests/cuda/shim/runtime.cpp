// The CUDA runtime's functions that the kernels call, and the control of emulator.h.
#include "at_work.h"
#include "emulator.h"
#include "launch.h"

namespace {

constexpr int kSm = 90, kProcessors = 132, kMostShared = 227 * 1024;  // of the device: an H100

std::vector<std::array<int64_t, 4>> counted;  // launches that were asked for last

}  // namespace

cudaError_t cudaGetDevice(int* index) { return *index = 0, cudaSuccess; }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = kSm / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = kSm % 10; break;
    case cudaDevAttrMultiProcessorCount: *value = kProcessors; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = kMostShared; break;
    case cudaDevAttrClusterLaunch: *value = emulator::settings.most_cluster > 1; break;
  }
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void*) { return cudaSuccess; }

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributeNonPortableClusterSizeAllowed) {
    emulator::kernels[kernel].most_cluster =
        value != 0 ? emulator::kMostCluster : emulator::kPortableCluster;
    return cudaSuccess;
  }
  if (value < 0 || value > kMostShared) return cudaErrorInvalidValue;
  emulator::kernels[kernel].shared_bytes = static_cast<size_t>(value);
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveClusters(int* count, const void* kernel,
                                           const cudaLaunchConfig_t* config) {
  if (!emulator::is_taken(emulator::kernels[kernel], *config)) return cudaErrorInvalidValue;
  *count = kProcessors / static_cast<int>(emulator::cluster_of(*config));
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

void xlstm_emulator_order(uint32_t seed) { emulator::settings.order = seed; }
void xlstm_emulator_truncates(uint32_t truncates) { emulator::settings.truncates = truncates != 0; }
void xlstm_emulator_most_blocks(uint32_t most) { emulator::settings.most_blocks = most; }
void xlstm_emulator_most_cluster(uint32_t most) { emulator::settings.most_cluster = most; }
const char* xlstm_emulator_message() { return emulator::message.c_str(); }
void xlstm_emulator_idles(uint32_t idles) { emulator::settings.idles = idles != 0; }
void xlstm_emulator_geometry(int64_t index, int64_t geometry[4]) {
  const auto& launch = counted.at(static_cast<size_t>(index));
  std::copy(launch.begin(), launch.end(), geometry);
}
int64_t xlstm_emulator_launches() {
  counted = std::move(emulator::launches);
  emulator::launches.clear();
  return static_cast<int64_t>(counted.size());
}
