#include "pool.h"

#include <unistd.h>

#include <exception>

namespace xlstm {
namespace {

// A worker looks for the next call this often before it sleeps: a decode loop calls again within
// microseconds, and waking a sleeping thread costs more than a small call.
constexpr unsigned kSpins = 20000;
// How often it lets others run meanwhile, some 50 us: there may be more threads than free
// processors. More often slows the calls of those who have them.
constexpr unsigned kYield = 1024;

void pause(unsigned spin) {
  if (spin % kYield == kYield - 1) {
    std::this_thread::yield();
    return;
  }
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

Pool::Pool(int threads) : process_(getpid()) {
  workers_.reserve(threads - 1);
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
  } catch (const std::exception&) {
    // the threads there are do the work
  }
}

Pool::~Pool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    ++generation_;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

bool Pool::is_forked() const { return getpid() != process_; }

void Pool::run(void (*task)(void*, int64_t), void* context, int64_t count) {
  if (is_forked()) {  // whoever held a lock when it was forked will not release it here
    for (int64_t index = 0; index < count; ++index) task(context, index);
    return;
  }
  const std::lock_guard<std::mutex> turn(turn_);
  task_ = task;
  context_ = context;
  count_ = count;
  next_ = 0;
  busy_ = static_cast<int>(workers_.size());
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++generation_;
  }
  wake_.notify_all();
  take_tasks();
  for (unsigned spin = 0; busy_ != 0; ++spin) pause(spin);
}

void Pool::work() {
  uint64_t seen = 0;
  for (;;) {
    for (unsigned spin = 0; spin < kSpins && generation_ == seen; ++spin) pause(spin);
    if (generation_ == seen) {
      const std::lock_guard<std::mutex> lock(mutex_);
      // std::condition_variable::wait would ask for the libstdc++ of GCC 12
      while (generation_ == seen) pthread_cond_wait(wake_.native_handle(), mutex_.native_handle());
    }
    seen = generation_;
    if (stop_) return;
    take_tasks();
    --busy_;
  }
}

void Pool::take_tasks() {
  for (;;) {
    const int64_t index = next_++;
    if (index >= count_) return;
    task_(context_, index);
  }
}

}  // namespace xlstm
