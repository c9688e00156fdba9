// One graph of a bundle as an engine, and what the manifest says of it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../backend.h"
#include "driver.h"
#include "engine.h"

namespace xlstm::session::trt {

using Shapes = std::map<std::string, Shape>;

class Graph {
 public:
  // `ends` and `takes_states` are what the manifest says of it. Throws XLSTM_ENGINE_ERROR where the
  // engine is another than the manifest describes, and what Engine does.
  Graph(const std::string& path, const EngineRecord& record,
        std::shared_ptr<const Manifest> manifest, const Ends& ends, bool takes_states,
        const char* library, const char* kernel_library);

  const Engine& engine() const { return engine_; }
  // Rows and steps a call at most; 1 step where inputs have no time.
  int64_t most_rows() const;
  int64_t most_steps() const;

  // As Backend::run, on `gpu`, with memory of `pool`.
  std::vector<Output> run(const std::vector<Feed>& feeds, const States* past,
                          const States& present, Wanted wanted, Gpu& gpu,
                          const std::shared_ptr<Pool>& pool);

 private:
  void check_tensors(const std::string& path, bool takes_states) const;
  void check_states(size_t profile, const States& present);
  size_t choose_profile(const Shapes& shapes) const;
  // The first input's largest size along `axis` in any profile.
  int64_t largest(size_t axis) const;

  std::shared_ptr<const Manifest> manifest_;
  const Ends& ends_;
  Engine engine_;
};

}  // namespace xlstm::session::trt
