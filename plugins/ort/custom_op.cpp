#include "custom_op.h"

#include <exception>

#include "gpu.h"
#include "kernel.h"

namespace xlstm::ort {
namespace {

constexpr ONNXTensorElementDataType kElementTypes[] = {
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
};
static_assert(sizeof kElementTypes / sizeof *kElementTypes == kDTypes);
static_assert(static_cast<int>(DType::kFloat32) == 0 && static_cast<int>(DType::kFloat16) == 1 &&
              static_cast<int>(DType::kBfloat16) == 2 && static_cast<int>(DType::kFloat64) == 3);

const CustomOp& self(const OrtCustomOp* op) { return *static_cast<const CustomOp*>(op); }

ONNXTensorElementDataType element_type(DType dtype, TypeVar type) {
  if (type == TypeVar::kLengths) return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
  if (type == TypeVar::kTX) return kElementTypes[static_cast<int>(dtype)];
  return dtype == DType::kFloat64 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE
                                  : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}

// No exception leaves the library: it becomes a status.
template <typename Body>
OrtStatus* guarded(const OrtApi& api, const char* name, Body body) noexcept {
  try {
    return body();
  } catch (const std::exception& error) {
    return api.CreateStatus(ORT_RUNTIME_EXCEPTION, error.what());
  } catch (...) {
    return api.CreateStatus(ORT_RUNTIME_EXCEPTION, name);
  }
}

OrtStatus* create_kernel(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info,
                         void** kernel) noexcept {
  const OpSchema& schema = *self(op).schema;
  return guarded(*api, schema.name, [&] {
    Kernel* made = nullptr;
    OrtStatus* status = Kernel::create(*api, info, schema, self(op).dtype, self(op).processor,
                                       self(op).threads, &made);
    *kernel = made;
    return status;
  });
}

OrtStatus* compute(void* kernel, OrtKernelContext* context) noexcept {
  const auto* node = static_cast<const Kernel*>(kernel);
  return guarded(node->api(), "compute", [&] { return node->compute(context); });
}

OrtStatus* infer(const OrtCustomOp* op, OrtShapeInferContext* context) noexcept {
  const CustomOp& me = self(op);
  return guarded(*me.api, me.schema->name,
                 [&] { return infer_shapes(*me.api, *me.schema, context); });
}

}  // namespace

CustomOp make_custom_op(const OrtApi& api, const OpSchema& schema, DType dtype,
                        Processor processor, int threads) {
  CustomOp op{};
  op.api = &api;
  op.schema = &schema;
  op.dtype = dtype;
  op.processor = processor;
  op.threads = threads;
  op.version = kApiVersion;
  op.GetName = [](const OrtCustomOp* o) { return self(o).schema->name; };
  op.GetStartVersion = [](const OrtCustomOp*) { return kDomainVersion; };
  op.GetEndVersion = [](const OrtCustomOp*) { return kDomainVersion; };
  op.GetExecutionProviderType = [](const OrtCustomOp* o) -> const char* {
    return self(o).processor == Processor::kGpu ? kGpuProvider : nullptr;  // null: the CPU's
  };
  op.GetInputTypeCount = [](const OrtCustomOp* o) {
    return static_cast<size_t>(self(o).schema->input_count);
  };
  op.GetOutputTypeCount = [](const OrtCustomOp* o) {
    return static_cast<size_t>(self(o).schema->output_count);
  };
  op.GetInputType = [](const OrtCustomOp* o, size_t index) {
    return element_type(self(o).dtype, self(o).schema->inputs[index].type);
  };
  op.GetOutputType = [](const OrtCustomOp* o, size_t index) {
    return element_type(self(o).dtype, self(o).schema->outputs[index].type);
  };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  op.InferOutputShapeFn = infer;
  op.CreateKernelV2 = create_kernel;
  op.KernelComputeV2 = compute;
  op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  return op;
}

}  // namespace xlstm::ort
