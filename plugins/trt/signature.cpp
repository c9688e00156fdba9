#include "signature.h"

#include <algorithm>

#include "xlstm/sizes.h"

namespace xlstm::trt {
namespace {

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::IDimensionExpr;

const char* type_name(DataType type) {
  switch (type) {
    case DataType::kFLOAT: return "float32";
    case DataType::kHALF: return "float16";
    case DataType::kBF16: return "bfloat16";
    case DataType::kINT32: return "int32";
    case DataType::kINT64: return "int64";
    case DataType::kINT8: return "int8";
    case DataType::kBOOL: return "bool";
    default: return "a type this operator does not take";
  }
}

// The input dimension that an output dimension is made of: one that equals it where there is one.
const IDimensionExpr* find_dim(const OpSchema& schema, const nvinfer1::DimsExprs* inputs,
                               const Dim& wanted, int* added) {
  const IDimensionExpr* found = nullptr;
  for (int i = 0; i < schema.input_count; ++i) {
    const TensorSchema& tensor = schema.inputs[i];
    if (tensor.type == TypeVar::kLengths) continue;
    for (int d = 0; d < tensor.rank; ++d) {
      if (tensor.dims[d].letter != wanted.letter) continue;
      if (found != nullptr && tensor.dims[d].added != wanted.added) continue;
      found = inputs[i].d[d];
      *added = wanted.added - tensor.dims[d].added;
      if (*added == 0) return found;
    }
  }
  return found;
}

const IDimensionExpr* output_dim(const OpSchema& schema, const nvinfer1::DimsExprs* inputs,
                                 const Dim& dim, nvinfer1::IExprBuilder& builder) {
  if (dim.letter < 0) return builder.constant(dim.added);
  int added = 0;
  const IDimensionExpr* found = find_dim(schema, inputs, dim, &added);
  if (found == nullptr || added == 0) return found;
  const IDimensionExpr* difference = builder.constant(added);
  if (difference == nullptr) return nullptr;
  return builder.operation(DimensionOperation::kSUM, *found, *difference);
}

}  // namespace

bool dtype_of(DataType type, DType* dtype) {
  switch (type) {
    case DataType::kFLOAT: *dtype = DType::kFloat32; return true;
    case DataType::kHALF: *dtype = DType::kFloat16; return true;
    case DataType::kBF16: *dtype = DType::kBfloat16; return true;
    default: return false;
  }
}

DataType operand_type(const TensorSchema& tensor, DType dtype) {
  if (tensor.type == TypeVar::kLengths) return DataType::kINT32;
  if (tensor.type == TypeVar::kTS || dtype == DType::kFloat32) return DataType::kFLOAT;
  return dtype == DType::kFloat16 ? DataType::kHALF : DataType::kBF16;
}

int leading_operand(const OpSchema& schema) {
  int position = 0;
  while (operand(schema, position).type != TypeVar::kTX) ++position;
  return position;
}

const TensorSchema& operand(const OpSchema& schema, int position) {
  return position < schema.input_count ? schema.inputs[position]
                                       : schema.outputs[position - schema.input_count];
}

std::string check_types(const OpSchema& schema, const DataType* inputs, DType* dtype) {
  const int leading = leading_operand(schema);
  if (!dtype_of(inputs[leading], dtype)) {
    return std::string(schema.inputs[leading].name) + " is " + type_name(inputs[leading]) +
           ", expected float32, float16 or bfloat16: export with --dtype fp32, fp16 or bf16";
  }
  for (int i = 0; i < schema.input_count; ++i) {
    const DataType expected = operand_type(schema.inputs[i], *dtype);
    if (inputs[i] == expected) continue;
    return std::string(schema.inputs[i].name) + " is " + type_name(inputs[i]) + ", expected " +
           type_name(expected) + " where " + schema.inputs[leading].name + " is " +
           type_name(inputs[leading]) + "; the network must be strongly typed";
  }
  return {};
}

std::string output_shapes(const OpSchema& schema, const nvinfer1::DimsExprs* inputs,
                          nvinfer1::DimsExprs* outputs, nvinfer1::IExprBuilder& builder) {
  for (int i = 0; i < schema.input_count; ++i) {
    if (inputs[i].nbDims != schema.inputs[i].rank) {
      return std::string(schema.inputs[i].name) + " has rank " +
             std::to_string(inputs[i].nbDims) + ", expected " +
             std::to_string(schema.inputs[i].rank);
    }
  }
  for (int o = 0; o < schema.output_count; ++o) {
    const TensorSchema& tensor = schema.outputs[o];
    outputs[o].nbDims = tensor.rank;
    for (int d = 0; d < tensor.rank; ++d) {
      outputs[o].d[d] = output_dim(schema, inputs, tensor.dims[d], builder);
      if (outputs[o].d[d] == nullptr) {
        return std::string(tensor.name) + ": the runtime could not make a shape expression";
      }
    }
  }
  return {};
}

std::string read_sizes(const OpSchema& schema, const nvinfer1::Dims* const* inputs,
                       Problem* problem, int64_t* lengths_size) {
  Sizes sizes(schema);
  for (int i = 0; i < schema.input_count; ++i) {
    const nvinfer1::Dims& dims = *inputs[i];
    int64_t values[kMaxRank];
    const int rank = std::clamp(dims.nbDims, 0, kMaxRank);
    std::copy(dims.d, dims.d + rank, values);
    std::string wrong = sizes.bind(i, values, static_cast<size_t>(std::max(dims.nbDims, 0)));
    if (!wrong.empty()) return wrong;
  }
  std::string wrong = sizes.check_lengths();
  std::copy(sizes.values(), sizes.values() + kMaxSizes, problem->sizes);
  *lengths_size = sizes.lengths_size();
  return wrong;
}

}  // namespace xlstm::trt
