#include "emulator.h"

#include <array>
#include <cstdio>
#include <memory>
#include <map>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "device.h"
#include "fiber.h"
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
namespace {

using xlstm::cuda::SharedChunk;

constexpr unsigned kMostThreads = 1024;
constexpr unsigned kWarpSize = 32;
constexpr unsigned char kUnset = 0xff;   // NaN in every floating-point type
constexpr unsigned char kCanary = 0xa5;  // past the launch's shared memory
constexpr size_t kCanaryBytes = 1024;
constexpr size_t kMemoryBytes = 256 * 1024;
constexpr int kSm = 90, kProcessors = 132, kMostShared = 227 * 1024;  // of the device: an H100
constexpr unsigned kPortableCluster = 8, kMostCluster = 16;
constexpr size_t kSlotBytes = 64;

enum class Wait { kNothing, kBarrier, kShuffle, kCluster, kEnded };

struct Thread {
  Fiber fiber;
  std::function<void()> body;
  Wait wait;
  int line;           // of the barrier or shuffle
  unsigned mask;      // of the shuffle
  unsigned shuffles;  // made so far; the low bit chooses the slot
  unsigned barriers;  // the same
  unsigned arrivals;  // at the cluster's barrier; each is waited for once
  bool waited;        // for the last of them
  alignas(16) unsigned char slots[2][kSlotBytes];
  struct Copy {
    void* to;
    const void* from;
    size_t bytes;
  };
  std::vector<std::vector<Copy>> groups;  // of copies under way; the last is still open
};

// The blocks at work: one, or those of a cluster. One launch at a time.
struct Cluster {
  std::vector<std::unique_ptr<Thread>> threads;  // block by block
  std::vector<std::unique_ptr<SharedChunk[]>> memory;  // of each block
  unsigned blocks = 1, count = 0;  // count: threads of a block
  unsigned first = 0;              // block
  unsigned current = 0;            // thread
  unsigned arrived = 0, completed = 0;  // threads at the cluster's barrier, and how often all were
  struct Store {
    unsigned char* to;
    uint32_t value;
  };
  std::vector<Store> stores;  // to blocks, since the last time
  size_t shared_bytes = 0;
  std::string error;
  // For ThreadSanitizer: of each block of the grid, two that its barriers take in turns, and two of
  // its cluster's. Who is past a barrier does not know what others did before the next.
  std::vector<uint64_t> tokens;
  void* token(unsigned block, unsigned which) { return &tokens[(first + block) * 4 + which]; }
  unsigned size() const { return blocks * count; }
};

struct Kernel {
  size_t shared_bytes = xlstm::cuda::kSharedBytes;  // allowed
  unsigned most_cluster = kPortableCluster;
};

Cluster cluster;
uint32_t order_seed = 0;
uint32_t most_blocks = 0;
uint32_t most_cluster = kMostCluster;
std::mt19937 shuffler;
std::string message;
// blocks, threads, shared bytes, blocks of a cluster
std::vector<std::array<int64_t, 4>> launches, counted;
bool truncates = false, idles = false;
std::map<const void*, Kernel> kernels;

Thread& current() { return *cluster.threads[cluster.current]; }
unsigned first_of_block() { return cluster.current / cluster.count * cluster.count; }
unsigned first_of_warp() {
  const unsigned thread = cluster.current % cluster.count;
  return first_of_block() + thread - thread % kWarpSize;
}

void order(std::vector<unsigned>& indices) {
  std::iota(indices.begin(), indices.end(), 0u);
  if (order_seed == 1) std::reverse(indices.begin(), indices.end());
  if (order_seed > 1) std::shuffle(indices.begin(), indices.end(), shuffler);
}

void fail(const char* what, unsigned thread, int line) {
  char text[160];
  std::snprintf(text, sizeof text, "block %u, thread %u, line %d: %s",
                cluster.first + thread / cluster.count, thread % cluster.count, line, what);
  if (cluster.error.empty()) cluster.error = text;
}

// Let all go on once every thread of the current block waits at one barrier.
void release_block() {
  const unsigned first = first_of_block();
  const int line = cluster.threads[first]->line;
  for (unsigned t = first; t < first + cluster.count; ++t) {
    if (cluster.threads[t]->wait != Wait::kBarrier) return;
  }
  for (unsigned t = first; t < first + cluster.count; ++t) {
    Thread& thread = *cluster.threads[t];
    if (thread.line != line) fail("threads of a block wait at different barriers", t, thread.line);
    thread.wait = Wait::kNothing;
  }
}

// Let the lanes of the current thread's mask go on once all of them shuffle. False while they wait.
bool release_warp() {
  const Thread& self = current();
  const unsigned first = first_of_warp(), end = first_of_block() + cluster.count;
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if ((self.mask >> lane & 1) == 0) continue;
    if (first + lane >= end) {
      fail("the mask names a lane that is not there", first + lane, self.line);
      return false;
    }
    const Thread& other = *cluster.threads[first + lane];
    if (other.wait != Wait::kShuffle) return false;
    if (other.line != self.line || other.mask != self.mask) {
      fail("lanes of one mask make different shuffles", first + lane, other.line);
      return false;
    }
  }
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if (self.mask >> lane & 1) cluster.threads[first + lane]->wait = Wait::kNothing;
  }
  return true;
}

