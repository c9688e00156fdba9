#include "graph.h"

#include <algorithm>

#include "../error.h"

namespace xlstm::session::trt {
namespace {

constexpr size_t kRows = 0, kTime = 1;  // axes of the first input, [B,T] or [B,T,D]

bool fits(const ShapeRange& range, const Shape& shape) {
  if (shape.size() != range.min.size() || shape.size() != range.max.size()) return false;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < range.min[i] || shape[i] > range.max[i]) return false;
  }
  return true;
}

[[noreturn]] void disagree(const std::string& path, const std::string& name) {
  fail(XLSTM_ENGINE_ERROR,
       path + ": the engine's tensors are not the bundle's (" + name + "); build again");
}

// To the host; of one row [1,T,V] a prompt's logits are large, and the last step's are wanted.
void fetch(const std::byte* address, Wanted wanted, Gpu& gpu, Output* output) {
  Shape& shape = output->shape;
  const size_t all = static_cast<size_t>(elements(shape)) * output->dtype->bytes;
  if (wanted == Wanted::kLastStep && shape.size() == 3 && shape[0] == 1) shape[kTime] = 1;
  const size_t bytes = static_cast<size_t>(elements(shape)) * output->dtype->bytes;
  address += all - bytes;
  auto host = std::make_shared<std::vector<std::byte>>(bytes);
  gpu.download(host->data(), address, bytes);
  output->data = host->data();
  output->owner = std::move(host);
}

}  // namespace

Graph::Graph(const std::string& path, const EngineRecord& record,
             std::shared_ptr<const Manifest> manifest, const Ends& ends, bool takes_states,
             const char* library, const char* kernel_library)
    : manifest_(std::move(manifest)), ends_(ends), engine_(path, record, library, kernel_library) {
  check_tensors(path, takes_states);
}

int64_t Graph::most_rows() const { return largest(kRows); }

int64_t Graph::most_steps() const { return largest(kTime); }

int64_t Graph::largest(size_t axis) const {
  int64_t most = 1;
  for (const Profile& profile : engine_.profiles()) {
    const Shape& shape = profile.at(ends_.inputs[0].name).max;
    if (shape.size() > axis) most = std::max(most, shape[axis]);
  }
  return most;
}

std::vector<Output> Graph::run(const std::vector<Feed>& feeds, const States* past,
                               const States& present, Wanted wanted, Gpu& gpu,
                               const std::shared_ptr<Pool>& pool) {
  Shapes shapes;
  std::map<std::string, void*> addresses;
  std::vector<std::shared_ptr<std::byte>> blocks;  // until the device is done
  for (const Feed& feed : feeds) {
    const size_t bytes = static_cast<size_t>(elements(feed.shape)) * feed.dtype->bytes;
    blocks.push_back(pool->take(bytes));
    gpu.upload(blocks.back().get(), feed.data, bytes);
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
  engine_.set_shapes(profile, shapes, gpu.stream());
  std::vector<Output> outputs;
  for (const TensorInfo& tensor : ends_.outputs) {
    outputs.push_back({tensor.name, tensor.dtype, engine_.output_shape(profile, tensor.name),
                       nullptr, nullptr});
    const size_t bytes = static_cast<size_t>(elements(outputs.back().shape)) * tensor.dtype->bytes;
    blocks.push_back(pool->take(bytes));
    addresses[tensor.name] = blocks.back().get();
  }
  check_states(profile, present);
  engine_.enqueue(profile, addresses, gpu.stream());
  for (Output& output : outputs) {
    fetch(static_cast<const std::byte*>(addresses[output.name]), wanted, gpu, &output);
  }
  return outputs;
}

// Names and types are the manifest's.
void Graph::check_tensors(const std::string& path, bool takes_states) const {
  std::map<std::string, EngineTensor> expected;
  for (const TensorInfo& tensor : ends_.inputs) {
    expected[tensor.name] = {tensor.dtype, true};
  }
  for (const TensorInfo& tensor : ends_.outputs) {
    expected[tensor.name] = {tensor.dtype, false};
  }
  for (const StateInfo& state : manifest_->states) {
    if (takes_states) expected[state.input] = {state.dtype, true};
    expected[state.output] = {state.dtype, false};
  }
  const auto& found = engine_.tensors();
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

// The states' buffers are as large as the engine writes them.
void Graph::check_states(size_t profile, const States& present) {
  for (size_t i = 0; i < manifest_->states.size(); ++i) {
    const std::string& name = manifest_->states[i].output;
    const Shape made = engine_.output_shape(profile, name);
    if (made != present.shape(i)) {
      fail(XLSTM_ENGINE_ERROR,
           name + ": the engine makes " + shape_text(made) + "; build again");
    }
  }
}

// The first profile that takes these shapes: decode stands before prefill.
size_t Graph::choose_profile(const Shapes& shapes) const {
  const auto& profiles = engine_.profiles();
  for (size_t i = 0; i < profiles.size(); ++i) {
    const auto takes = [&](const auto& entry) {
      const auto shape = shapes.find(entry.first);
      return shape != shapes.end() && fits(entry.second, shape->second);
    };
    if (std::all_of(profiles[i].begin(), profiles[i].end(), takes)) return i;
  }
  const std::string& name = ends_.inputs[0].name;
  std::string spans;
  for (const Profile& profile : profiles) {
    const ShapeRange& range = profile.at(name);
    spans += (spans.empty() ? "" : " or ") + shape_text(range.min) + " to " +
             shape_text(range.max);
  }
  fail(XLSTM_INPUT_ERROR, name + " " + shape_text(shapes.at(name)) + ": the engine takes " +
                              spans + "; feed shorter pieces with carried states, or build " +
                              "with a larger --max-batch-size and --max-input-len");
}

}  // namespace xlstm::session::trt
