// An operator's attributes and their plugin fields: FLOAT is one kFLOAT32, INT one kINT32.
#pragma once

#include <cstddef>
#include <string>

#include <NvInferRuntime.h>

#include "xlstm/attributes.h"
#include "xlstm/call.h"

namespace xlstm::trt {

inline constexpr int kMostAttributes = 8;

constexpr bool attributes_fit() {
  for (const OpSchema& schema : kSchemas) {
    if (schema.attribute_count > kMostAttributes) return false;
  }
  return true;
}
static_assert(attributes_fit());

// The plugin version is the version of the operators' domain.
const char* plugin_version();

// The operator's Attributes struct, whichever operator it is.
struct Attributes {
  alignas(8) char bytes[largest_attributes()] = {};
};

Attributes default_attributes(const OpSchema& schema);

// Fields that say what a creator takes, or hold values: `values` is null for the former, and else
// must outlive what is made of it.
class Fields {
 public:
  Fields(const OpSchema& schema, const Attributes* values);
  Fields(const Fields&) = delete;
  Fields& operator=(const Fields&) = delete;

  const nvinfer1::PluginFieldCollection* collection() const { return &collection_; }

 private:
  nvinfer1::PluginField fields_[kMostAttributes];
  nvinfer1::PluginFieldCollection collection_;
};

// Take the attributes from `given`. Empty where that succeeds, else what is wrong. Those that are
// missing keep their value, which is an error where `all` are needed.
std::string read_fields(const OpSchema& schema, const nvinfer1::PluginFieldCollection* given,
                        bool all, Attributes* attributes);

}  // namespace xlstm::trt
