// Forecasts one series, its numbers read from stdin, with a bundle of a forecaster; prints a line of
// quantiles for each step, the levels above them.
//
//   forecast [--runtime LIBRARY] [--engine ENGINE] [--no-kernels] BUNDLE HORIZON < NUMBERS
#include <cstdio>

#include "words.h"

namespace {

std::vector<float> read_series() {
  std::vector<float> series;
  for (std::string word; std::cin >> word;) {
    char* end = nullptr;
    series.push_back(std::strtof(word.c_str(), &end));  // nan is a missing value
    if (*end != '\0') throw std::runtime_error("\"" + word + "\": expected a number");
  }
  return series;
}

void forecast(const Words& words) {
  xlstm::Session session(words.rest[0], words.options);
  const int64_t horizon = whole_number("HORIZON", words.rest[1]);
  std::cerr << session.describe() << '\n';
  const xlstm::Outputs outputs = session.forecast({read_series()}, horizon);
  const xlstm::Tensor quantiles = outputs.at("quantiles");
  const float* next = quantiles.as<float>();
  const std::vector<double> levels = session.levels();
  for (const double level : levels) std::printf("%11g", level);
  for (int64_t step = 0; step < horizon; ++step) {
    std::printf("\n");
    for (size_t i = 0; i < levels.size(); ++i) std::printf(" %.9g", *next++);
  }
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([=] {
    const Words words = read_words(argc, argv);
    if (words.rest.size() != 2) {
      throw std::runtime_error(
          "usage: forecast [--runtime LIBRARY] [--engine ENGINE] [--no-kernels] BUNDLE HORIZON");
    }
    forecast(words);
  });
}
