#include "forecast.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "error.h"

namespace xlstm::session {
namespace {

constexpr char kContext[] = "context", kPast[] = "past_covariates", kFuture[] = "future_covariates",
               kGroups[] = "groups", kQuantiles[] = "quantiles";
constexpr int64_t kMostRows = 64;  // series a call, where the backend takes as many
constexpr float kMissing = std::numeric_limits<float>::quiet_NaN();

using Rows = std::vector<std::vector<float>>;

const DType* float32() { return find_dtype(XLSTM_FLOAT32); }

void check(const Model& model, const Rows& series, int64_t horizon) {
  if (!model.manifest().forecast) fail(XLSTM_BUNDLE_ERROR, "the bundle is no forecaster");
  if (horizon < 1) {
    fail(XLSTM_OPTION_ERROR, "horizon: " + std::to_string(horizon) + " is not 1 or more");
  }
  if (series.empty()) fail(XLSTM_INPUT_ERROR, "series: there is none");
  for (size_t i = 0; i < series.size(); ++i) {
    const std::string name = "series " + std::to_string(i);
    if (series[i].empty()) fail(XLSTM_INPUT_ERROR, name + ": has no steps");
    const auto is_infinite = [](float value) { return std::isinf(value); };
    if (std::any_of(series[i].begin(), series[i].end(), is_infinite)) {
      fail(XLSTM_INPUT_ERROR, name + ": holds infinite numbers");
    }
  }
}

// Throws XLSTM_OPTION_ERROR where the bytes of [series, horizon, levels] cannot be counted.
void check_size(const Shape& shape) {
  int64_t bytes = sizeof(float);
  for (const int64_t size : shape) {
    if (!__builtin_mul_overflow(bytes, size, &bytes)) continue;
    fail(XLSTM_OPTION_ERROR, "horizon: " + std::to_string(shape[1]) + " is too large");
  }
}

// Rows [first, last) as one array [rows, longest]: missing values come before the first step.
std::vector<float> left_padded(const Rows& rows, size_t first, size_t last, int64_t* longest) {
  size_t most = 0;
  for (size_t i = first; i < last; ++i) most = std::max(most, rows[i].size());
  std::vector<float> padded((last - first) * most, kMissing);
  for (size_t i = first; i < last; ++i) {
    std::copy(rows[i].begin(), rows[i].end(),
              padded.begin() + ((i - first + 1) * most - rows[i].size()));
  }
  *longest = static_cast<int64_t>(most);
  return padded;
}

const Output& quantiles_of(const Step& step) {
  for (const Output& output : step.outputs) {
    if (output.name == kQuantiles && output.dtype == float32()) return output;
  }
  fail(XLSTM_BUNDLE_ERROR, "the bundle yields no quantiles; export again");
}

// Steps [from, ...) of each row's forecast, from an output [rows, steps, levels].
void place(const Output& found, int64_t from, size_t row, int64_t horizon, int64_t levels,
           std::vector<float>* quantiles) {
  const int64_t rows = found.shape[0];
  const int64_t steps = elements(found.shape) / (rows * levels);
  const int64_t taken = std::min(steps, horizon - from);
  const float* data = static_cast<const float*>(found.data);
  for (int64_t i = 0; i < rows && taken > 0; ++i) {
    const int64_t to = ((static_cast<int64_t>(row) + i) * horizon + from) * levels;
    std::copy_n(data + i * steps * levels, taken * levels, quantiles->begin() + to);
  }
}

// Each row by itself; what is foretold is fed as missing, from the state before it.
void carried(Model* model, const Rows& rows, size_t first, size_t last, int64_t horizon,
             std::vector<float>* quantiles) {
  const ForecastInfo& info = *model->manifest().forecast;
  const auto levels = static_cast<int64_t>(info.levels.size());
  const auto batch = static_cast<int64_t>(last - first);
  int64_t length = 0;
  const std::vector<float> context = left_padded(rows, first, last, &length);
  const Step begun =
      model->run({{kContext, float32(), {batch, length}, context.data()}}, nullptr);
  place(quantiles_of(begun), 0, first, horizon, levels, quantiles);
  if (horizon <= info.horizon) return;
  const int64_t more = (horizon - info.horizon + info.patch - 1) / info.patch * info.patch;
  const std::vector<float> unknown(static_cast<size_t>(batch * more), kMissing);
  const Step rest =
      model->run({{kContext, float32(), {batch, more}, unknown.data()}}, &begun.states);
  place(quantiles_of(rest), info.horizon, first, horizon, levels, quantiles);
}

// Each row the only target of a batch entry, where a model could take several together.
void side_by_side(Model* model, const Rows& rows, size_t first, size_t last, int64_t horizon,
                  std::vector<float>* quantiles) {
  const auto levels = static_cast<int64_t>(model->manifest().forecast->levels.size());
  const auto batch = static_cast<int64_t>(last - first);
  int64_t length = 0;
  const std::vector<float> context = left_padded(rows, first, last, &length);
  const std::vector<int64_t> groups(last - first, 0);
  const float none = 0;
  const std::vector<Feed> feeds = {
      {kContext, float32(), {batch, 1, length}, context.data()},
      {kPast, float32(), {batch, 0, length}, &none},
      {kFuture, float32(), {batch, 0, length + horizon}, &none},
      {kGroups, find_dtype(XLSTM_INT64), {batch, 1}, groups.data()}};
  place(quantiles_of(model->run(feeds, nullptr)), 0, first, horizon, levels, quantiles);
}

}  // namespace

Output forecast(Model* model, const Rows& series, int64_t horizon) {
  check(*model, series, horizon);
  const Manifest& manifest = model->manifest();
  const ForecastInfo& info = *manifest.forecast;
  const auto& inputs = manifest.begin.inputs;
  const bool takes_several = std::any_of(
      inputs.begin(), inputs.end(), [](const TensorInfo& input) { return input.name == kGroups; });
  if (takes_several && horizon > info.horizon) {
    fail(XLSTM_OPTION_ERROR, "horizon: " + std::to_string(horizon) + " is beyond the " +
                                 std::to_string(info.horizon) + " steps of this model");
  }
  const auto rows = static_cast<int64_t>(series.size());
  const Shape shape{rows, horizon, static_cast<int64_t>(info.levels.size())};
  check_size(shape);
  auto quantiles = std::make_shared<std::vector<float>>(elements(shape), kMissing);
  const auto at_once = static_cast<size_t>(std::min(kMostRows, model->most_rows()));
  for (size_t first = 0; first < series.size(); first += at_once) {
    const size_t last = std::min(series.size(), first + at_once);
    const auto run = takes_several ? side_by_side : carried;
    run(model, series, first, last, horizon, quantiles.get());
  }
  return {kQuantiles, float32(), shape, quantiles->data(), quantiles};
}

}  // namespace xlstm::session
