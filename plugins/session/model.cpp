#include "model.h"

#include "error.h"
#include "feeds.h"
#include "xlstm/threads.h"

namespace xlstm::session {
namespace {

void check_options(const Options& options) {
  if (options.threads < 0 || options.threads > kMostThreads) {
    fail(XLSTM_OPTION_ERROR, "threads: " + std::to_string(options.threads) +
                                 " is not between 1 and " + std::to_string(kMostThreads));
  }
  if (options.gpu < 0) {
    fail(XLSTM_OPTION_ERROR, "gpu: " + std::to_string(options.gpu) + " is not 0 or more");
  }
}

std::vector<Output> describe(const std::vector<TensorInfo>& tensors) {
  std::vector<Output> described;
  for (const TensorInfo& tensor : tensors) {
    Output& one = described.emplace_back(Output{tensor.name, tensor.dtype, {}, nullptr, nullptr});
    for (const Dim& dim : tensor.shape) one.shape.push_back(dim.size);
  }
  return described;
}

std::vector<Output> describe(const std::vector<StateInfo>& states) {
  std::vector<Output> described;
  for (const StateInfo& state : states) {
    Output& one = described.emplace_back(Output{state.key, state.dtype, {-1}, nullptr, nullptr});
    one.shape.insert(one.shape.end(), state.row.begin(), state.row.end());
  }
  return described;
}

}  // namespace

Model::Model(const std::string& bundle, const Options& options)
    : manifest_(read_manifest(bundle)) {
  check_options(options);
  const auto open = options.engine == nullptr ? open_onnxruntime : open_tensorrt;
  backend_ = open(bundle, manifest_, options);
  description_ = backend_->describe();
  if (manifest_->is_language_model()) stop_ids_ = read_stop_ids(bundle);
  inputs_ = describe(manifest_->begin.inputs);
  outputs_ = describe(manifest_->begin.outputs);
  states_ = describe(manifest_->states);
}

const std::vector<Output>& Model::ends(xlstm_ends which) const {
  return which == XLSTM_INPUTS ? inputs_ : which == XLSTM_OUTPUTS ? outputs_ : states_;
}

Step Model::run(const std::vector<Feed>& given, const States* past, Wanted wanted) {
  const Ends& ends = past == nullptr ? manifest_->begin : manifest_->continued();
  std::vector<int32_t> lengths;
  const std::vector<Feed> feeds = prepare_feeds(*manifest_, ends, given, &lengths);
  if (&ends != &manifest_->begin && manifest_->forecast) {
    check_patches(*manifest_->forecast, feeds[0]);
  }
  const int64_t batch = feeds[0].shape[0];
  if (past != nullptr && &past->manifest() != manifest_.get()) {
    fail(XLSTM_INPUT_ERROR, "states: they are of another session; save and load them to move them");
  }
  if (past != nullptr && past->batch() != batch) {
    fail(XLSTM_INPUT_ERROR, "states: of " + std::to_string(past->batch()) +
                                " rows, where this batch has " + std::to_string(batch));
  }
  Step step{{}, States(manifest_, backend_->pool(), batch)};
  if (past != nullptr || !manifest_->takes_states()) {
    step.outputs = backend_->run(ends, feeds, past, step.states, wanted);
  } else {
    const States begun = zeros(batch);
    step.outputs = backend_->run(ends, feeds, &begun, step.states, wanted);
  }
  return step;
}

}  // namespace xlstm::session
