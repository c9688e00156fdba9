// Types that describe an operator; the descriptions themselves are generated (op_schema.h).
#pragma once

#include <cstddef>
#include <cstdint>

namespace xlstm {

enum class Op : int32_t;

// Type of an operand: the activation type, the state type that goes with it (float, or double
// where TX is double), or int32 lengths.
enum class TypeVar : int32_t { kTX, kTS, kLengths };

inline constexpr int kMaxRank = 5;

// Size of one dimension: sizes[letter] + added, or the constant `added` where letter is -1.
struct Dim {
  int8_t letter = -1;
  int8_t added = 0;
};

// One operand. `lengths` has rank 1 and no dims: its size is B or 1.
struct TensorSchema {
  const char* name;
  TypeVar type;
  int rank;
  Dim dims[kMaxRank];
};

enum class AttributeKind : int32_t { kInt, kFloat };

// One attribute: a float, or an int32 within [low, high]. `offset` is its place in the operator's
// Attributes struct.
struct AttributeSchema {
  const char* name;
  AttributeKind kind;
  double default_value;
  double low;
  double high;
  size_t offset;
};

// `output` carries `input` on; the two may share their memory.
struct StatePair {
  int input;
  int output;
};

// One operator of the catalogue.
struct OpSchema {
  Op op;
  const char* name;
  int size_count;
  const char* letters;  // one per size, e.g. "BTNKV"
  const TensorSchema* inputs;
  int input_count;
  const TensorSchema* outputs;
  int output_count;
  const AttributeSchema* attributes;
  int attribute_count;
  const StatePair* states;
  int state_count;
  size_t attributes_size;  // bytes of the Attributes struct
};

inline constexpr int kMaxSizes = 5;
inline constexpr int kMaxInputs = 9;
inline constexpr int kMaxOutputs = 5;

}  // namespace xlstm
