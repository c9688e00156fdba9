#include "../backend.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "../error.h"
#include "../options.h"
#include "driver.h"
#include "engine.h"

namespace xlstm::session {
namespace {

constexpr int64_t kMostSteps = 512;
constexpr size_t kTime = 1;  // the axis of time in the first input, [B,T] or [B,T,D]
using Shapes = std::map<std::string, Shape>;

void check_record(const std::string& path, const trt::EngineRecord& record,
                  const Manifest& manifest, const std::string& capability) {
  if (!manifest.sha256.empty() && record.bundle_sha256 != manifest.sha256) {
    fail(XLSTM_ENGINE_ERROR, path + ": was built from another graph or other weights " +
                                 "than the bundle's; build again: xlstm-export build");
  }
  const auto& built_for = record.compute_capability;
  const auto has = [&](const char* one) {
    return std::find(built_for.begin(), built_for.end(), one) != built_for.end();
  };
  if (built_for.empty() || has("unknown") || has(capability.c_str())) return;
  std::string all;
  for (const std::string& one : built_for) all += (all.empty() ? "" : ", ") + one;
  fail(XLSTM_ENGINE_ERROR, path + ": built for compute capability " + all +
                               ", and this GPU has " + capability +
                               ": build one for it with: xlstm-export build --backend " +
                               record.backend);
}

bool fits(const trt::ShapeRange& range, const Shape& shape) {
  if (shape.size() != range.min.size() || shape.size() != range.max.size()) return false;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < range.min[i] || shape[i] > range.max[i]) return false;
  }
  return true;
}

class TrtBackend : public Backend {
 public:
  TrtBackend(const std::string& bundle, std::shared_ptr<const Manifest> manifest,
             const Options& options)
      : manifest_(std::move(manifest)) {
    const std::string path = trt::find_engine(bundle, options.engine);
    const trt::EngineRecord record = trt::read_record(path);
    std::unique_ptr<trt::Gpu> gpu = trt::open_gpu(options.gpu);
    gpu_ = gpu.get();
    check_record(path, record, *manifest_, gpu->compute_capability());
    pool_ = std::make_shared<Pool>(std::move(gpu));
    engine_ = std::make_unique<trt::Engine>(path, record, options.runtime_library,
                                            options.kernel_library);
    check_tensors(path);
    const std::string plugins = std::to_string(record.op_types.size()) + " by " + record.library;
    description_ = engine_->title() + ", " + gpu_->name() + " (" + gpu_->compute_capability() +
                   "), " + manifest_->dtype + "; CUDA plugins: " + plugins + " " +
                   record.library_version;
    const std::string& first = manifest_->begin.inputs[0].name;
    for (const trt::Profile& profile : engine_->profiles()) {
      const Shape& most = profile.at(first).max;
      if (most.size() > kTime) most_steps_ = std::max(most_steps_, most[kTime]);
    }
    most_steps_ = std::min(most_steps_, kMostSteps);
  }

  std::string describe() const override { return description_; }
  const std::shared_ptr<Pool>& pool() const override { return pool_; }
  int64_t most_steps() const override { return most_steps_; }

