// Types and shapes of an operator in a TensorRT network, from its schema.
#pragma once

#include <cstdint>
#include <string>

#include <NvInferRuntime.h>

#include "xlstm/call.h"

namespace xlstm::trt {

// TensorRT computes in float, half and bfloat16. False for any other type.
bool dtype_of(nvinfer1::DataType type, DType* dtype);

// The type an operand has where activations are `dtype`.
nvinfer1::DataType operand_type(const TensorSchema& tensor, DType dtype);

// The first operand with activations, by whose type the others go; inputs count before outputs.
int leading_operand(const OpSchema& schema);

const TensorSchema& operand(const OpSchema& schema, int position);  // inputs, then outputs

// Operand types, found from the inputs'. Empty where they agree, else what is wrong.
std::string check_types(const OpSchema& schema, const nvinfer1::DataType* inputs, DType* dtype);

// Shapes of the outputs as expressions of the inputs'. Empty, or what is wrong.
std::string output_shapes(const OpSchema& schema, const nvinfer1::DimsExprs* inputs,
                          nvinfer1::DimsExprs* outputs, nvinfer1::IExprBuilder& builder);

// Sizes from input shapes. Empty where they agree with each other, else what is wrong. An unknown
// dimension counts as no information; the size it leaves unknown is -1.
std::string read_sizes(const OpSchema& schema, const nvinfer1::Dims* const* inputs,
                       Problem* problem, int64_t* lengths_size);

}  // namespace xlstm::trt
