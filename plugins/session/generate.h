// Texts as ids, continued: the prompt in pieces, then one id at a time on the carried state.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "model.h"
#include "sampling.h"

namespace xlstm::session {

struct Generation {
  int64_t max_new_tokens = 0;
  Sampling sampling;
  std::vector<int64_t> stop;
};

// Calls `on_token` with each id as it is chosen, a stop id included; false ends it. Returns the
// states after all that was read: the prompt, and the new ids but the last. Throws
// XLSTM_INPUT_ERROR, XLSTM_OPTION_ERROR, and XLSTM_BUNDLE_ERROR where the bundle is no language
// model or carries no states.
States generate(Model* model, const std::vector<int64_t>& prompt, const Generation& options,
                const States* past, const std::function<bool(int64_t)>& on_token);

}  // namespace xlstm::session
