// What a thread does that others of its block have to do with: barriers, shuffles, copies.
#include <cstdio>
#include <cstring>

#include "at_work.h"
#include "device.h"
#include "races.h"

namespace emulator {

Cluster cluster;
Settings settings;

void fail(const char* what, unsigned thread, int line) {
  char text[160];
  std::snprintf(text, sizeof text, "block %u, thread %u, line %d: %s",
                cluster.first + thread / cluster.count, thread % cluster.count, line, what);
  if (cluster.error.empty()) cluster.error = text;
}

namespace {

unsigned first_of_block() { return cluster.current / cluster.count * cluster.count; }
unsigned first_of_warp() {
  const unsigned thread = cluster.current % cluster.count;
  return first_of_block() + thread - thread % kWarpSize;
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
  const auto& slots = cluster.threads[first + static_cast<unsigned>(from)]->slots;
  std::memcpy(&bits, slots[slot], sizeof bits);
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
  if (settings.order == 1) return make({to, from, bytes});
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
  return settings.truncates && is_past ? std::nextafter(nearest, 0.f) : nearest;
}

}  // namespace emulator
