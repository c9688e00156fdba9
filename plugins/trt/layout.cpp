#include "layout.h"

#include <dlfcn.h>

#include <cstdint>

namespace xlstm::trt {
namespace {

constexpr Layout kTensorRT10{0, 0, 10};
constexpr Layout kTensorRT11{4, 4, 6};

// getInferLibVersion: 101401 is TensorRT 10.14.1, 10701 is TensorRT-RTX 1.7.1.
const Layout* layout_of_version(int32_t version) {
  const int32_t major = version / 10000, minor = version / 100 % 100;
  if (major == 10) return &kTensorRT10;
  if (major == 11 || (major == 1 && minor >= 7)) return &kTensorRT11;
  return nullptr;
}

}  // namespace

const Layout* layout_of(const void* object) noexcept {
  // An object begins with its class's table of virtual functions, which lies in its library.
  Dl_info owner{};
  if (dladdr(*static_cast<void* const*>(object), &owner) == 0) return nullptr;
  void* library = dlopen(owner.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return nullptr;
  const auto version = reinterpret_cast<int32_t (*)()>(dlsym(library, "getInferLibVersion"));
  const Layout* found = version == nullptr ? nullptr : layout_of_version(version());
  dlclose(library);
  return found;
}

}  // namespace xlstm::trt
