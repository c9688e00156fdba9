// From the call of the C interfaces to the kernels' own.
#pragma once

#include <cmath>
#include <cstring>

#include "xlstm/attributes.h"
#include "xlstm/call.h"
#include "xlstm_c.h"

namespace xlstm {

static_assert(XLSTM_C_MAX_SIZES == kMaxSizes);
static_assert(XLSTM_C_MAX_INPUTS == kMaxInputs);
static_assert(XLSTM_C_MAX_OUTPUTS == kMaxOutputs);

inline Problem problem_of(const xlstm_call& call) {
  Problem problem{};
  problem.op = static_cast<Op>(call.op);
  problem.dtype = static_cast<DType>(call.dtype);
  std::memcpy(problem.sizes, call.sizes, sizeof problem.sizes);
  return problem;
}

// A call and the memory of its attributes, to which it points: not to be copied.
class UnpackedCall {
 public:
  UnpackedCall() = default;
  UnpackedCall(const UnpackedCall&) = delete;
  UnpackedCall& operator=(const UnpackedCall&) = delete;

  Call call{};

  Status unpack(const xlstm_call& given) {
    call.problem = problem_of(given);
    const OpSchema* schema = find_schema(call.problem.op);
    if (schema == nullptr) return Status::kBadOp;
    const Status status = fill_attributes(given, *schema);
    if (status != Status::kOk) return status;
    std::memcpy(call.inputs, given.inputs, sizeof call.inputs);
    std::memcpy(call.outputs, given.outputs, sizeof call.outputs);
    call.lengths_size = given.lengths_size;
    call.attributes = attributes_;
    call.packed = given.packed;
    call.workspace = given.workspace;
    call.workspace_size = given.workspace_size;
    return Status::kOk;
  }

 private:
  // The operator's Attributes struct from the doubles of the call.
  Status fill_attributes(const xlstm_call& given, const OpSchema& schema) {
    for (int a = 0; a < schema.attribute_count; ++a) {
      const AttributeSchema& attribute = schema.attributes[a];
      const double value = given.attributes[a];
      if (!in_range(attribute, value)) return Status::kBadAttribute;
      if (attribute.kind == AttributeKind::kFloat) {
        const auto number = static_cast<float>(value);
        std::memcpy(attributes_ + attribute.offset, &number, sizeof number);
      } else {
        if (value != std::floor(value)) return Status::kBadAttribute;
        const auto number = static_cast<int32_t>(value);
        std::memcpy(attributes_ + attribute.offset, &number, sizeof number);
      }
    }
    return Status::kOk;
  }

  alignas(8) char attributes_[largest_attributes()];
};

}  // namespace xlstm
