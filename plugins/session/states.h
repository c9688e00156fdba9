// Every carried tensor of a batch, as a value: a session never changes states that it was given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "manifest.h"
#include "memory.h"

namespace xlstm::session {

class States {
 public:
  // Rows of undefined content, for a call to fill. Throws XLSTM_INPUT_ERROR for a batch below 1.
  States(std::shared_ptr<const Manifest> manifest, std::shared_ptr<Pool> pool, int64_t batch);

  // Before the first step.
  static States zeros(std::shared_ptr<const Manifest> manifest, std::shared_ptr<Pool> pool,
                      int64_t batch);
  // The batches of `parts`, one after another. Throws XLSTM_INPUT_ERROR where there are none, or
  // they are of several sessions.
  static States join(const std::vector<const States*>& parts);
  // Throws XLSTM_FILE_ERROR, and XLSTM_INPUT_ERROR where the file is of another bundle.
  static States load(std::shared_ptr<const Manifest> manifest, std::shared_ptr<Pool> pool,
                     const std::string& path);

  const Manifest& manifest() const { return *manifest_; }
  int64_t batch() const { return batch_; }
  size_t nbytes() const;
  // Where the state of that index lies: dense, [batch, ...].
  std::byte* address(size_t index) const { return block_.get() + offsets_[index]; }
  Shape shape(size_t index) const;

  States copy() const;
  // Those rows, in that order; one may come twice. Throws XLSTM_INPUT_ERROR.
  States rows(const std::vector<int64_t>& indices) const;
  // The same, but those rows begin again.
  States reset(const std::vector<int64_t>& indices) const;
  // A safetensors file: tensors by their keys in the manifest, the bundle's digest as metadata.
  // Complete, or not there. Throws XLSTM_FILE_ERROR.
  void save(const std::string& path) const;
  // The state of that index on the host; it lies in `owner`, which may be these states' memory.
  Output host(size_t index) const;

 private:
  void check_row(int64_t row) const;
  size_t bytes(size_t index) const;
  // `count` rows of `from`, into this from row `to` on.
  void place(int64_t to, const States& from, int64_t first, int64_t count) const;

  std::shared_ptr<const Manifest> manifest_;
  std::shared_ptr<Pool> pool_;
  int64_t batch_;
  std::vector<size_t> offsets_;
  size_t size_;
  std::shared_ptr<std::byte> block_;
};

}  // namespace xlstm::session
