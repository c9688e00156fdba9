// What a plugin registry is given of each operator.
#pragma once

#include <NvInferRuntime.h>

#include "fields.h"

namespace xlstm::trt {

class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  explicit Creator(const OpSchema& schema) : schema_(schema), fields_(schema, nullptr) {}

  // Null, and a line in the log, where a field is not one of the operator's. While a network is
  // made, attributes that are missing have their defaults; an engine has all of them.
  nvinfer1::IPluginV3* createPlugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase phase) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override {
    return fields_.collection();
  }
  const char* getPluginName() const noexcept override { return schema_.name; }
  const char* getPluginVersion() const noexcept override { return plugin_version(); }
  const char* getPluginNamespace() const noexcept override { return kDomain; }

 private:
  const OpSchema& schema_;
  const Fields fields_;
};

}  // namespace xlstm::trt
