// Clusters: the barrier of their blocks, and stores from one to another.
#include <algorithm>
#include <cstring>

#include "at_work.h"
#include "device.h"
#include "races.h"

namespace emulator {
namespace {

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

}  // namespace

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
  if (settings.order == 1) return put({to, value});
  cluster.stores.push_back({to, value});
}

}  // namespace emulator
