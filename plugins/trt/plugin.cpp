#include "plugin.h"

#include <algorithm>
#include <new>
#include <utility>

#include "log.h"
#include "signature.h"
#include "xlstm/cuda.h"
#include "xlstm/launch_message.h"

namespace xlstm::trt {
namespace {

using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;

constexpr int32_t kOk = 0;
constexpr int32_t kFailed = 1;

// Equal attributes of one version of the library have equal timings, and only those.
std::string timing_cache_id(const OpSchema& schema, const Attributes& attributes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string id = std::string(kDomain) + "/" + schema.name + "/" XLSTM_VERSION "/";
  for (size_t i = 0; i < schema.attributes_size; ++i) {
    const auto byte = static_cast<unsigned char>(attributes.bytes[i]);
    id += kDigits[byte >> 4];
    id += kDigits[byte & 15];
  }
  return id;
}

// The largest sizes of a profile; those of the call where TensorRT names none, as it may during
// execution.
const nvinfer1::Dims& most_dims(const DynamicPluginTensorDesc& operand) {
  const nvinfer1::Dims& most = operand.max;
  const bool is_set = most.nbDims > 0 && *std::min_element(most.d, most.d + most.nbDims) > 0;
  return is_set ? most : operand.desc.dims;
}

// TensorRT is compiled without exceptions: none may reach it. Only memory can run out.
template <typename Body>
int32_t guarded(Body body) noexcept {
  try {
    return body();
  } catch (...) {
    return kFailed;
  }
}

}  // namespace

Plugin::Plugin(const OpSchema& schema, const Attributes& attributes, std::string node)
    : schema_(schema),
      attributes_(attributes),
      node_(std::move(node)),
      timing_cache_id_(timing_cache_id(schema, attributes)),
      fields_(schema, &attributes_) {}

nvinfer1::IPluginCapability* Plugin::getCapabilityInterface(
    nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE:
      return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD:
      return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME:
      return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

nvinfer1::IPluginV3* Plugin::clone() noexcept {
  try {
    return new Plugin(schema_, attributes_, node_);
  } catch (...) {
    return nullptr;
  }
}

nvinfer1::IPluginV3* Plugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept {
  cuda::prepare();  // where it fails, so will enqueue, which says why
  return clone();
}

const char* Plugin::getPluginVersion() const noexcept { return plugin_version(); }

int32_t Plugin::getOutputDataTypes(nvinfer1::DataType* outputs, int32_t output_count,
                                   const nvinfer1::DataType* inputs,
                                   int32_t input_count) const noexcept {
  return guarded([&] {
    std::string wrong = check_counts(input_count, output_count);
    DType dtype = DType::kFloat32;
    if (wrong.empty()) wrong = check_types(schema_, inputs, &dtype);
    if (!wrong.empty()) return report(wrong);
    for (int o = 0; o < output_count; ++o) outputs[o] = operand_type(schema_.outputs[o], dtype);
    return kOk;
  });
}

int32_t Plugin::getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count,
                                const nvinfer1::DimsExprs*, int32_t, nvinfer1::DimsExprs* outputs,
                                int32_t output_count, nvinfer1::IExprBuilder& builder) noexcept {
  return guarded([&] {
    std::string wrong = check_counts(input_count, output_count);
    if (wrong.empty()) wrong = output_shapes(schema_, inputs, outputs, builder);
    return report(wrong);
  });
}

// Asked for position 0, 1, … in turn; those before it are settled.
bool Plugin::supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* operands,
                                       int32_t input_count, int32_t output_count) noexcept {
  const bool counts_fit =
      input_count == schema_.input_count && output_count == schema_.output_count;
  if (!counts_fit || position < 0 || position >= input_count + output_count) return false;
  const PluginTensorDesc& asked = operands[position].desc;
  if (asked.format != nvinfer1::TensorFormat::kLINEAR) return false;
  const TensorSchema& tensor = operand(schema_, position);
  DType dtype = DType::kFloat32;
  if (tensor.type == TypeVar::kTX) {
    const PluginTensorDesc& leading = operands[leading_operand(schema_)].desc;
    if (!dtype_of(leading.type, &dtype)) return false;
  }
  return asked.type == operand_type(tensor, dtype);
}

