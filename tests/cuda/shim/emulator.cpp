#include "emulator.h"

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
SharedChunk shared_memory[256 * 1024 / sizeof(SharedChunk)];
}

namespace emulator {
namespace {

constexpr unsigned kMostThreads = 1024;
constexpr unsigned kWarpSize = 32;
constexpr unsigned char kUnset = 0xff;   // NaN in every floating-point type
constexpr unsigned char kCanary = 0xa5;  // past the launch's shared memory
constexpr size_t kCanaryBytes = 1024;
constexpr int kSm = 90, kProcessors = 132, kMostShared = 227 * 1024;  // of the device: an H100
constexpr size_t kSlotBytes = 64;

enum class Wait { kNothing, kBarrier, kShuffle, kEnded };

struct Thread {
  Fiber fiber;
  std::function<void()> body;
  Wait wait;
  int line;           // of the barrier or shuffle
  unsigned mask;      // of the shuffle
  unsigned shuffles;  // made so far; the low bit chooses the slot
  unsigned char slots[2][kSlotBytes];
  struct Copy {
    void* to;
    const void* from;
    size_t bytes;
  };
  std::vector<std::vector<Copy>> groups;  // of copies under way; the last is still open
};

// The block at work. One launch at a time.
struct Block {
  std::vector<std::unique_ptr<Thread>> threads;
  unsigned count = 0, current = 0;
  std::string error;
};

Block block;
uint32_t order_seed = 0;
uint32_t most_blocks = 0;
std::mt19937 shuffler;
std::string message;
int64_t launches = 0;
bool truncates = false;
std::map<const void*, size_t> allowed;  // shared memory by kernel

Thread& current() { return *block.threads[block.current]; }

void order(std::vector<unsigned>& indices) {
  std::iota(indices.begin(), indices.end(), 0u);
  if (order_seed == 1) std::reverse(indices.begin(), indices.end());
  if (order_seed > 1) std::shuffle(indices.begin(), indices.end(), shuffler);
}

void fail(const char* what, unsigned thread, int line) {
  char text[160];
  std::snprintf(text, sizeof text, "block %u, thread %u, line %d: %s", blockIdx.x, thread, line,
                what);
  if (block.error.empty()) block.error = text;
}

// Let all go on once every thread waits at one barrier.
void release_block() {
  const int line = block.threads[0]->line;
  for (unsigned t = 0; t < block.count; ++t) {
    const Thread& thread = *block.threads[t];
    if (thread.wait != Wait::kBarrier) return;
  }
  for (unsigned t = 0; t < block.count; ++t) {
    Thread& thread = *block.threads[t];
    if (thread.line != line) fail("threads of a block wait at different barriers", t, thread.line);
    thread.wait = Wait::kNothing;
  }
}

// Let the lanes of the current thread's mask go on once all of them shuffle.
void release_warp(unsigned first) {
  const Thread& self = current();
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if ((self.mask >> lane & 1) == 0) continue;
    if (first + lane >= block.count) return fail("the mask names a lane that is not there",
                                                 first + lane, self.line);
    const Thread& other = *block.threads[first + lane];
    if (other.wait != Wait::kShuffle) return;
    if (other.line != self.line || other.mask != self.mask) {
      return fail("lanes of one mask make different shuffles", first + lane, other.line);
    }
  }
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if (self.mask >> lane & 1) block.threads[first + lane]->wait = Wait::kNothing;
  }
}

void run_block(const std::function<void()>& body) {
  block.error.clear();
  for (unsigned t = 0; t < block.count; ++t) {
    Thread& thread = *block.threads[t];
    thread.wait = Wait::kNothing;
    thread.shuffles = 0;
    thread.groups.assign(1, {});
    thread.fiber.start(body);
  }
  std::vector<unsigned> turns(block.count);
  unsigned ended = 0;
  bool moved = true;
  while (ended < block.count && moved && block.error.empty()) {
    moved = false;
    order(turns);
    for (const unsigned t : turns) {
      Thread& thread = *block.threads[t];
      if (thread.wait != Wait::kNothing || !block.error.empty()) continue;
      moved = true;
      block.current = t;
      threadIdx = {t, 0, 0};
      if (!thread.fiber.resume()) {
        thread.wait = Wait::kEnded;
        ++ended;
      }
    }
  }
  for (unsigned t = 0; t < block.count && ended < block.count; ++t) {
    const Thread& thread = *block.threads[t];
    if (thread.wait == Wait::kBarrier) fail("a barrier that not all reach", t, thread.line);
    if (thread.wait == Wait::kShuffle) fail("a shuffle that not all lanes make", t, thread.line);
  }
}

// Shared memory of the launch's size: unset, with canaries behind, which ASan makes untouchable.
void prepare_shared(size_t bytes) {
  auto* memory = reinterpret_cast<unsigned char*>(xlstm::cuda::shared_memory);
  ASAN_UNPOISON_MEMORY_REGION(memory, sizeof xlstm::cuda::shared_memory);
  std::memset(memory, kUnset, bytes);
  std::memset(memory + bytes, kCanary, kCanaryBytes);
  ASAN_POISON_MEMORY_REGION(memory + bytes, sizeof xlstm::cuda::shared_memory - bytes);
}

