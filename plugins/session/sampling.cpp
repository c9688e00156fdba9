#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "error.h"

namespace xlstm::session {
namespace {

// The largest; the first NaN counts as such.
size_t find_best(const float* logits, size_t count) {
  size_t best = 0;
  for (size_t i = 0; i < count && !std::isnan(logits[best]); ++i) {
    if (std::isnan(logits[i]) || logits[i] > logits[best]) best = i;
  }
  return best;
}

}  // namespace

void check_sampling(const Sampling& sampling) {
  const auto text = [](double value) { return std::to_string(value); };
  if (!(sampling.temperature >= 0)) {
    fail(XLSTM_OPTION_ERROR, "temperature: " + text(sampling.temperature) + " is not 0 or more");
  }
  if (sampling.top_k < 0) {
    fail(XLSTM_OPTION_ERROR, "top_k: " + std::to_string(sampling.top_k) + " is not 0 or more");
  }
  if (!(sampling.top_p >= 0 && sampling.top_p <= 1)) {
    fail(XLSTM_OPTION_ERROR, "top_p: " + text(sampling.top_p) + " is not between 0 and 1");
  }
}

int64_t choose(const float* logits, size_t vocabulary, const Sampling& sampling,
               std::mt19937_64* random) {
  const size_t best = find_best(logits, vocabulary);
  if (!std::isfinite(logits[best])) {
    fail(XLSTM_BUNDLE_ERROR, std::string("the model computed ") +
                                 (std::isnan(logits[best]) ? "NaN" : "infinity") +
                                 " instead of logits; compare it with: xlstm-export validate");
  }
  if (sampling.temperature <= 0) return static_cast<int64_t>(best);
  // shifted before it is divided: a tiny temperature must not make inf - inf
  std::vector<double> weights(vocabulary);
  for (size_t i = 0; i < vocabulary; ++i) {
    const double shifted = static_cast<double>(logits[i]) - static_cast<double>(logits[best]);
    weights[i] = std::exp(shifted / sampling.temperature);
  }
  std::vector<size_t> ids(vocabulary);
  std::iota(ids.begin(), ids.end(), size_t{0});
  const auto k = static_cast<size_t>(sampling.top_k);
  if (k > 0 && k < vocabulary) {
    std::vector<float> sorted(logits, logits + vocabulary);
    std::nth_element(sorted.begin(), sorted.begin() + (k - 1), sorted.end(), std::greater<>());
    const float least = sorted[k - 1];
    ids.erase(std::remove_if(ids.begin(), ids.end(),
                             [=](size_t id) { return !(logits[id] >= least); }),
              ids.end());
  }
  if (sampling.top_p < 1) {
    std::stable_sort(ids.begin(), ids.end(),
                     [&](size_t a, size_t b) { return weights[a] > weights[b]; });
    double whole = 0;
    for (const size_t id : ids) whole += weights[id];
    double reached = 0;
    size_t kept = 0;
    while (kept < ids.size() && (kept == 0 || reached < sampling.top_p * whole)) {
      reached += weights[ids[kept++]];
    }
    ids.resize(kept);
  }
  std::vector<double> chances;
  for (const size_t id : ids) chances.push_back(weights[id]);
  std::discrete_distribution<size_t> draw(chances.begin(), chances.end());
  return static_cast<int64_t>(ids[draw(*random)]);
}

}  // namespace xlstm::session
