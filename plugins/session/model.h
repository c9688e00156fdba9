// A bundle that is open: its manifest, and who computes it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend.h"
#include "options.h"

namespace xlstm::session {

struct Step {
  std::vector<Output> outputs;
  States states;  // those to go on from
};

class Model {
 public:
  Model(const std::string& bundle, const Options& options);

  const Manifest& manifest() const { return *manifest_; }
  const std::string& description() const { return description_; }
  const std::vector<int64_t>& stop_ids() const { return stop_ids_; }
  int64_t most_rows() const { return backend_->most_rows(); }
  int64_t most_steps() const { return backend_->most_steps(); }
  // Inputs, outputs or states as they are described, a free size as -1, without data.
  const std::vector<Output>& ends(xlstm_ends which) const;

  States zeros(int64_t batch) const { return States::zeros(manifest_, backend_->pool(), batch); }
  States load(const std::string& path) const {
    return States::load(manifest_, backend_->pool(), path);
  }
  // Continue from `past` (null: from the beginning), which is not changed. Throws what does not
  // fit as XLSTM_INPUT_ERROR.
  Step run(const std::vector<Feed>& given, const States* past, Wanted wanted = Wanted::kAll);

 private:
  std::shared_ptr<const Manifest> manifest_;
  std::unique_ptr<Backend> backend_;
  std::string description_;
  std::vector<int64_t> stop_ids_;
  std::vector<Output> inputs_, outputs_, states_;
};

}  // namespace xlstm::session
