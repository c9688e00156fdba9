// What leaves the library: its creators, the way to its log, and its version.
//
// Nothing registers itself when the library is merely opened: libxlstm_trt_register.so is for that.
#include <array>
#include <utility>

#include "creator.h"
#include "log.h"

namespace xlstm::trt {
namespace {

template <size_t... kIndex>
std::array<Creator, kOps> make_creators(std::index_sequence<kIndex...>) {
  return {Creator(kSchemas[kIndex])...};
}

}  // namespace
}  // namespace xlstm::trt

#define XLSTM_EXPORT extern "C" __attribute__((visibility("default")))

// The registry calls it once the library is loaded; the creators live as long as the library.
XLSTM_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) noexcept {
  using xlstm::kOps;
  static auto creators = xlstm::trt::make_creators(std::make_index_sequence<kOps>());
  static const auto pointers = [] {
    std::array<nvinfer1::IPluginCreatorInterface*, kOps> made{};
    for (int op = 0; op < kOps; ++op) made[op] = &creators[op];
    return made;
  }();
  count = kOps;
  return pointers.data();
}

XLSTM_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept {
  xlstm::trt::set_logger_finder(finder);
}

XLSTM_EXPORT const char* xlstm_version() noexcept { return XLSTM_VERSION; }
