#include "states.h"

#include "error.h"
#include "safetensors.h"

namespace xlstm::session {
namespace {

// The metadata of a file of states, as xlstm_export/runtime/states_file.py has it.
constexpr char kFormat[] = "xlstm_export.states", kVersion[] = "1", kDigest[] = "bundle_sha256";

// Throws XLSTM_INPUT_ERROR unless they are states, and of the bundle of `manifest`.
void check_metadata(const Safetensors& file, const std::string& path, const Manifest& manifest) {
  const auto value = [&file](const char* key) {
    const auto found = file.metadata.find(key);
    return found == file.metadata.end() ? std::string() : found->second;
  };
  if (value(kFormat) != kVersion) {
    fail(XLSTM_INPUT_ERROR, path + ": holds no saved states of version " + kVersion);
  }
  if (value(kDigest) == manifest.sha256) return;
  fail(XLSTM_INPUT_ERROR, path + ": states of another bundle (sha256 " +
                              value(kDigest).substr(0, 12) + ", not " +
                              manifest.sha256.substr(0, 12) +
                              "); open the bundle they were saved with");
}

size_t aligned(size_t bytes) {
  return (bytes + Memory::kAlignment - 1) / Memory::kAlignment * Memory::kAlignment;
}

}  // namespace

States::States(std::shared_ptr<const Manifest> manifest, std::shared_ptr<Pool> pool, int64_t batch)
    : manifest_(std::move(manifest)), pool_(std::move(pool)), batch_(batch), size_(0) {
  if (batch < 1) {
    fail(XLSTM_INPUT_ERROR, "states: a batch of " + std::to_string(batch) + "; give 1 or more");
  }
  for (const StateInfo& state : manifest_->states) {
    offsets_.push_back(size_);
    size_t more = 0;
    if (__builtin_mul_overflow(static_cast<size_t>(batch), state.row_bytes, &more) ||
        more > SIZE_MAX / 2 - size_ - Memory::kAlignment) {
      fail(XLSTM_INPUT_ERROR, "states: a batch of " + std::to_string(batch) + " is too large");
    }
    size_ += aligned(more);
  }
  block_ = pool_->take(size_);
}

States States::zeros(std::shared_ptr<const Manifest> manifest, std::shared_ptr<Pool> pool,
                     int64_t batch) {
  States states(std::move(manifest), std::move(pool), batch);
  states.pool_->memory().zero(states.block_.get(), states.size_);
  return states;
}

States States::join(const std::vector<const States*>& parts) {
  if (parts.empty()) fail(XLSTM_INPUT_ERROR, "states: there are none to join");
  int64_t batch = 0;
  for (const States* part : parts) {
    if (part->pool_ != parts[0]->pool_) {
      fail(XLSTM_INPUT_ERROR, "states: those joined are of different sessions");
    }
    batch += part->batch_;
  }
  States joined(parts[0]->manifest_, parts[0]->pool_, batch);
  int64_t row = 0;
  for (const States* part : parts) {
    joined.place(row, *part, 0, part->batch_);
    row += part->batch_;
  }
  return joined;
}

size_t States::nbytes() const {
  size_t total = 0;
  for (size_t i = 0; i < offsets_.size(); ++i) total += bytes(i);
  return total;
}

Shape States::shape(size_t index) const {
  const Shape& row = manifest_->states[index].row;
  Shape shape{batch_};
  shape.insert(shape.end(), row.begin(), row.end());
  return shape;
}

States States::copy() const {
  States same(manifest_, pool_, batch_);
  pool_->memory().copy(same.block_.get(), block_.get(), size_);
  return same;
}

States States::rows(const std::vector<int64_t>& indices) const {
  for (const int64_t row : indices) check_row(row);
  States chosen(manifest_, pool_, static_cast<int64_t>(indices.size()));
  for (size_t to = 0; to < indices.size(); ++to) {
    chosen.place(static_cast<int64_t>(to), *this, indices[to], 1);
  }
  return chosen;
}

States States::reset(const std::vector<int64_t>& indices) const {
  for (const int64_t row : indices) check_row(row);
  States begun = copy();
  for (const int64_t row : indices) {
    for (size_t i = 0; i < offsets_.size(); ++i) {
      const size_t stride = manifest_->states[i].row_bytes;
      pool_->memory().zero(begun.address(i) + static_cast<size_t>(row) * stride, stride);
    }
  }
  return begun;
}

void States::save(const std::string& path) const {
  std::vector<Output> tensors;
  for (size_t i = 0; i < offsets_.size(); ++i) tensors.push_back(host(i));
  write_safetensors(path, tensors, {{kFormat, kVersion}, {kDigest, manifest_->sha256}});
}

States States::load(std::shared_ptr<const Manifest> manifest, std::shared_ptr<Pool> pool,
                    const std::string& path) {
  const Safetensors file = read_safetensors(path);
  check_metadata(file, path, *manifest);
  int64_t batch = 0;
  for (const StateInfo& state : manifest->states) {
    const Output* tensor = file.find(state.key);
    if (tensor == nullptr) fail(XLSTM_INPUT_ERROR, path + ": has no " + state.key);
    if (batch == 0 && !tensor->shape.empty()) batch = tensor->shape[0];
    Shape expected{batch};
    expected.insert(expected.end(), state.row.begin(), state.row.end());
    if (batch < 1 || tensor->shape != expected || tensor->dtype != state.dtype) {
      fail(XLSTM_INPUT_ERROR, path + ": " + state.key + " is " + tensor->dtype->name +
                                  " " + shape_text(tensor->shape) + ", expected " +
                                  state.dtype->name + " " + shape_text(expected));
    }
  }
  if (file.tensors.size() != manifest->states.size()) {
    fail(XLSTM_INPUT_ERROR, path + ": holds more than the states of this bundle");
  }
  States states(std::move(manifest), std::move(pool), batch);
  for (size_t i = 0; i < states.offsets_.size(); ++i) {
    const Output* tensor = file.find(states.manifest_->states[i].key);
    states.pool_->memory().upload(states.address(i), tensor->data, states.bytes(i));
  }
  return states;
}

Output States::host(size_t index) const {
  const StateInfo& state = manifest_->states[index];
  Output tensor{state.key, state.dtype, shape(index), address(index), block_};
  if (!pool_->memory().is_host()) {
    auto buffer = std::make_shared<std::vector<std::byte>>(bytes(index));
    pool_->memory().download(buffer->data(), address(index), bytes(index));
    tensor.data = buffer->data();
    tensor.owner = std::move(buffer);
  }
  return tensor;
}

void States::check_row(int64_t row) const {
  if (row >= 0 && row < batch_) return;
  fail(XLSTM_INPUT_ERROR, "states: row " + std::to_string(row) + " of a batch of " +
                              std::to_string(batch_) + ", which are numbered from 0");
}

size_t States::bytes(size_t index) const {
  return static_cast<size_t>(batch_) * manifest_->states[index].row_bytes;
}

void States::place(int64_t to, const States& from, int64_t first, int64_t count) const {
  for (size_t i = 0; i < offsets_.size(); ++i) {
    const size_t stride = manifest_->states[i].row_bytes;
    pool_->memory().copy(address(i) + static_cast<size_t>(to) * stride,
                         from.address(i) + static_cast<size_t>(first) * stride,
                         static_cast<size_t>(count) * stride);
  }
}

}  // namespace xlstm::session
