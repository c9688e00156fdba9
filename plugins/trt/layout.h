// Where a runtime's classes have the few virtual functions that this library calls.
//
// What a runtime calls of a plugin lies in the same places in all of them; these do not. From
// TensorRT 11 and TensorRT-RTX 1.7 on, a logger and its finder derive from IVersionedInterface, and
// the registry has lost what it deprecated. The library is built from one version's headers and
// meets the others when it runs, so it calls these functions by their place.
#pragma once

#include <utility>

namespace xlstm::trt {

// Places in the table of virtual functions; a destructor takes two.
struct Layout {
  int find_logger;   // of ILoggerFinder
  int log;           // of ILogger
  int load_library;  // of IPluginRegistry
};

// That of the runtime whose class `object` is; null where it is none that is known.
const Layout* layout_of(const void* object) noexcept;

template <typename Result, typename... Arguments>
Result call_at(int place, void* object, Arguments... arguments) {
  using Function = Result (*)(void*, Arguments...);
  return (*static_cast<Function**>(object))[place](object, arguments...);
}

}  // namespace xlstm::trt
