// The memory that attributes take, and their ranges: whether a value is within, and what is wrong
// where it is not.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

#include "xlstm/op_schema.h"

namespace xlstm {

// Bytes for the Attributes struct of any operator.
constexpr size_t largest_attributes() {
  size_t bytes = 1;
  for (const OpSchema& schema : kSchemas) {
    if (schema.attributes_size > bytes) bytes = schema.attributes_size;
  }
  return bytes;
}

// A NaN is in no range, an infinity beyond every one.
inline bool in_range(const AttributeSchema& attribute, double value) {
  return value >= attribute.low && value <= attribute.high;
}

// "eps is -1, expected at least 0"; only of a value that is not in range.
inline std::string out_of_range(const AttributeSchema& attribute, double value) {
  const std::string name = attribute.name;
  if (!std::isfinite(value)) return name + " is not a finite number";
  const bool is_float = attribute.kind == AttributeKind::kFloat;
  char digits[32];
  std::snprintf(digits, sizeof digits, is_float ? "%g" : "%.0f", value);
  const std::string low = std::to_string(static_cast<int64_t>(attribute.low));
  const std::string start = name + " is " + digits + ", expected ";
  if (is_float) return start + "at least " + low;
  return start + low + " to " + std::to_string(static_cast<int64_t>(attribute.high));
}

}  // namespace xlstm
