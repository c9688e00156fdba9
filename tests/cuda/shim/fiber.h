// Threads of execution that change over only where they say so.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace emulator {

// Runs `body` in pieces on a stack of its own. Abandoning an unfinished fiber is allowed: its
// stack is dropped as it is.
class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Begin anew with this body, which must outlive the run.
  void start(const std::function<void()>& body);
  // Run until the body yields or ends. False once it has ended.
  bool resume();
  // From inside the body: go back to resume().
  void yield();
  // From outside, when all have ended: what they did happens before what follows.
  static void await_all();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace emulator
