// What the emulator runs, for its own files: the threads of the blocks at work, and how they are to
// be run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <shared.h>

#include "fiber.h"

namespace emulator {

constexpr unsigned kWarpSize = 32;
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
  std::vector<std::unique_ptr<xlstm::cuda::SharedChunk[]>> memory;  // of each block
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

extern Cluster cluster;

// What tests ask for; emulator.h says what each is.
struct Settings {
  uint32_t order = 0, most_blocks = 0, most_cluster = 16;
  bool truncates = false, idles = false;
};
extern Settings settings;

inline Thread& current() { return *cluster.threads[cluster.current]; }

// End the launch with the first fault's place and name.
void fail(const char* what, unsigned thread, int line);

}  // namespace emulator
