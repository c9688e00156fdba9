#include "tensor.h"

namespace xlstm::session {
namespace {

constexpr DType kDTypes[] = {
    {XLSTM_FLOAT32, "float32", "F32", 4},   {XLSTM_FLOAT16, "float16", "F16", 2},
    {XLSTM_BFLOAT16, "bfloat16", "BF16", 2}, {XLSTM_INT32, "int32", "I32", 4},
    {XLSTM_INT64, "int64", "I64", 8},
};

}  // namespace

const DType* find_dtype(const std::string& name) {
  for (const DType& dtype : kDTypes) {
    if (name == dtype.name) return &dtype;
  }
  return nullptr;
}

const DType* find_safetensors_dtype(const std::string& name) {
  for (const DType& dtype : kDTypes) {
    if (name == dtype.safetensors) return &dtype;
  }
  return nullptr;
}

const DType* find_dtype(int32_t code) {
  for (const DType& dtype : kDTypes) {
    if (code == dtype.code) return &dtype;
  }
  return nullptr;
}

std::string shape_text(const std::vector<std::string>& dims) {
  std::string text;
  for (const std::string& dim : dims) text += (text.empty() ? "" : ", ") + dim;
  return "[" + text + "]";
}

std::string shape_text(const Shape& shape) {
  std::vector<std::string> dims;
  for (const int64_t size : shape) dims.push_back(std::to_string(size));
  return shape_text(dims);
}

int64_t elements(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

}  // namespace xlstm::session
