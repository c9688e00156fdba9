// Cutting work into parts, and memory into pieces.
#pragma once

#include "simd.h"
#include "xlstm/cpu.h"

namespace xlstm::cpu::XLSTM_ISA {

// Call body(i) for every i in [0, count).
template <class Body>
XLSTM_INLINE void parallel_for(const Parallel& parallel, int64_t count, Body& body) {
  if (count <= 1 || parallel.run == nullptr) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  const auto task = [](void* context, int64_t i) { (*static_cast<Body*>(context))(i); };
  parallel.run(parallel.pool, task, &body, count);
}

// Parts that `units` of about `cost` multiply-adds each are worth cutting into: waking a thread
// costs as much as kLeastWork.
XLSTM_INLINE int64_t count_parts(int64_t units, double cost, int threads) {
  constexpr double kLeastWork = 60e3;
  const double affordable = static_cast<double>(units) * cost / kLeastWork;
  const int64_t most = min_of(units, threads);
  if (affordable >= static_cast<double>(most)) return most;
  return max_of(1, static_cast<int64_t>(affordable));
}

// Units [begin, end) of part `index` of `parts`, as even as can be.
struct Share {
  int64_t begin;
  int64_t end;
};
XLSTM_INLINE Share share_of(int64_t units, int64_t parts, int64_t index) {
  return {units * index / parts, units * (index + 1) / parts};
}

// Units of part `index`: side by side, which is easier on caches; or every `parts`-th where rows
// differ in length, since neighbours may be alike.
struct Units {
  int64_t begin;
  int64_t end;
  int64_t step;
};
XLSTM_INLINE Units units_of(int64_t units, int64_t parts, int64_t index, bool are_ragged) {
  if (are_ragged) return {index, units, parts};
  const Share share = share_of(units, parts, index);
  return {share.begin, share.end, 1};
}

// Hands out consecutive aligned arrays; with a null base it only counts their bytes.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

  template <class T>
  T* take(int64_t count) {
    char* place = base_ == nullptr ? nullptr : base_ + used_;
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    used_ += round_up(bytes, static_cast<int64_t>(kWorkspaceAlignment));
    return reinterpret_cast<T*>(place);
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

// Valid steps of row `row`: -1 is all, more than `time` is all.
XLSTM_INLINE int64_t valid_steps(const int32_t* lengths, int64_t lengths_size, int64_t row,
                                 int64_t time) {
  const int64_t length = lengths[lengths_size == 1 ? 0 : row];
  return length < 0 ? time : min_of(length, time);
}

}  // namespace xlstm::cpu::XLSTM_ISA
