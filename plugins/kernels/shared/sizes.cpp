#include "xlstm/sizes.h"

#include <algorithm>

namespace xlstm {
namespace {

std::string shape_text(const int64_t* dims, size_t rank) {
  std::string text = "[";
  for (size_t i = 0; i < std::min<size_t>(rank, kMaxRank); ++i) {
    if (i > 0) text += ", ";
    text += dims[i] < 0 ? "?" : std::to_string(dims[i]);
  }
  return text + (rank > kMaxRank ? ", ...]" : "]");
}

}  // namespace

Sizes::Sizes(const OpSchema& schema) : schema_(schema) {
  for (int64_t& size : sizes_) size = -1;
}

int64_t Sizes::of(const Dim& dim) const {
  if (dim.letter < 0) return dim.added;
  return sizes_[dim.letter] < 0 ? -1 : sizes_[dim.letter] + dim.added;
}

std::string Sizes::bind(int input, const int64_t* dims, size_t rank) {
  const TensorSchema& tensor = schema_.inputs[input];
  bool agrees = rank == static_cast<size_t>(tensor.rank);
  for (int i = 0; agrees && i < tensor.rank; ++i) {
    if (dims[i] < 0) continue;
    const Dim& dim = tensor.dims[i];
    if (tensor.type == TypeVar::kLengths) {
      lengths_ = dims[i];
    } else if (dim.letter >= 0 && sizes_[dim.letter] < 0) {
      sizes_[dim.letter] = dims[i] - dim.added;
    } else {
      agrees = of(dim) == dims[i];
    }
  }
  if (agrees) return {};
  return std::string(tensor.name) + " has shape " + shape_text(dims, rank) + ", expected " +
         expected(tensor);
}

std::string Sizes::check_lengths() const {
  const int64_t batch = sizes_[0];  // B is the first letter of every operator
  if (lengths_ < 0 || lengths_ == 1 || batch < 0 || lengths_ == batch) return {};
  return "lengths has shape " + shape_text(&lengths_, 1) + ", expected [B=" +
         std::to_string(batch) + "] or [1]";
}

std::string Sizes::expected(const TensorSchema& tensor) const {
  if (tensor.type == TypeVar::kLengths) return "[B] or [1]";
  std::string text = "[";
  for (int i = 0; i < tensor.rank; ++i) {
    const Dim& dim = tensor.dims[i];
    if (i > 0) text += ", ";
    if (dim.letter >= 0) text += schema_.letters[dim.letter];
    if (dim.letter >= 0 && dim.added != 0) text += std::to_string(dim.added);
    if (of(dim) >= 0) text += (dim.letter >= 0 ? "=" : "") + std::to_string(of(dim));
  }
  return text + "]";
}

std::string Sizes::text() const {
  std::string text;
  for (int s = 0; s < schema_.size_count; ++s) {
    if (s > 0) text += ", ";
    text += schema_.letters[s];
    text += "=" + std::to_string(sizes_[s]);
  }
  return text;
}

}  // namespace xlstm
