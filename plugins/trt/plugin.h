// One node of a network: the operator's schema and its attributes. Nothing else, so that nothing
// changes after it is made and every method can be called from any thread.
#pragma once

#include <cstdint>
#include <string>

#include <NvInferRuntime.h>

#include "fields.h"

namespace xlstm::trt {

class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
 public:
  // `node` is the name that messages use.
  Plugin(const OpSchema& schema, const Attributes& attributes, std::string node);
  Plugin(const Plugin&) = delete;
  Plugin& operator=(const Plugin&) = delete;

  nvinfer1::IPluginCapability* getCapabilityInterface(
      nvinfer1::PluginCapabilityType type) noexcept override;
  nvinfer1::IPluginV3* clone() noexcept override;

  const char* getPluginName() const noexcept override { return schema_.name; }
  const char* getPluginVersion() const noexcept override;
  const char* getPluginNamespace() const noexcept override { return kDomain; }

  int32_t getNbOutputs() const noexcept override { return schema_.output_count; }
  int32_t getOutputDataTypes(nvinfer1::DataType* outputs, int32_t output_count,
                             const nvinfer1::DataType* inputs,
                             int32_t input_count) const noexcept override;
  int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count,
                          const nvinfer1::DimsExprs* shape_inputs, int32_t shape_input_count,
                          nvinfer1::DimsExprs* outputs, int32_t output_count,
                          nvinfer1::IExprBuilder& builder) noexcept override;
  bool supportsFormatCombination(int32_t position,
                                 const nvinfer1::DynamicPluginTensorDesc* operands,
                                 int32_t input_count, int32_t output_count) noexcept override;
  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc* outputs,
                          int32_t output_count) noexcept override;
  // For the largest shapes of a profile: no call within it needs more.
  size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc* outputs,
                          int32_t output_count) const noexcept override;
  const char* getTimingCacheID() noexcept override { return timing_cache_id_.c_str(); }

  int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
                        const nvinfer1::PluginTensorDesc* outputs,
                        int32_t output_count) noexcept override;
  int32_t enqueue(const nvinfer1::PluginTensorDesc* input_descs,
                  const nvinfer1::PluginTensorDesc* output_descs, const void* const* inputs,
                  void* const* outputs, void* workspace, cudaStream_t stream) noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override {
    return fields_.collection();
  }

 private:
  std::string check_counts(int32_t input_count, int32_t output_count) const;
  std::string read_call(const nvinfer1::PluginTensorDesc* inputs, Call* call) const;
  // Log what is wrong, as "ai.xlstm XlstmMLSTM (node): …". Status 0 where nothing is.
  int32_t report(const std::string& wrong) const;

  const OpSchema& schema_;
  const Attributes attributes_;
  const std::string node_;
  const std::string timing_cache_id_;
  const Fields fields_;
};

}  // namespace xlstm::trt