void put(const Cluster::Store& store) { std::memcpy(store.to, &store.value, sizeof store.value); }

// Let all go on once every thread of the cluster has arrived; what they stored is there.
void release_cluster() {
  if (++cluster.arrived < cluster.size()) return;
  cluster.arrived = 0;
  ++cluster.completed;
  for (const Cluster::Store& store : cluster.stores) put(store);
  cluster.stores.clear();
  for (unsigned t = 0; t < cluster.size(); ++t) {
    Thread& thread = *cluster.threads[t];
    if (thread.wait == Wait::kCluster) thread.wait = Wait::kNothing;
  }
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

}  // namespace

int lane() { return static_cast<int>(cluster.current % cluster.count % kWarpSize); }

void synchronize_block(int line) {
  const Unseen unseen;
  Thread& self = current();
  void* const token = cluster.token(cluster.current / cluster.count, self.barriers++ % 2);
  release(token);
  self.wait = Wait::kBarrier;
  self.line = line;
  release_block();
  self.fiber.yield();
  acquire(token);
}

void arrive_at_cluster(int line) {
  const Unseen unseen;
  Thread& self = current();
  if (!self.waited) fail("a second arrival at the cluster's barrier", cluster.current, line);
  self.waited = false;
  release(cluster.token(0, 2 + self.arrivals++ % 2));
  release_cluster();
}

void wait_for_cluster(int line) {
  const Unseen unseen;
  Thread& self = current();
  if (self.waited) fail("a wait for the cluster without an arrival", cluster.current, line);
  self.waited = true;
  if (cluster.completed < self.arrivals) {
    self.wait = Wait::kCluster;
    self.line = line;
    self.fiber.yield();
  }
  acquire(cluster.token(0, 2 + (self.arrivals - 1) % 2));
}

// The soonest a store may arrive under one order, the latest under the others.
void store_to_block(void* place, int rank, uint32_t value, int line) {
  const auto* mine = reinterpret_cast<const unsigned char*>(xlstm::cuda::shared_memory);
  const auto offset = static_cast<size_t>(static_cast<unsigned char*>(place) - mine);
  if (offset % sizeof value != 0 || offset + sizeof value > cluster.shared_bytes) {
    return fail("a store to a block outside its shared memory", cluster.current, line);
  }
  const auto block = static_cast<unsigned>(rank);
  if (block >= cluster.blocks) {
    return fail("a store to a block that is not in the cluster", cluster.current, line);
  }
  if (current().arrivals == 0 || !current().waited) {
    return fail("a store to a block that need not have begun", cluster.current, line);
  }
  const auto ended = [](const auto& thread) { return thread->wait == Wait::kEnded; };
  const auto first = cluster.threads.begin() + block * cluster.count;
  if (std::any_of(first, first + cluster.count, ended)) {
    return fail("a store to a block that may have ended", cluster.current, line);
  }
  auto* to = reinterpret_cast<unsigned char*>(cluster.memory[block].get()) + offset;
  report_write(to, sizeof value);
  const Unseen unseen;
  if (order_seed == 1) return put({to, value});
  cluster.stores.push_back({to, value});
}

void fail_here(const char* what, int line) {
  const std::string text = std::string(what) + " with an address that is not aligned to 16";
  fail(text.c_str(), cluster.current, line);
}

namespace {

using Compute = void (*)(void* const (&all)[kWarpSize]);

// Wait for the lanes of `mask`, this one's bytes in its slot; answers which slot. The last to come
// computes.
unsigned meet(unsigned mask, const void* mine, size_t bytes, int line, Compute compute = nullptr) {
  Thread& self = current();
  const unsigned slot = self.shuffles++ % 2;
  std::memcpy(self.slots[slot], mine, bytes);
  self.wait = Wait::kShuffle;
  self.line = line;
  self.mask = mask;
  if (release_warp() && compute != nullptr) {
    void* all[kWarpSize];
    for (unsigned lane = 0; lane < kWarpSize; ++lane) {
      all[lane] = cluster.threads[first_of_warp() + lane]->slots[slot];
    }
    compute(all);
  }
  self.fiber.yield();
  return slot;
}

}  // namespace

