// From operand shapes to the sizes of an operator's letters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "xlstm/call.h"

namespace xlstm {

// Finds the letters' sizes from one operand after another. -1 is unknown, in shapes as in sizes.
class Sizes {
 public:
  explicit Sizes(const OpSchema& schema);

  // Take the shape of an input. Empty where it agrees with those before, else what is wrong.
  // No more than kMaxRank dims are read.
  std::string bind(int input, const int64_t* dims, size_t rank);

  // Whether lengths, once bound, has one element or one per row; as bind.
  std::string check_lengths() const;

  int64_t of(const Dim& dim) const;
  const int64_t* values() const { return sizes_; }
  int64_t lengths_size() const { return lengths_; }
  std::string text() const;  // "B=1, T=7"

 private:
  std::string expected(const TensorSchema& tensor) const;

  const OpSchema& schema_;
  int64_t sizes_[kMaxSizes];
  int64_t lengths_ = -1;
};

}  // namespace xlstm
