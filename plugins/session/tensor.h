// Tensors on the host: what a session is fed and what it gives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "xlstm_session.h"

namespace xlstm::session {

using Shape = std::vector<int64_t>;

// An element type of a bundle: its name in manifests, its name in safetensors, its bytes.
struct DType {
  xlstm_dtype code;
  const char* name;
  const char* safetensors;
  size_t bytes;
};

// Null where `name` is that of no element type of a bundle.
const DType* find_dtype(const std::string& name);
const DType* find_safetensors_dtype(const std::string& name);
// Null for a number that is none.
const DType* find_dtype(int32_t code);

// "[batch, 4]", "[2, 4]"
std::string shape_text(const std::vector<std::string>& dims);
std::string shape_text(const Shape& shape);

int64_t elements(const Shape& shape);

// A tensor in memory of the caller, dense.
struct Feed {
  std::string name;
  const DType* dtype;
  Shape shape;
  const void* data;
};

// A tensor that a call gave; `owner` keeps its memory.
struct Output {
  std::string name;
  const DType* dtype;
  Shape shape;
  const void* data;
  std::shared_ptr<void> owner;
};

}  // namespace xlstm::session
