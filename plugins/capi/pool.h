// Threads for callers that have none of their own.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace xlstm {

// A fixed set of threads that share one call's tasks; the caller takes part. Runs of several
// callers take turns. In a process that was forked from the pool's there are none of its threads:
// there the caller does all tasks.
class Pool {
 public:
  // `threads` >= 1 counts the caller. Where the system gives fewer, there are fewer.
  explicit Pool(int threads);
  // Not where it is forked: there are no threads to join, and the condition variable waits for its
  // waiters before it can be destroyed.
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Call task(context, i) for every i in [0, count); return when all are done.
  void run(void (*task)(void*, int64_t), void* context, int64_t count);

  // Whether this process was forked from the one that made the pool.
  bool is_forked() const;

 private:
  void work();
  void take_tasks();

  const pid_t process_;
  std::mutex turn_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
  std::atomic<uint64_t> generation_{0};
  std::atomic<int> busy_{0};
  std::atomic<int64_t> next_{0};
  std::atomic<bool> stop_{false};
  void (*task_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  int64_t count_ = 0;
};

}  // namespace xlstm
