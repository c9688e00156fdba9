#include <sched.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <optional>

#include "../error.h"
#include "../library.h"
#include "../options.h"
#include "graph.h"
#include "xlstm/threads.h"

namespace xlstm::session {
namespace {

constexpr int64_t kMostSteps = 512;  // memory does not grow with the prompt
constexpr char kWideKey[] = "session.disable_quant_qdq";
constexpr char kLibrary[] = "libxlstm_ort.so";

// Whether this ONNX Runtime would dequantise matrices in every call, some of which take longer than
// all the others wide: as xlstm_export/runtime/widening.py has it.
bool is_slower_in_blocks(const Manifest& manifest) {
  const std::optional<LowBit>& low_bit = manifest.low_bit;
  if (!low_bit || low_bit->matmul_nbits || !ort::runtime_is_before(1, 31)) return false;
  return low_bit->bits == 8 || low_bit->has_eight || manifest.dtype != "float32";
}

int usable_processors() {
  cpu_set_t set;
  const int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  return std::clamp(count, 1, kMostThreads);
}

class OrtBackend : public Backend {
 public:
  OrtBackend(const std::string& bundle, std::shared_ptr<const Manifest> manifest,
             const Options& options)
      : bundle_(bundle),
        manifest_(std::move(manifest)),
        env_(ort::load_runtime(options.runtime_library)),
        pool_(std::make_shared<Pool>(host_memory())) {
    configure(options);
    begin_ = load(manifest_->begin, manifest_->takes_states());
  }

  std::string describe() const override {
    return "ONNX Runtime " + ort::runtime_version() + ", CPU, " + manifest_->dtype + "; " +
           operators_;
  }
  const std::shared_ptr<Pool>& pool() const override { return pool_; }
  int64_t most_steps() const override { return kMostSteps; }
  int64_t most_rows() const override { return std::numeric_limits<int64_t>::max(); }

  std::vector<Output> run(const Ends& ends, const std::vector<Feed>& feeds, const States* past,
                          const States& present, Wanted) override {
    ort::Graph& graph = &ends == &manifest_->begin ? *begin_ : continued();
    return graph.run(feeds, past, present);
  }

 private:
  void configure(const Options& options) {
    const int threads = options.threads == 0 ? usable_processors() : options.threads;
    options_.SetIntraOpNumThreads(threads);
    options_.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
    // a second call of one shape would get a buffer for the whole pattern beside the arena's
    options_.DisableMemPattern();
    // low-bit matrices are made wide once, as the file is loaded
    if (is_slower_in_blocks(*manifest_)) options_.AddConfigEntry(kWideKey, "1");
    const auto library = own_library(options.kernel_library, kLibrary);
    operators_ = "function bodies of standard operators";
    if (!library) return;
    options_.AddConfigEntry(kThreadsKey, std::to_string(threads).c_str());
    const char* isa = "";
    const auto isa_of = library->function<int32_t (*)(const char**)>("xlstm_cpu_isa");
    if (isa_of == nullptr || isa_of(&isa) != 0) {
      fail(XLSTM_BACKEND_ERROR,
           library->path() + ": XLSTM_CPU_ISA is not an instruction set of both this processor "
                             "and the library; unset it, or name portable, neon, avx2 or avx512");
    }
    try {
      options_.RegisterCustomOpsLibrary(library->path().c_str());
    } catch (const Ort::Exception& error) {
      fail(XLSTM_BACKEND_ERROR, library->path() + ": ONNX Runtime " + ort::runtime_version() +
                                    " does not take it (" + ort::last_words(error) + ")");
    }
    operators_ = std::string("native CPU kernels (") + isa + "), libxlstm_ort " XLSTM_VERSION;
  }

  std::unique_ptr<ort::Graph> load(const Ends& ends, bool takes_states) {
    return std::make_unique<ort::Graph>(bundle_, manifest_, ends, takes_states, env_, options_);
  }

  // Loaded by the first call that goes on.
  ort::Graph& continued() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!continue_) continue_ = load(manifest_->continued(), true);
    return *continue_;
  }

  std::string bundle_;
  std::shared_ptr<const Manifest> manifest_;
  const Ort::Env& env_;
  std::shared_ptr<Pool> pool_;
  Ort::SessionOptions options_;
  std::string operators_;
  std::unique_ptr<ort::Graph> begin_, continue_;
  std::mutex mutex_;
};

}  // namespace

std::unique_ptr<Backend> open_onnxruntime(const std::string& bundle,
                                          std::shared_ptr<const Manifest> manifest,
                                          const Options& options) {
  const auto& where = manifest->runs_on;
  if (std::find(where.begin(), where.end(), "onnxruntime-cpu") == where.end()) {
    fail(XLSTM_BACKEND_ERROR, bundle + ": a " + manifest->dtype +
                                  " bundle does not run on ONNX Runtime's CPU provider; export "
                                  "with --dtype fp32 or fp16, or run an engine");
  }
  return std::make_unique<OrtBackend>(bundle, std::move(manifest), options);
}

}  // namespace xlstm::session
