// One call of an operator, the same for every processor: sizes, operands, attributes, workspace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "xlstm/op_schema.h"
#include "xlstm/status.h"

namespace xlstm {

inline constexpr size_t kWorkspaceAlignment = 64;

// What workspace sizes and packing depend on. `sizes` has one entry per letter of the schema.
struct Problem {
  Op op;
  DType dtype;
  int64_t sizes[kMaxSizes];
};

// Operands are dense, in the order of the catalogue, and are not kept after the call.
// A state's output may be its input (equal pointers) or a separate buffer.
struct Call {
  Problem problem;
  const void* inputs[kMaxInputs];
  void* outputs[kMaxOutputs];
  int64_t lengths_size;         // elements of lengths: 1 or B
  const void* attributes;       // the operator's Attributes struct
  const void* packed;           // what the processor's pack() made of constant operands, or null
  void* workspace;              // aligned to kWorkspaceAlignment
  size_t workspace_size;        // bytes
};

const OpSchema* find_schema(Op op);  // null where there is none

size_t element_size(DType dtype, TypeVar type);  // bytes

// Element count of an operand; `lengths` counts as 1. The sizes must have passed check_problem.
int64_t element_count(const TensorSchema& tensor, const int64_t* sizes);

// Sizes in range and every operand's bytes at most 2^46.
Status check_problem(const Problem& problem);

// What a kernel relies on: check_problem, and then pointers, alignment, aliasing of operands,
// lengths and attributes. An empty batch has no operands to check. That workspace and packed lie
// apart from the operands is the caller's part.
Status check_call(const Call& call);

}  // namespace xlstm
