// What newer headers ask of newer libraries, defined here for this library alone: on an older
// system (glibc before 2.32, libstdc++ before GCC 11) there is none.
#include <new>

// Whether the process has one thread; that it has is never taken for granted.
extern "C" {
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;
}

namespace std {

[[noreturn]] __attribute__((visibility("hidden"))) void __throw_bad_array_new_length() {
  throw bad_array_new_length();
}

}  // namespace std
