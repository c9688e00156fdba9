// What ThreadSanitizer is told of the emulator, where it is built with it (XLSTM_RACES): each CUDA
// thread is a thread, and nothing orders two of them but the barriers. Elsewhere all is empty.
//
// The emulator's own files are compiled without the sanitizer; what they do for a thread, such as a
// copy to shared memory, is reported by hand or by the sanitizer's memcpy.
#pragma once

#include <cstddef>

#ifdef XLSTM_RACES
#include <sanitizer/tsan_interface.h>
extern "C" {
void __tsan_ignore_thread_begin();
void __tsan_ignore_thread_end();
void __tsan_write_range(void* address, unsigned long size);
}
#endif

namespace emulator {

#ifdef XLSTM_RACES
inline constexpr bool kRaces = true;
// All that this thread did happens before what others do after they acquire the same.
inline void release(void* token) { __tsan_release(token); }
inline void acquire(void* token) { __tsan_acquire(token); }
inline void report_write(void* address, size_t bytes) { __tsan_write_range(address, bytes); }

// While it lives, what this thread does is the emulator's and no matter of races.
class Unseen {
 public:
  Unseen() { __tsan_ignore_thread_begin(); }
  ~Unseen() { __tsan_ignore_thread_end(); }
  Unseen(const Unseen&) = delete;
  Unseen& operator=(const Unseen&) = delete;
};
#else
inline constexpr bool kRaces = false;
inline void release(void*) {}
inline void acquire(void*) {}
inline void report_write(void*, size_t) {}
struct Unseen {
  Unseen() {}
};
#endif

}  // namespace emulator
