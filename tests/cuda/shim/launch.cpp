// Runs the blocks of a launch, or the clusters of them, one after another.
#include "launch.h"

#include <cstring>
#include <mutex>
#include <numeric>
#include <random>

#include "at_work.h"
#include "races.h"
#include "stream.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size)
#define ASAN_UNPOISON_MEMORY_REGION(address, size)
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace xlstm::cuda {
SharedChunk* shared_memory;
}

namespace emulator {

constexpr unsigned kMostThreads = 1024;

std::map<const void*, Kernel> kernels;
std::string message;
std::vector<std::array<int64_t, 4>> launches;

unsigned cluster_of(const cudaLaunchConfig_t& config) {
  unsigned blocks = 1;
  for (unsigned a = 0; a < config.numAttrs; ++a) {
    if (config.attrs[a].id == cudaLaunchAttributeClusterDimension) {
      blocks = config.attrs[a].val.clusterDim.x;
    }
  }
  return blocks;
}

bool is_taken(const Kernel& kernel, const cudaLaunchConfig_t& config) {
  const dim3 &grid = config.gridDim, &threads = config.blockDim;
  const unsigned blocks = cluster_of(config);
  return grid.x > 0 && grid.x <= 0x7fffffffu && grid.y == 1 && grid.z == 1 && threads.x > 0 &&
         threads.x <= kMostThreads && threads.y == 1 && threads.z == 1 &&
         config.dynamicSmemBytes <= kernel.shared_bytes && blocks > 0 &&
         blocks <= std::min(kernel.most_cluster, settings.most_cluster) && grid.x % blocks == 0;
}

namespace {

constexpr unsigned char kUnset = 0xff;   // NaN in every floating-point type
constexpr unsigned char kCanary = 0xa5;  // past the launch's shared memory
constexpr size_t kCanaryBytes = 1024;
constexpr size_t kMemoryBytes = 256 * 1024;

using Chunk = xlstm::cuda::SharedChunk;

std::mutex one_launch;
std::mt19937 shuffler;

void order(std::vector<unsigned>& indices) {
  std::iota(indices.begin(), indices.end(), 0u);
  if (settings.order == 1) std::reverse(indices.begin(), indices.end());
  if (settings.order > 1) std::shuffle(indices.begin(), indices.end(), shuffler);
}

const char* missed(Wait wait) {
  switch (wait) {
    case Wait::kBarrier: return "a barrier that not all reach";
    case Wait::kShuffle: return "a shuffle that not all lanes make";
    case Wait::kCluster: return "a barrier of the cluster that not all reach";
    default: return nullptr;
  }
}

// Let a thread run until it waits. False once it has ended.
bool resume(unsigned t) {
  cluster.current = t;
  threadIdx = {t % cluster.count, 0, 0};
  blockIdx = {cluster.first + t / cluster.count, 0, 0};
  xlstm::cuda::shared_memory = cluster.memory[t / cluster.count].get();
  return current().fiber.resume();
}

void run_cluster(const std::function<void()>& body) {
  cluster.error.clear();
  cluster.stores.clear();
  cluster.arrived = cluster.completed = 0;
  for (unsigned t = 0; t < cluster.size(); ++t) {
    Thread& thread = *cluster.threads[t];
    thread.wait = Wait::kNothing;
    thread.shuffles = thread.arrivals = thread.barriers = 0;
    thread.waited = true;
    thread.groups.assign(1, {});
    thread.fiber.start(body);
  }
  std::vector<unsigned> turns(cluster.size());
  unsigned ended = 0;
  bool moved = true;
  while (ended < cluster.size() && moved && cluster.error.empty()) {
    moved = false;
    order(turns);
    for (const unsigned t : turns) {
      Thread& thread = *cluster.threads[t];
      if (thread.wait != Wait::kNothing || !cluster.error.empty()) continue;
      moved = true;
      if (!resume(t)) {
        thread.wait = Wait::kEnded;
        ++ended;
      }
    }
  }
  for (unsigned t = 0; t < cluster.size() && ended < cluster.size(); ++t) {
    const Thread& thread = *cluster.threads[t];
    if (const char* what = missed(thread.wait)) fail(what, t, thread.line);
  }
}

// Shared memory of the launch's size: unset, with canaries behind, which ASan makes untouchable.
void prepare_shared(unsigned block) {
  auto* memory = reinterpret_cast<unsigned char*>(cluster.memory[block].get());
  const size_t bytes = cluster.shared_bytes;
  ASAN_UNPOISON_MEMORY_REGION(memory, kMemoryBytes);
  std::memset(memory, kUnset, bytes);
  std::memset(memory + bytes, kCanary, kCanaryBytes);
  ASAN_POISON_MEMORY_REGION(memory + bytes, kMemoryBytes - bytes);
}

void check_shared(unsigned block) {
  auto* memory = reinterpret_cast<unsigned char*>(cluster.memory[block].get());
  const size_t bytes = cluster.shared_bytes;
  ASAN_UNPOISON_MEMORY_REGION(memory, kMemoryBytes);
  for (size_t i = bytes; i < bytes + kCanaryBytes; ++i) {
    if (memory[i] != kCanary) {
      return fail("shared memory written past its end", block * cluster.count, 0);
    }
  }
}

void make_room(const cudaLaunchConfig_t& config) {
  cluster.blocks = cluster_of(config);
  cluster.count = config.blockDim.x;
  cluster.shared_bytes = config.dynamicSmemBytes;
  while (cluster.threads.size() < cluster.size()) {
    cluster.threads.push_back(std::make_unique<Thread>());
  }
  if (kRaces) cluster.memory.clear();
  while (cluster.memory.size() < cluster.blocks) {
    cluster.memory.push_back(std::make_unique<Chunk[]>(kMemoryBytes / sizeof(Chunk)));
  }
}

cudaError_t run_grid(const void* kernel, const cudaLaunchConfig_t& config,
                     const std::function<void()>& body) {
  const std::lock_guard<std::mutex> lock(one_launch);
  launches.push_back({config.gridDim.x, config.blockDim.x,
                      static_cast<int64_t>(config.dynamicSmemBytes), cluster_of(config)});
  if (!is_taken(kernels[kernel], config)) {
    message = "a grid, block, cluster or shared memory that not every GPU takes";
    return cudaErrorInvalidValue;
  }
  if (settings.idles) return cudaSuccess;
  const Unseen unseen;
  cluster.tokens.assign(4 * size_t{config.gridDim.x}, 0);
  shuffler.seed(settings.order);
  cluster.blocks = cluster_of(config);
  unsigned clusters = config.gridDim.x / cluster.blocks;
  if (settings.most_blocks > 0) {
    clusters = std::max(1u, std::min(clusters, settings.most_blocks / cluster.blocks));
  }
  gridDim = clusters * cluster.blocks;
  blockDim = config.blockDim;
  std::vector<unsigned> turns(clusters);
  order(turns);
  message.clear();
  for (const unsigned turn : turns) {
    make_room(config);
    cluster.first = turn * cluster.blocks;
    for (unsigned block = 0; block < cluster.blocks; ++block) prepare_shared(block);
    run_cluster(body);
    for (unsigned block = 0; block < cluster.blocks; ++block) check_shared(block);
    message = cluster.error;
    if (!message.empty()) break;
  }
  Fiber::await_all();
  return message.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

}  // namespace

cudaError_t launch(const void* kernel, const cudaLaunchConfig_t& config,
                   const std::function<void()>& body) {
  const auto run = [kernel, config, body] { return run_grid(kernel, config, body); };
  if (config.stream == nullptr || !config.stream->captures) return run();
  config.stream->captured.push_back(run);
  return cudaSuccess;
}

}  // namespace emulator
