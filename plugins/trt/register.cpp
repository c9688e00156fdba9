// libxlstm_trt_register.so: the plugins for programs that only open a plugin library, as
// polygraphy --plugins and trtexec --staticPlugins do. To open it is to have TensorRT load
// libxlstm_trt.so, which lies beside it. That one does not register itself: a registry refuses a
// library whose plugins it has, so programs that load it by name would be told that it is bad.
#include <dlfcn.h>

#include <cstdio>
#include <string>

#include "layout.h"

namespace xlstm::trt {
namespace {

constexpr const char* kRuntimes[] = {
    "libnvinfer.so.10",          "libnvinfer.so.11",      "libtensorrt_rtx.so.1",
    "libnvinfer_dispatch.so.10", "libnvinfer_lean.so.10", "libnvinfer_dispatch.so.11",
    "libnvinfer_lean.so.11"};

std::string plugin_library() {
  Dl_info here{};
  if (dladdr(reinterpret_cast<const void*>(&plugin_library), &here) == 0) return {};
  const std::string path = here.dli_fname;
  return path.substr(0, path.rfind('/') + 1) + "libxlstm_trt.so";
}

// Whether this runtime could be opened. `flags` may forbid to load what is not loaded yet.
bool register_with(const char* name, const std::string& library, int flags) {
  void* runtime = dlopen(name, RTLD_LAZY | flags);
  if (runtime == nullptr) return false;
  const auto registry_of = reinterpret_cast<void* (*)()>(dlsym(runtime, "getPluginRegistry"));
  void* registry = registry_of == nullptr ? nullptr : registry_of();
  const Layout* layout = registry == nullptr ? nullptr : layout_of(registry);
  const char* wrong = nullptr;
  if (layout == nullptr) {
    wrong = "its version is not known to this library";
  } else if (call_at<void*>(layout->load_library, registry, library.c_str()) == nullptr) {
    wrong = "it refused to load the plugins";
  }
  if (wrong != nullptr) {
    std::fprintf(stderr, "ai.xlstm: %s: %s (%s)\n", name, wrong, library.c_str());
  }
  return true;  // and stays open: the registry holds the plugins
}

// Those that the process has; where it has none yet, those that the loader finds.
__attribute__((constructor)) void register_plugins() {
  try {
    const std::string library = plugin_library();
    bool any = false;
    for (const int flags : {RTLD_NOLOAD, 0}) {
      for (const char* name : kRuntimes) any |= register_with(name, library, flags);
      if (any) return;
    }
    std::fprintf(stderr, "ai.xlstm: no TensorRT to register plugins with: set LD_LIBRARY_PATH to "
                         "the folder of libnvinfer or libtensorrt_rtx\n");
  } catch (...) {
    std::fprintf(stderr, "ai.xlstm: out of memory\n");
  }
}

}  // namespace
}  // namespace xlstm::trt
