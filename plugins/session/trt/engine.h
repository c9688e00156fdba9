// An engine in TensorRT or TensorRT-RTX, whose library is loaded when it is opened.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../library.h"
#include "../tensor.h"
#include "logger.h"
#include "places.h"
#include "record.h"

namespace xlstm::session::trt {

struct EngineTensor {
  const DType* dtype;  // null where a bundle has none like it
  bool is_input;
};

struct ShapeRange {
  Shape min, max;
};
// A range for every input, by name.
using Profile = std::map<std::string, ShapeRange>;

// One execution context a profile, so that none is switched. For one thread at a time.
class Engine {
 public:
  // `library` and `kernel_library` are as in xlstm_session_options. An engine runs the plugin code
  // that it carries: open only those that you trust. Throws XLSTM_BACKEND_ERROR and
  // XLSTM_ENGINE_ERROR.
  Engine(const std::string& path, const EngineRecord& record, const char* library,
         const char* kernel_library);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // "TensorRT 10.14.1"
  const std::string& title() const { return title_; }
  const std::map<std::string, EngineTensor>& tensors() const { return tensors_; }
  const std::vector<Profile>& profiles() const { return profiles_; }

  // Set the inputs' shapes in `profile`; the next `enqueue` there is for them.
  void set_shapes(size_t profile, const std::map<std::string, Shape>& inputs, void* stream);
  // Of an output, for the shapes that were set.
  Shape output_shape(size_t profile, const std::string& name);
  // Queue one call on `stream`: an address for each tensor.
  void enqueue(size_t profile, const std::map<std::string, void*>& addresses, void* stream);

 private:
  void load_plugins(const EngineRecord& record, const char* kernel_library);
  void deserialize(const EngineRecord& record);
  void read_tensors();
  void* context(size_t profile, void* stream);
  void demand(bool is_done, const std::string& what);

  std::string path_;
  std::string title_;
  const Places* places_ = nullptr;
  Log log_;
  PlainLogger plain_logger_{&log_};
  VersionedLogger versioned_logger_{&log_};
  void* runtime_ = nullptr;
  void* engine_ = nullptr;
  std::vector<void*> contexts_;
  std::map<std::string, EngineTensor> tensors_;
  std::vector<Profile> profiles_;
};

}  // namespace xlstm::session::trt
