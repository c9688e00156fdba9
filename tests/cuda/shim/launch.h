// A launch as it was asked for, for the emulator's own files.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "device.h"

namespace emulator {

constexpr unsigned kPortableCluster = 8, kMostCluster = 16;

// What a kernel was allowed.
struct Kernel {
  size_t shared_bytes = xlstm::cuda::kSharedBytes;
  unsigned most_cluster = kPortableCluster;
};
extern std::map<const void*, Kernel> kernels;

extern std::string message;  // of the last failed launch
// Since they were last asked for: blocks, threads, shared bytes, blocks of a cluster.
extern std::vector<std::array<int64_t, 4>> launches;

unsigned cluster_of(const cudaLaunchConfig_t& config);
bool is_taken(const Kernel& kernel, const cudaLaunchConfig_t& config);

}  // namespace emulator
