// One graph of a bundle, loaded in ONNX Runtime.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../manifest.h"
#include "../states.h"
#include "runtime.h"

namespace xlstm::session::ort {

class Graph {
 public:
  // `ends` and `takes_states` are what the manifest says of it. Throws XLSTM_BUNDLE_ERROR where the
  // graph is missing or damaged, or is another than the manifest describes.
  Graph(const std::string& bundle, std::shared_ptr<const Manifest> manifest,
        const Ends& ends, bool takes_states, const Ort::Env& env,
        const Ort::SessionOptions& options);

  // As Backend::run.
  std::vector<Output> run(const std::vector<Feed>& feeds, const States* past,
                          const States& present);

 private:
  void check(const std::string& path);

  std::shared_ptr<const Manifest> manifest_;
  const Ends& ends_;
  bool takes_states_;
  Ort::MemoryInfo host_;
  Ort::Session session_{nullptr};
  std::vector<const char*> inputs_, outputs_;  // names: the ends' and then the states'
};

}  // namespace xlstm::session::ort
