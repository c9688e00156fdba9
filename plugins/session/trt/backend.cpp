#include "../backend.h"

#include <algorithm>
#include <mutex>

#include "../error.h"
#include "../file.h"
#include "../options.h"
#include "driver.h"
#include "graph.h"

namespace xlstm::session {
namespace {

constexpr int64_t kMostSteps = 512;

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

class TrtBackend : public Backend {
 public:
  TrtBackend(const std::string& bundle, std::shared_ptr<const Manifest> manifest,
             const Options& options)
      : manifest_(std::move(manifest)) {
    const std::string path = trt::find_engine(bundle, options.engine);
    const trt::EngineRecord record = trt::read_record(path);
    std::unique_ptr<trt::Gpu> gpu = trt::open_gpu(options.gpu);
    gpu_ = gpu.get();
    pool_ = std::make_shared<Pool>(std::move(gpu));
    const trt::Current current(*gpu_);
    auto begin = load(path, record, manifest_->begin, manifest_->takes_states(), options);
    std::unique_ptr<trt::Graph> other;
    const std::string more = trt::continued_engine(path);
    if (manifest_->continuation && is_file(more)) {
      other = load(more, trt::read_record(more), *manifest_->continuation, true, options);
    }
    const std::string plugins = std::to_string(record.op_types.size()) + " by " + record.library;
    description_ = begin->engine().title() + ", " + gpu_->name() + " (" +
                   gpu_->compute_capability() + "), " + manifest_->dtype + "; CUDA plugins: " +
                   plugins + " " + record.library_version;
    // not before: what fails above must free engines while the context is current
    begin_ = std::move(begin);
    continue_ = std::move(other);
  }

  ~TrtBackend() override {
    try {
      const trt::Current current(*gpu_);
      continue_.reset();
      begin_.reset();
    } catch (const std::exception&) {
      // the driver is gone, as at the end of a process
    }
  }

  std::string describe() const override { return description_; }
  const std::shared_ptr<Pool>& pool() const override { return pool_; }
  int64_t most_steps() const override { return std::min(begin_->most_steps(), kMostSteps); }
  int64_t most_rows() const override {
    const int64_t rows = begin_->most_rows();
    return continue_ ? std::min(rows, continue_->most_rows()) : rows;
  }

  std::vector<Output> run(const Ends& ends, const std::vector<Feed>& feeds, const States* past,
                          const States& present, Wanted wanted) override {
    const bool begins = &ends == &manifest_->begin;
    if (!begins && !continue_) {
      fail(XLSTM_INPUT_ERROR,
           "states: the engine begins every call; give none, or build again, for an engine of the "
           "calls that go on too");
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    const trt::Current current(*gpu_);
    return (begins ? *begin_ : *continue_).run(feeds, past, present, wanted, *gpu_, pool_);
  }

 private:
  std::unique_ptr<trt::Graph> load(const std::string& path, const trt::EngineRecord& record,
                                   const Ends& ends, bool takes_states, const Options& options) {
    check_record(path, record, *manifest_, gpu_->compute_capability());
    return std::make_unique<trt::Graph>(path, record, manifest_, ends, takes_states,
                                        options.runtime_library, options.kernel_library);
  }

  std::shared_ptr<const Manifest> manifest_;
  trt::Gpu* gpu_;  // the pool's
  std::shared_ptr<Pool> pool_;
  // of calls that begin, and where those that go on are another graph, of them: null without
  std::unique_ptr<trt::Graph> begin_, continue_;
  std::string description_;
  std::mutex mutex_;
};

}  // namespace

std::unique_ptr<Backend> open_tensorrt(const std::string& bundle,
                                       std::shared_ptr<const Manifest> manifest,
                                       const Options& options) {
  return std::make_unique<TrtBackend>(bundle, std::move(manifest), options);
}

}  // namespace xlstm::session