void check_shared(size_t bytes) {
  auto* memory = reinterpret_cast<unsigned char*>(xlstm::cuda::shared_memory);
  ASAN_UNPOISON_MEMORY_REGION(memory, sizeof xlstm::cuda::shared_memory);
  for (size_t i = bytes; i < bytes + kCanaryBytes; ++i) {
    if (memory[i] != kCanary) return fail("shared memory written past its end", 0, 0);
  }
}

}  // namespace

int lane() { return static_cast<int>(block.current % kWarpSize); }

void synchronize_block(int line) {
  Thread& self = current();
  self.wait = Wait::kBarrier;
  self.line = line;
  release_block();
  self.fiber.yield();
}

void fail_here(const char* what, int line) {
  const std::string text = std::string(what) + " with an address that is not aligned to 16";
  fail(text.c_str(), block.current, line);
}

namespace {

// Wait for the lanes of `mask`, this one's bytes in its slot; answers which slot.
unsigned meet(unsigned mask, const void* mine, size_t bytes, int line) {
  Thread& self = current();
  const unsigned first = block.current - block.current % kWarpSize, slot = self.shuffles++ % 2;
  std::memcpy(self.slots[slot], mine, bytes);
  self.wait = Wait::kShuffle;
  self.line = line;
  self.mask = mask;
  release_warp(first);
  self.fiber.yield();
  return slot;
}

}  // namespace

uint64_t exchange(unsigned mask, uint64_t bits, int from, int line) {
  if ((mask >> lane() & 1) == 0 || (mask >> from & 1) == 0) {
    fail("a shuffle with a lane outside its mask", block.current, line);
  }
  const unsigned slot = meet(mask, &bits, sizeof bits, line);
  const unsigned first = block.current - block.current % kWarpSize;
  std::memcpy(&bits, block.threads[first + static_cast<unsigned>(from)]->slots[slot], sizeof bits);
  return bits;
}

void gather(const void* mine, size_t bytes, void* all, int line) {
  const unsigned slot = meet(xlstm::cuda::kAllLanes, mine, bytes, line);
  const unsigned first = block.current - block.current % kWarpSize;
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    std::memcpy(static_cast<char*>(all) + lane * bytes, block.threads[first + lane]->slots[slot],
                bytes);
  }
}

// The soonest a copy may arrive under one order, the latest under the others.
void copy_later(void* to, const void* from, size_t bytes) {
  if (order_seed != 1) return current().groups.back().push_back({to, from, bytes});
  if (from == nullptr) std::memset(to, 0, bytes);
  if (from != nullptr) std::memcpy(to, from, bytes);
}

void close_group() { current().groups.emplace_back(); }

void finish_groups(int pending) {
  auto& groups = current().groups;
  while (groups.size() > static_cast<size_t>(pending) + 1) {  // with the open one
    for (const auto& copy : groups.front()) {
      if (copy.from == nullptr) std::memset(copy.to, 0, copy.bytes);
      if (copy.from != nullptr) std::memcpy(copy.to, copy.from, copy.bytes);
    }
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

cudaError_t run_grid(const void* kernel, const cudaLaunchConfig_t& config,
                     const std::function<void()>& body) {
  const std::lock_guard<std::mutex> lock(one_launch);
  ++launches;
  const auto found = allowed.find(kernel);
  const size_t most = found == allowed.end() ? xlstm::cuda::kSharedBytes : found->second;
  const dim3 &grid = config.gridDim, &threads = config.blockDim;
  if (grid.x == 0 || grid.x > 0x7fffffffu || grid.y != 1 || grid.z != 1 || threads.x == 0 ||
      threads.x > kMostThreads || threads.y != 1 || threads.z != 1 ||
      config.dynamicSmemBytes > most) {
    message = "a grid, block or shared memory that not every GPU takes";
    return cudaErrorInvalidValue;
  }
  shuffler.seed(order_seed);
  gridDim = most_blocks > 0 ? std::min(most_blocks, grid.x) : grid.x;
  blockDim = threads;
  block.count = threads.x;
  while (block.threads.size() < block.count) block.threads.push_back(std::make_unique<Thread>());
  std::vector<unsigned> blocks(gridDim.x);
  order(blocks);
  message.clear();
  for (const unsigned b : blocks) {
    blockIdx = {b, 0, 0};
    prepare_shared(config.dynamicSmemBytes);
    run_block(body);
    check_shared(config.dynamicSmemBytes);
    if (!block.error.empty()) {
      message = block.error;
      return cudaErrorLaunchFailure;
    }
  }
  return cudaSuccess;
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
  }
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void*) { return cudaSuccess; }

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  if (value < 0 || value > emulator::kMostShared) return cudaErrorInvalidValue;
  emulator::allowed[kernel] = static_cast<size_t>(value);
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
const char* xlstm_emulator_message() { return emulator::message.c_str(); }
int64_t xlstm_emulator_launches() {
  const int64_t count = emulator::launches;
  emulator::launches = 0;
  return count;
}
