#include "fiber.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <new>
#include <vector>

#include "races.h"

// ucontext asks the kernel for the signal mask at every change: x86-64 has a few instructions
// instead, since a test changes over many million times.
#if defined(__x86_64__)
// Save the callee's registers on this stack, put its top into *from, and go on at `to`.
extern "C" void xlstm_switch_stack(void** from, void* to);
asm(R"(
.text
.globl xlstm_switch_stack
.hidden xlstm_switch_stack
.type xlstm_switch_stack, @function
xlstm_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size xlstm_switch_stack, .-xlstm_switch_stack
)");
#endif

namespace emulator {
namespace {

constexpr size_t kStackBytes = 256 * 1024;

Fiber* starting = nullptr;  // whose body the new stack runs

// ThreadSanitizer's threads: the one that resumes, and those whose bodies have ended.
#ifdef XLSTM_RACES
void* resuming = nullptr;
std::vector<void*> ended_threads;
#endif
std::vector<uint64_t> ends(1);  // what they release

char* new_stack() {
  void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack == MAP_FAILED) throw std::bad_alloc();
  return static_cast<char*>(stack);
}

}  // namespace

struct Fiber::Context {
  char* stack = new_stack();
  const std::function<void()>* body = nullptr;
  bool ended = true;
#ifdef XLSTM_RACES
  void* thread = nullptr;
#endif
#if defined(__x86_64__)
  void *own_top = nullptr, *caller_top = nullptr;
#else
  ucontext_t own, caller;
#endif

  static void enter() {
    Context& context = *starting->context_;
    (*context.body)();
    release(ends.data());
    context.ended = true;
    starting = nullptr;
    context.leave();
  }

  void prepare() {
#if defined(__x86_64__)
    auto** top = reinterpret_cast<void**>(stack + kStackBytes);
    *--top = nullptr;  // where a call would leave its return address
    *--top = reinterpret_cast<void*>(&enter);
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    own_top = top;
#else
    getcontext(&own);
    own.uc_stack.ss_sp = stack;
    own.uc_stack.ss_size = kStackBytes;
    own.uc_link = nullptr;
    makecontext(&own, &enter, 0);
#endif
  }

  // A new thread to ThreadSanitizer, on a stack that nobody has used.
  void renew() {
#ifdef XLSTM_RACES
    munmap(stack, kStackBytes);
    stack = new_stack();
    if (thread != nullptr) ended_threads.push_back(thread);
    thread = __tsan_create_fiber(0);
#endif
  }

  void go() {
#ifdef XLSTM_RACES
    resuming = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(thread, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__x86_64__)
    xlstm_switch_stack(&caller_top, own_top);
#else
    swapcontext(&caller, &own);
#endif
  }

  void leave() {
#ifdef XLSTM_RACES
    __tsan_switch_to_fiber(resuming, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__x86_64__)
    xlstm_switch_stack(&own_top, caller_top);
#else
    swapcontext(&own, &caller);
#endif
  }
};

Fiber::Fiber() : context_(new Context) {}

Fiber::~Fiber() { munmap(context_->stack, kStackBytes); }

void Fiber::start(const std::function<void()>& body) {
  context_->body = &body;
  context_->ended = false;
  context_->renew();
  context_->prepare();
}

bool Fiber::resume() {
  starting = this;
  context_->go();
  return !context_->ended;
}

void Fiber::yield() { context_->leave(); }

void Fiber::await_all() {
  acquire(ends.data());
#ifdef XLSTM_RACES
  for (void* thread : ended_threads) __tsan_destroy_fiber(thread);
  ended_threads.clear();
#endif
}

}  // namespace emulator
