#include "creator.h"

#include <string>

#include "log.h"
#include "plugin.h"

namespace xlstm::trt {

nvinfer1::IPluginV3* Creator::createPlugin(const char* name,
                                           const nvinfer1::PluginFieldCollection* fields,
                                           nvinfer1::TensorRTPhase phase) noexcept {
  try {
    const std::string node = name == nullptr ? "" : name;
    const bool from_engine = phase == nvinfer1::TensorRTPhase::kRUNTIME;
    Attributes attributes = default_attributes(schema_);
    const std::string wrong = read_fields(schema_, fields, from_engine, &attributes);
    if (wrong.empty()) return new Plugin(schema_, attributes, node);
    log_error(std::string(kDomain) + " " + schema_.name + " (" + node + "): " + wrong);
  } catch (...) {
    log_error("ai.xlstm: out of memory");
  }
  return nullptr;
}

}  // namespace xlstm::trt