int32_t Plugin::configurePlugin(const DynamicPluginTensorDesc* inputs, int32_t input_count,
                                const DynamicPluginTensorDesc*, int32_t output_count) noexcept {
  return guarded([&] {
    std::string wrong = check_counts(input_count, output_count);
    if (!wrong.empty()) return report(wrong);
    nvinfer1::DataType types[kMaxInputs];
    const nvinfer1::Dims* dims[kMaxInputs];
    for (int i = 0; i < input_count; ++i) {
      types[i] = inputs[i].desc.type;
      dims[i] = &inputs[i].max;
    }
    Problem problem{schema_.op, DType::kFloat32, {}};
    int64_t lengths_size = 0;
    wrong = check_types(schema_, types, &problem.dtype);
    if (wrong.empty()) wrong = read_sizes(schema_, dims, &problem, &lengths_size);
    return report(wrong);
  });
}

size_t Plugin::getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t input_count,
                                const DynamicPluginTensorDesc*,
                                int32_t output_count) const noexcept {
  size_t bytes = 0;
  guarded([&] {
    std::string wrong = check_counts(input_count, output_count);
    if (!wrong.empty()) return report(wrong);
    const nvinfer1::Dims* dims[kMaxInputs];
    for (int i = 0; i < input_count; ++i) dims[i] = &most_dims(inputs[i]);
    Problem problem{schema_.op, DType::kFloat32, {}};
    int64_t lengths_size = 0;
    wrong = read_sizes(schema_, dims, &problem, &lengths_size);
    if (wrong.empty() && !dtype_of(inputs[leading_operand(schema_)].desc.type, &problem.dtype)) {
      wrong = "its activations have a type it does not take";
    }
    if (wrong.empty() && check_problem(problem) != Status::kOk) {
      wrong = status_message(check_problem(problem));
    }
    if (wrong.empty()) bytes = cuda::workspace_size(problem);
    return report(wrong);
  });
  return bytes;
}

int32_t Plugin::onShapeChange(const PluginTensorDesc* inputs, int32_t input_count,
                              const PluginTensorDesc*, int32_t output_count) noexcept {
  return guarded([&] {
    std::string wrong = check_counts(input_count, output_count);
    Call call{};
    if (wrong.empty()) wrong = read_call(inputs, &call);
    return report(wrong);
  });
}

int32_t Plugin::enqueue(const PluginTensorDesc* input_descs, const PluginTensorDesc*,
                        const void* const* inputs, void* const* outputs, void* workspace,
                        cudaStream_t stream) noexcept {
  return guarded([&] {
    Call call{};
    const std::string wrong = read_call(input_descs, &call);
    if (!wrong.empty()) return report(wrong);
    std::copy(inputs, inputs + schema_.input_count, call.inputs);
    std::copy(outputs, outputs + schema_.output_count, call.outputs);
    call.attributes = attributes_.bytes;
    call.workspace = workspace;
    call.workspace_size = cuda::workspace_size(call.problem);
    const Status status = cuda::launch(call, stream);
    return status == Status::kOk ? kOk : report(cuda::launch_message(status));
  });
}

std::string Plugin::check_counts(int32_t input_count, int32_t output_count) const {
  if (input_count == schema_.input_count && output_count == schema_.output_count) return {};
  return "the node has " + std::to_string(input_count) + " inputs and " +
         std::to_string(output_count) + " outputs, expected " +
         std::to_string(schema_.input_count) + " and " + std::to_string(schema_.output_count);
}

// Sizes and type of a call; pointers are left to the caller.
std::string Plugin::read_call(const PluginTensorDesc* inputs, Call* call) const {
  nvinfer1::DataType types[kMaxInputs];
  const nvinfer1::Dims* dims[kMaxInputs];
  for (int i = 0; i < schema_.input_count; ++i) {
    types[i] = inputs[i].type;
    dims[i] = &inputs[i].dims;
  }
  call->problem.op = schema_.op;
  std::string wrong = check_types(schema_, types, &call->problem.dtype);
  if (wrong.empty()) wrong = read_sizes(schema_, dims, &call->problem, &call->lengths_size);
  if (!wrong.empty()) return wrong;
  const Status status = check_problem(call->problem);
  return status == Status::kOk ? std::string() : status_message(status);
}

int32_t Plugin::report(const std::string& wrong) const {
  if (wrong.empty()) return kOk;
  const std::string node = node_.empty() ? "" : " (" + node_ + ")";
  log_error(std::string(kDomain) + " " + schema_.name + node + ": " + wrong);
  return kFailed;
}

}  // namespace xlstm::trt
