#include <atomic>
#include <string>
#include <vector>

#include "custom_op.h"
#include "kernel.h"

namespace xlstm::ort {
namespace {

// Names of dimensions that no input names. Equal names mean equal sizes to ONNX Runtime, so no two
// nodes may share one.
std::atomic<uint64_t> next_name{0};

// What inputs say beside their sizes.
struct Given {
  const char* names[kMaxInputs][kMaxRank] = {};
  ONNXTensorElementDataType types[3] = {};  // by TypeVar
};

bool same(const Dim& a, const Dim& b) { return a.letter == b.letter && a.added == b.added; }

// An input's own name for that dimension, empty where there is none.
std::string given_name(const OpSchema& schema, const Given& given, const Dim& dim) {
  for (int i = 0; i < schema.input_count; ++i) {
    const TensorSchema& tensor = schema.inputs[i];
    for (int d = 0; tensor.type != TypeVar::kLengths && d < tensor.rank; ++d) {
      const char* name = given.names[i][d];
      if (same(tensor.dims[d], dim) && name != nullptr && *name != '\0') return name;
    }
  }
  return {};
}

std::string made_name(const OpSchema& schema, const Dim& dim, uint64_t number) {
  return std::string(schema.name) + "." + std::to_string(number) + "." +
         schema.letters[dim.letter] + (dim.added == 0 ? "" : std::to_string(dim.added));
}

OrtStatus* bind_input(const OrtApi& api, const OpSchema& schema, OrtShapeInferContext* context,
                      int input, Sizes* sizes, Given* given) {
  OrtTensorTypeAndShapeInfo* info = nullptr;  // the context's own
  if (OrtStatus* status = api.ShapeInferContext_GetInputTypeShape(context, input, &info)) {
    return status;
  }
  auto& type = given->types[static_cast<int>(schema.inputs[input].type)];
  if (OrtStatus* status = api.GetTensorElementType(info, &type)) return status;
  int64_t dims[kMaxRank];
  size_t rank = 0;
  if (OrtStatus* status = read_shape(api, info, dims, &rank)) return status;
  if (rank == 0) return nullptr;  // also an unknown rank; a scalar is refused when it comes
  if (const std::string wrong = sizes->bind(input, dims, rank); !wrong.empty()) {
    return failure(api, schema, wrong);
  }
  return api.GetSymbolicDimensions(info, given->names[input], rank);
}

OrtStatus* set_output(const OrtApi& api, OrtShapeInferContext* context, int output,
                      ONNXTensorElementDataType type, const std::vector<int64_t>& dims,
                      const std::vector<std::string>& names) {
  std::vector<const char*> texts;
  for (const std::string& name : names) texts.push_back(name.c_str());
  OrtTensorTypeAndShapeInfo* info = nullptr;
  if (OrtStatus* status = api.CreateTensorTypeAndShapeInfo(&info)) return status;
  OrtStatus* status = api.SetTensorElementType(info, type);
  if (status == nullptr) status = api.SetDimensions(info, dims.data(), dims.size());
  if (status == nullptr) status = api.SetSymbolicDimensions(info, texts.data(), texts.size());
  if (status == nullptr) status = api.ShapeInferContext_SetOutputTypeShape(context, output, info);
  api.ReleaseTensorTypeAndShapeInfo(info);
  return status;
}

}  // namespace

OrtStatus* infer_shapes(const OrtApi& api, const OpSchema& schema, OrtShapeInferContext* context) {
  size_t count = 0;
  if (OrtStatus* status = api.ShapeInferContext_GetInputCount(context, &count)) return status;
  if (count != static_cast<size_t>(schema.input_count)) {
    return failure(api, schema, "has " + std::to_string(count) + " inputs, expected " +
                                    std::to_string(schema.input_count));
  }
  Sizes sizes(schema);
  Given given;
  for (int i = 0; i < schema.input_count; ++i) {
    if (OrtStatus* status = bind_input(api, schema, context, i, &sizes, &given)) return status;
  }
  if (const std::string wrong = sizes.check_lengths(); !wrong.empty()) {
    return failure(api, schema, wrong);
  }
  const uint64_t number = next_name++;
  for (int o = 0; o < schema.output_count; ++o) {
    const TensorSchema& tensor = schema.outputs[o];
    std::vector<int64_t> dims;
    std::vector<std::string> texts;
    for (int d = 0; d < tensor.rank; ++d) {
      const Dim& dim = tensor.dims[d];
      dims.push_back(sizes.of(dim));
      texts.emplace_back();
      if (dims.back() >= 0) continue;
      texts.back() = given_name(schema, given, dim);
      if (texts.back().empty()) texts.back() = made_name(schema, dim, number);
    }
    const auto type = given.types[static_cast<int>(tensor.type)];
    if (OrtStatus* status = set_output(api, context, o, type, dims, texts)) return status;
  }
  return nullptr;
}

}  // namespace xlstm::ort
