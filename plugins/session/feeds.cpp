#include "feeds.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "error.h"

namespace xlstm::session {
namespace {

struct Known {
  int64_t size;
  std::string tensor;
};
using Sizes = std::map<std::string, Known>;

const Feed* find(const std::vector<Feed>& feeds, const std::string& name) {
  for (const Feed& feed : feeds) {
    if (feed.name == name) return &feed;
  }
  return nullptr;
}

void check_names(const Ends& ends, const std::vector<Feed>& given) {
  std::string names;
  for (const TensorInfo& tensor : ends.inputs) {
    names += (names.empty() ? "" : ", ") + tensor.name;
    if (tensor.name != kLengths && find(given, tensor.name) == nullptr) {
      fail(XLSTM_INPUT_ERROR, tensor.name + ": is missing; give " + tensor.dtype->name + " " +
                                  shape_text(tensor.shape));
    }
  }
  for (const Feed& feed : given) {
    if (find(given, feed.name) != &feed) fail(XLSTM_INPUT_ERROR, feed.name + ": is given twice");
    const auto is_it = [&feed](const TensorInfo& tensor) { return tensor.name == feed.name; };
    if (std::any_of(ends.inputs.begin(), ends.inputs.end(), is_it)) continue;
    if (feed.name == kLengths) {
      fail(XLSTM_INPUT_ERROR, feed.name + ": is for bundles of export --ragged");
    }
    fail(XLSTM_INPUT_ERROR, feed.name + ": no input of this bundle; it takes " + names);
  }
}

// Whole numbers are ids.
void check_whole(const Feed& feed, int64_t vocabulary) {
  const int64_t count = elements(feed.shape);
  if (feed.dtype->code == XLSTM_INT64) {
    check_ids(feed.name, static_cast<const int64_t*>(feed.data), count, vocabulary);
  } else if (feed.dtype->code == XLSTM_INT32) {
    const auto* ids = static_cast<const int32_t*>(feed.data);
    check_ids(feed.name, std::vector<int64_t>(ids, ids + count).data(), count, vocabulary);
  }
}

void check_shape(const TensorInfo& tensor, const Feed& feed, int64_t least) {
  bool fits = feed.shape.size() == tensor.shape.size();
  for (size_t i = 0; fits && i < feed.shape.size(); ++i) {
    const int64_t want = tensor.shape[i].size;
    fits = feed.shape[i] >= least && (want < 0 || want == feed.shape[i]);
  }
  if (fits) return;
  fail(XLSTM_INPUT_ERROR, tensor.name + ": shape " + shape_text(feed.shape) + ", expected " +
                              shape_text(tensor.shape) + (least > 0 ? ", no dimension 0" : ""));
}

void note_sizes(const TensorInfo& tensor, const Feed& feed, Sizes* known) {
  for (size_t i = 0; i < feed.shape.size(); ++i) {
    const std::string& name = tensor.shape[i].name;
    if (tensor.shape[i].size >= 0) continue;
    const Known& before = known->emplace(name, Known{feed.shape[i], tensor.name}).first->second;
    if (before.size == feed.shape[i]) continue;
    fail(XLSTM_INPUT_ERROR, tensor.name + ": " + name + " is " + std::to_string(feed.shape[i]) +
                                ", where " + before.tensor + " has " + std::to_string(before.size));
  }
}

// A dimension a+b is the sum; a part that no input has is at least 1.
void check_sums(const Sizes& known) {
  for (const auto& [dim, found] : known) {
    int64_t sum = 0, open = 0;
    std::string others;
    size_t begin = 0, end = 0;
    for (; end != std::string::npos; begin = end + 1) {
      end = dim.find('+', begin);
      const std::string part = dim.substr(begin, end == std::string::npos ? end : end - begin);
      const auto size = known.find(part);
      const bool is_known = size != known.end();
      is_known ? sum += size->second.size : ++open;
      others += (others.empty() ? "" : ", ") + part + " " +
                (is_known ? std::to_string(size->second.size) : "at least 1");
    }
    if (dim.find('+') == std::string::npos) continue;
    if (open > 0 ? found.size >= sum + open : found.size == sum) continue;
    fail(XLSTM_INPUT_ERROR, found.tensor + ": " + dim + " is " + std::to_string(found.size) +
                                ", with " + others);
  }
}

Feed prepare_lengths(const Feed* given, int64_t batch, std::vector<int32_t>* lengths) {
  lengths->assign(static_cast<size_t>(batch), -1);
  const DType* int32 = find_dtype(XLSTM_INT32);
  if (given != nullptr) {
    if (given->shape != Shape{batch}) {
      fail(XLSTM_INPUT_ERROR, std::string(kLengths) + ": shape " + shape_text(given->shape) +
                                  ", expected " + shape_text(Shape{batch}));
    }
    if (given->dtype != int32) {
      fail(XLSTM_INPUT_ERROR,
           std::string(kLengths) + ": holds " + given->dtype->name + ", expected int32");
    }
    std::memcpy(lengths->data(), given->data, lengths->size() * sizeof(int32_t));
    for (int32_t& length : *lengths) length = std::max(length, int32_t{-1});
  }
  return {kLengths, int32, {batch}, lengths->data()};
}

}  // namespace

std::vector<Feed> prepare_feeds(const Manifest& manifest, const Ends& ends,
                                const std::vector<Feed>& given, std::vector<int32_t>* lengths) {
  check_names(ends, given);
  std::vector<Feed> prepared;
  Sizes known;
  for (const TensorInfo& tensor : ends.inputs) {
    const Feed* feed = find(given, tensor.name);
    if (tensor.name == kLengths) {
      prepared.push_back(prepare_lengths(feed, prepared.at(0).shape[0], lengths));
      continue;
    }
    if (feed->dtype != tensor.dtype) {
      fail(XLSTM_INPUT_ERROR, tensor.name + ": holds " + feed->dtype->name + ", expected " +
                                  tensor.dtype->name);
    }
    // of a further input there may be none
    check_shape(tensor, *feed, prepared.empty() ? 1 : 0);
    note_sizes(tensor, *feed, &known);
    check_whole(*feed, manifest.vocabulary());
    prepared.push_back(*feed);
  }
  check_sums(known);
  return prepared;
}

void check_patches(const ForecastInfo& info, const Feed& series) {
  const int64_t steps = series.shape.empty() ? 0 : series.shape.back();
  if (steps % info.patch == 0) return;
  fail(XLSTM_INPUT_ERROR, series.name + ": " + std::to_string(steps) +
                              " steps, where a call with states goes on by a multiple of " +
                              std::to_string(info.patch) +
                              "; begin again, without states, to forecast from elsewhere");
}

void check_ids(const std::string& name, const int64_t* ids, int64_t count, int64_t vocabulary) {
  for (int64_t i = 0; i < count; ++i) {
    if (ids[i] >= 0 && (vocabulary == 0 || ids[i] < vocabulary)) continue;
    const std::string of = vocabulary == 0 ? "" : " of " + std::to_string(vocabulary);
    fail(XLSTM_INPUT_ERROR, name + ": token id " + std::to_string(ids[i]) +
                                " is outside the vocabulary" + of);
  }
}

}  // namespace xlstm::session