  std::vector<Output> run(const Ends& ends, const std::vector<Feed>& feeds, const States* past,
                          const States& present, Wanted wanted) override {
    if (&ends != &manifest_->begin) {
      fail(XLSTM_INPUT_ERROR, "states: the engine begins every call; give none");
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    gpu_->activate();
    Shapes shapes;
    std::map<std::string, void*> addresses;
    std::vector<std::shared_ptr<std::byte>> blocks;  // until the device is done
    for (const Feed& feed : feeds) {
      const size_t bytes = static_cast<size_t>(elements(feed.shape)) * feed.dtype->bytes;
      blocks.push_back(pool_->take(bytes));
      gpu_->upload(blocks.back().get(), feed.data, bytes);
      shapes[feed.name] = feed.shape;
      addresses[feed.name] = blocks.back().get();
    }
    for (size_t i = 0; i < manifest_->states.size(); ++i) {
      const StateInfo& state = manifest_->states[i];
      if (past != nullptr) shapes[state.input] = past->shape(i);
      if (past != nullptr) addresses[state.input] = past->address(i);
      addresses[state.output] = present.address(i);
    }
    const size_t profile = choose_profile(shapes);
    engine_->set_shapes(profile, shapes, gpu_->stream());
    std::vector<Output> outputs;
    for (const TensorInfo& tensor : ends.outputs) {
      outputs.push_back({tensor.name, tensor.dtype, engine_->output_shape(profile, tensor.name),
                         nullptr, nullptr});
      const size_t bytes = static_cast<size_t>(elements(outputs.back().shape)) *
                           tensor.dtype->bytes;
      blocks.push_back(pool_->take(bytes));
      addresses[tensor.name] = blocks.back().get();
    }
    check_states(profile, present);
    engine_->enqueue(profile, addresses, gpu_->stream());
    for (Output& output : outputs) {
      fetch(static_cast<const std::byte*>(addresses[output.name]), wanted, &output);
    }
    return outputs;
  }

 private:
  // Names and types are the manifest's.
  void check_tensors(const std::string& path) const {
    std::map<std::string, trt::EngineTensor> expected;
    for (const TensorInfo& tensor : manifest_->begin.inputs) {
      expected[tensor.name] = {tensor.dtype, true};
    }
    for (const TensorInfo& tensor : manifest_->begin.outputs) {
      expected[tensor.name] = {tensor.dtype, false};
    }
    for (const StateInfo& state : manifest_->states) {
      if (manifest_->takes_states()) expected[state.input] = {state.dtype, true};
      expected[state.output] = {state.dtype, false};
    }
    const auto& found = engine_->tensors();
    for (const auto& [name, tensor] : expected) {
      const auto other = found.find(name);
      if (other == found.end() || other->second.dtype != tensor.dtype ||
          other->second.is_input != tensor.is_input) {
        disagree(path, name);
      }
    }
    for (const auto& [name, tensor] : found) {
      if (expected.find(name) == expected.end()) disagree(path, name);
    }
  }

  [[noreturn]] static void disagree(const std::string& path, const std::string& name) {
    fail(XLSTM_ENGINE_ERROR, path + ": the engine's tensors are not the bundle's (" +
                                 name + "); build again");
  }

  // The states' buffers are as large as the engine writes them.
  void check_states(size_t profile, const States& present) {
    for (size_t i = 0; i < manifest_->states.size(); ++i) {
      const std::string& name = manifest_->states[i].output;
      const Shape made = engine_->output_shape(profile, name);
      if (made != present.shape(i)) {
        fail(XLSTM_ENGINE_ERROR,
             name + ": the engine makes " + shape_text(made) + "; build again");
      }
    }
  }

  // The first profile that takes these shapes: decode stands before prefill.
  size_t choose_profile(const Shapes& shapes) const {
    const auto& profiles = engine_->profiles();
    for (size_t i = 0; i < profiles.size(); ++i) {
      const auto takes = [&](const auto& entry) {
        const auto shape = shapes.find(entry.first);
        return shape != shapes.end() && fits(entry.second, shape->second);
      };
      if (std::all_of(profiles[i].begin(), profiles[i].end(), takes)) return i;
    }
    const std::string& name = manifest_->begin.inputs[0].name;
    std::string spans;
    for (const trt::Profile& profile : profiles) {
      const trt::ShapeRange& range = profile.at(name);
      spans += (spans.empty() ? "" : " or ") + shape_text(range.min) + " to " +
               shape_text(range.max);
    }
    fail(XLSTM_INPUT_ERROR, name + " " + shape_text(shapes.at(name)) + ": the engine takes " +
                                spans + "; feed shorter pieces with carried states, or build " +
                                "with a larger --max-batch-size and --max-input-len");
  }

  // To the host; of one row [1,T,V] a prompt's logits are large, and the last step's are wanted.
  void fetch(const std::byte* address, Wanted wanted, Output* output) {
    Shape& shape = output->shape;
    const size_t all = static_cast<size_t>(elements(shape)) * output->dtype->bytes;
    if (wanted == Wanted::kLastStep && shape.size() == 3 && shape[0] == 1) shape[kTime] = 1;
    const size_t bytes = static_cast<size_t>(elements(shape)) * output->dtype->bytes;
    address += all - bytes;
    auto host = std::make_shared<std::vector<std::byte>>(bytes);
    gpu_->download(host->data(), address, bytes);
    output->data = host->data();
    output->owner = std::move(host);
  }

  std::shared_ptr<const Manifest> manifest_;
  trt::Gpu* gpu_;  // the pool's
  std::shared_ptr<Pool> pool_;
  std::unique_ptr<trt::Engine> engine_;
  std::string description_;
  int64_t most_steps_ = 1;
  std::mutex mutex_;
};

}  // namespace

std::unique_ptr<Backend> open_tensorrt(const std::string& bundle,
                                       std::shared_ptr<const Manifest> manifest,
                                       const Options& options) {
  return std::make_unique<TrtBackend>(bundle, std::move(manifest), options);
}

}  // namespace xlstm::session