uint64_t exchange(unsigned mask, uint64_t bits, int from, int line) {
  const Unseen unseen;
  if ((mask >> lane() & 1) == 0 || (mask >> from & 1) == 0) {
    fail("a shuffle with a lane outside its mask", cluster.current, line);
  }
  const unsigned slot = meet(mask, &bits, sizeof bits, line);
  const unsigned first = first_of_warp();
  std::memcpy(&bits, cluster.threads[first + static_cast<unsigned>(from)]->slots[slot], sizeof bits);
  return bits;
}

void gather(const void* mine, size_t bytes, void* all, int line) {
  const Unseen unseen;
  const unsigned slot = meet(xlstm::cuda::kAllLanes, mine, bytes, line);
  const unsigned first = first_of_warp();
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    std::memcpy(static_cast<char*>(all) + lane * bytes, cluster.threads[first + lane]->slots[slot],
                bytes);
  }
}

void together(void* mine, size_t bytes, void (*compute)(void* const (&all)[32]), int line) {
  const Unseen unseen;
  const unsigned slot = meet(xlstm::cuda::kAllLanes, mine, bytes, line, compute);
  std::memcpy(mine, current().slots[slot], bytes);
}

namespace {

void make(const Thread::Copy& copy) {
  if (copy.from == nullptr) std::memset(copy.to, 0, copy.bytes);
  if (copy.from != nullptr) std::memcpy(copy.to, copy.from, copy.bytes);
}

}  // namespace

// The soonest a copy may arrive under one order, the latest under the others.
void copy_later(void* to, const void* from, size_t bytes) {
  if (order_seed == 1) return make({to, from, bytes});
  const Unseen unseen;
  current().groups.back().push_back({to, from, bytes});
}

void close_group() {
  const Unseen unseen;
  current().groups.emplace_back();
}

void finish_groups(int pending) {
  auto& groups = current().groups;
  while (groups.size() > static_cast<size_t>(pending) + 1) {  // with the open one
    for (const auto& copy : groups.front()) make(copy);
    const Unseen unseen;
    groups.erase(groups.begin());
  }
}

float round_sum(double sum) {
  const auto nearest = static_cast<float>(sum);
  const bool is_past = std::fabs(static_cast<double>(nearest)) > std::fabs(sum);
  return truncates && is_past ? std::nextafter(nearest, 0.f) : nearest;
}

namespace {

std::mutex one_launch;

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
         blocks <= std::min(kernel.most_cluster, most_cluster) && grid.x % blocks == 0;
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
    cluster.memory.push_back(std::make_unique<SharedChunk[]>(kMemoryBytes / sizeof(SharedChunk)));
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
  if (idles) return cudaSuccess;
  const Unseen unseen;
  cluster.tokens.assign(4 * size_t{config.gridDim.x}, 0);
  shuffler.seed(order_seed);
  cluster.blocks = cluster_of(config);
  unsigned clusters = config.gridDim.x / cluster.blocks;
  if (most_blocks > 0) clusters = std::max(1u, std::min(clusters, most_blocks / cluster.blocks));
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

cudaError_t cudaGetDevice(int* index) { return *index = 0, cudaSuccess; }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = emulator::kSm / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = emulator::kSm % 10; break;
    case cudaDevAttrMultiProcessorCount: *value = emulator::kProcessors; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = emulator::kMostShared; break;
    case cudaDevAttrClusterLaunch: *value = emulator::most_cluster > 1; break;
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
  if (value < 0 || value > emulator::kMostShared) return cudaErrorInvalidValue;
  emulator::kernels[kernel].shared_bytes = static_cast<size_t>(value);
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveClusters(int* count, const void* kernel,
                                           const cudaLaunchConfig_t* config) {
  if (!emulator::is_taken(emulator::kernels[kernel], *config)) return cudaErrorInvalidValue;
  *count = emulator::kProcessors / static_cast<int>(emulator::cluster_of(*config));
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

void xlstm_emulator_order(uint32_t seed) { emulator::order_seed = seed; }
void xlstm_emulator_truncates(uint32_t truncates) { emulator::truncates = truncates != 0; }
void xlstm_emulator_most_blocks(uint32_t most) { emulator::most_blocks = most; }
void xlstm_emulator_most_cluster(uint32_t most) { emulator::most_cluster = most; }
const char* xlstm_emulator_message() { return emulator::message.c_str(); }
void xlstm_emulator_idles(uint32_t idles) { emulator::idles = idles != 0; }
void xlstm_emulator_geometry(int64_t index, int64_t geometry[4]) {
  const auto& launch = emulator::counted.at(static_cast<size_t>(index));
  std::copy(launch.begin(), launch.end(), geometry);
}
int64_t xlstm_emulator_launches() {
  emulator::counted = std::move(emulator::launches);
  emulator::launches.clear();
  return static_cast<int64_t>(emulator::counted.size());
}
