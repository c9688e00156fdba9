// Forecasts of series: rows side by side, long horizons on the carried state.
#pragma once

#include <vector>

#include "model.h"

namespace xlstm::session {

// Quantiles float32 [series, horizon, levels]; NaN is a missing value. Throws XLSTM_BUNDLE_ERROR
// where the bundle is no forecaster, XLSTM_INPUT_ERROR and XLSTM_OPTION_ERROR.
Output forecast(Model* model, const std::vector<std::vector<float>>& series, int64_t horizon);

}  // namespace xlstm::session
