#include "generate.h"

#include <algorithm>

#include "error.h"
#include "feeds.h"

namespace xlstm::session {
namespace {

void check(const Model& model, const std::vector<int64_t>& prompt, const Generation& options,
           const States* past) {
  const Manifest& manifest = model.manifest();
  if (!manifest.is_language_model() || manifest.begin.outputs[0].dtype->code != XLSTM_FLOAT32) {
    fail(XLSTM_BUNDLE_ERROR, "the bundle takes " + manifest.begin.inputs[0].name + " and yields " +
                                 manifest.begin.outputs[0].name + ": it generates no text");
  }
  if (manifest.states.empty()) {
    fail(XLSTM_BUNDLE_ERROR,
         "the bundle carries no states, so that no text goes on by it; export it again with "
         "--states (export_module: states=True)");
  }
  if (prompt.empty()) fail(XLSTM_INPUT_ERROR, "the prompt is empty; give at least one id");
  check_ids("prompt", prompt.data(), static_cast<int64_t>(prompt.size()), manifest.vocabulary());
  if (past != nullptr && past->batch() != 1) {
    fail(XLSTM_INPUT_ERROR, "states: of " + std::to_string(past->batch()) +
                                " rows; one text is continued at a time");
  }
  if (options.max_new_tokens < 0) {
    fail(XLSTM_OPTION_ERROR,
         "max_new_tokens: " + std::to_string(options.max_new_tokens) + " is not 0 or more");
  }
  check_sampling(options.sampling);
}

}  // namespace

States generate(Model* model, const std::vector<int64_t>& prompt, const Generation& options,
                const States* past, const std::function<bool(int64_t)>& on_token) {
  check(*model, prompt, options, past);
  const std::string& name = model->manifest().begin.inputs[0].name;
  std::mt19937_64 random(options.sampling.seed);
  std::optional<Step> step;
  const auto read = [&](const int64_t* ids, int64_t count) {
    const Feed feed{name, find_dtype(XLSTM_INT64), {1, count}, ids};
    const States* before = step ? &step->states : past;
    step = model->run({feed}, before, Wanted::kLastStep);
  };
  const int64_t size = static_cast<int64_t>(prompt.size());
  for (int64_t begin = 0; begin < size; begin += model->most_steps()) {
    read(prompt.data() + begin, std::min(size - begin, model->most_steps()));
  }
  for (int64_t made = 0; made < options.max_new_tokens; ++made) {
    const Output& logits = step->outputs[0];  // [1, steps or 1, vocabulary]
    const int64_t vocabulary = logits.shape.back();
    const float* last =
        static_cast<const float*>(logits.data) + elements(logits.shape) - vocabulary;
    const int64_t token = choose(last, static_cast<size_t>(vocabulary), options.sampling, &random);
    const bool is_stop =
        std::find(options.stop.begin(), options.stop.end(), token) != options.stop.end();
    if (!on_token(token) || is_stop || made + 1 == options.max_new_tokens) break;
    read(&token, 1);
  }
  return std::move(step->states);
}

}  // namespace xlstm::session
