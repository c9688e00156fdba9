// Which id comes next: the likeliest, or a draw from the tempered, cut distribution.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>

namespace xlstm::session {

struct Sampling {
  double temperature = 0;  // 0: the likeliest id
  int64_t top_k = 0;       // 0: all
  double top_p = 1;        // 1: all
  uint64_t seed = 0;
};

// Throws XLSTM_OPTION_ERROR for a value that it cannot have.
void check_sampling(const Sampling& sampling);

// One id from `logits` [vocabulary]. top_k keeps the k best and those equal to the worst of them;
// of these, top_p keeps the smallest set of the likeliest whose probability reaches it. Throws
// XLSTM_BUNDLE_ERROR where the best is no number.
int64_t choose(const float* logits, size_t vocabulary, const Sampling& sampling,
               std::mt19937_64* random);

}  // namespace xlstm::session
