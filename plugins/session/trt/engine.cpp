#include "engine.h"

#include <algorithm>
#include <memory>

#include "../error.h"
#include "../file.h"

namespace xlstm::session::trt {
namespace {

constexpr uintptr_t kLeastAddress = 4096;
constexpr char kPlugins[] = "libxlstm_trt.so";
constexpr char kCreate[] = "createInferRuntime_INTERNAL";

// A runtime by the name that engine records have for it.
struct Kind {
  const char* backend;
  const char* title;
  std::vector<std::string> libraries;
  bool is_rtx;
};

const Kind& kind_of(const std::string& backend) {
  static const Kind kinds[] = {
      {"tensorrt", "TensorRT", {"libnvinfer.so.11", "libnvinfer.so.10"}, false},
      {"tensorrt_rtx", "TensorRT-RTX", {"libtensorrt_rtx.so.1", "libtensorrt_rtx.so"}, true}};
  for (const Kind& kind : kinds) {
    if (backend == kind.backend) return kind;
  }
  fail(XLSTM_ENGINE_ERROR, "an engine of backend '" + backend +
                               "': this version knows tensorrt and tensorrt_rtx");
}

std::string version_text(int32_t version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

// 0 where the library has none.
int32_t version_of(const Library& library) {
  const auto version = library.function<int32_t (*)()>("getInferLibVersion");
  return version == nullptr ? 0 : version();
}

// Both kinds have functions of the same names. TensorRT-RTX counts its versions from 1.
bool is_of(const Kind& kind, int32_t version) { return (version / 10000 == 1) == kind.is_rtx; }

Library load_library(const Kind& kind, const char* given, const std::string& cure) {
  if (given != nullptr) return Library(given, cure);
  const auto fits = [&kind](const Library& library) { return is_of(kind, version_of(library)); };
  return Library::find(kCreate, kind.libraries, cure, fits);
}

const DType* dtype_of(int32_t type) {
  switch (static_cast<Type>(type)) {
    case Type::kFloat: return find_dtype(XLSTM_FLOAT32);
    case Type::kHalf: return find_dtype(XLSTM_FLOAT16);
    case Type::kBfloat16: return find_dtype(XLSTM_BFLOAT16);
    case Type::kInt32: return find_dtype(XLSTM_INT32);
    case Type::kInt64: return find_dtype(XLSTM_INT64);
  }
  return nullptr;
}

Shape shape_of(const Dims& dims) {
  const int32_t count = std::clamp(dims.count, int32_t{0}, Dims::kMost);
  return {dims.sizes, dims.sizes + count};
}

}  // namespace

Engine::Engine(const std::string& path, const EngineRecord& record,
               const char* library, const char* kernel_library)
    : path_(path) {
  const Kind& kind = kind_of(record.backend);
  const std::string cure = std::string("name the library of ") + kind.title +
                           ", or put its folder on LD_LIBRARY_PATH";
  const Library loaded = load_library(kind, library, cure);
  const int32_t version = version_of(loaded);
  const auto create = loaded.function<void* (*)(void*, int32_t)>(kCreate);
  if (version == 0 || create == nullptr || !is_of(kind, version)) {
    const std::string found = version == 0 ? "" : ", by its version " + version_text(version);
    fail(XLSTM_BACKEND_ERROR, loaded.path() + ": is no " + kind.title + found + "; " + cure);
  }
  title_ = std::string(kind.title) + " " + version_text(version);
  places_ = places_of(version);
  if (places_ == nullptr) {
    fail(XLSTM_BACKEND_ERROR, loaded.path() + ": " + title_ + " is not known to this version; " +
                                  "TensorRT 10.10 to 11 or TensorRT-RTX 1.7 is needed");
  }
  void* logger = &plain_logger_;
  if (places_->is_versioned_logger) logger = &versioned_logger_;
  runtime_ = create(logger, version);
  // TensorRT 11.4 returns a null that was moved by the offset of a base class
  if (reinterpret_cast<uintptr_t>(runtime_) < kLeastAddress) {
    fail(XLSTM_BACKEND_ERROR, loaded.path() + ": " + title_ + " does not start" + log_.taken());
  }
  try {
    load_plugins(record, kernel_library);
    deserialize(record);
    read_tensors();
  } catch (...) {
    destroy(engine_);
    destroy(runtime_);
    throw;
  }
}

Engine::~Engine() {
  for (void* context : contexts_) destroy(context);
  destroy(engine_);
  destroy(runtime_);  // it must outlive the engine
}

// Register the plugins of an engine that does not carry them, for this runtime alone: the registry
// of the process would refuse them for a second engine.
void Engine::load_plugins(const EngineRecord& record, const char* kernel_library) {
  if (record.is_embedded || record.op_types.empty()) return;
  const auto library = own_library(kernel_library, kPlugins);
  if (!library) {
    fail(XLSTM_BACKEND_ERROR, "this engine needs the plugin library " + record.library +
                                  ", which is not here: put it beside libxlstm_session.so, or "
                                  "name it; an engine built by this version carries it");
  }
  if (record.library_version != XLSTM_VERSION) {
    fail(XLSTM_BACKEND_ERROR, library->path() + ": version " XLSTM_VERSION
                                  ", and the engine was built with " +
                                  record.library_version + ": build again");
  }
  void* registry = call_at<void*>(places_->plugin_registry, implementation(runtime_));
  const char* path = library->path().c_str();
  if (call_at<void*>(places_->load_library, registry, path) != nullptr) return;
  fail(XLSTM_BACKEND_ERROR, library->path() + ": " + title_ + " refused it" + log_.taken());
}

void Engine::deserialize(const EngineRecord& record) {
  void* runtime = implementation(runtime_);
  call_at<void>(places_->allow_host_code, runtime, record.is_embedded);
  const std::string content = read_file(path_);
  engine_ = call_at<void*>(places_->deserialize, runtime,
                           static_cast<const void*>(content.data()), content.size());
  if (engine_ != nullptr) return;
  const std::string found = title_.substr(title_.rfind(' ') + 1);
  const std::string& built = record.builder_version;
  const bool is_other = built.substr(0, found.size()) != found;
  const std::string cure = is_other ? "; " + built + " built it: build again, or use that version"
                                    : "; copy it again, or build again";
  fail(XLSTM_ENGINE_ERROR,
       path_ + ": " + title_ + " cannot load it" + cure + log_.taken());
}

void Engine::read_tensors() {
  void* engine = implementation(engine_);
  const int32_t count = call_at<int32_t>(places_->tensor_count, engine);
  for (int32_t i = 0; i < count; ++i) {
    const char* name = call_at<const char*>(places_->tensor_name, engine, i);
    if (call_at<Location>(places_->tensor_location, engine, name) != Location::kDevice) {
      fail(XLSTM_ENGINE_ERROR, path_ + ": " + name + " is on the host; build again");
    }
    const int32_t type = call_at<int32_t>(places_->tensor_type, engine, name);
    const Mode mode = call_at<Mode>(places_->tensor_mode, engine, name);
    tensors_[name] = {dtype_of(type), mode == Mode::kInput};
  }
  profiles_.resize(static_cast<size_t>(call_at<int32_t>(places_->profile_count, engine)));
  contexts_.resize(profiles_.size(), nullptr);
  for (size_t profile = 0; profile < profiles_.size(); ++profile) {
    const auto index = static_cast<int32_t>(profile);
    for (const auto& [name, tensor] : tensors_) {
      if (!tensor.is_input) continue;
      const auto end = [&, text = name.c_str()](Select which) {
        return shape_of(call_at<Dims>(places_->profile_shape, engine, text, index, which));
      };
      profiles_[profile][name] = {end(Select::kMin), end(Select::kMax)};
    }
  }
}

void Engine::set_shapes(size_t profile, const std::map<std::string, Shape>& inputs, void* stream) {
  void* chosen = implementation(context(profile, stream));
  for (const auto& [name, shape] : inputs) {
    Dims dims{static_cast<int32_t>(shape.size()), {}};
    std::copy_n(shape.begin(), std::min(shape.size(), size_t{Dims::kMost}), dims.sizes);
    demand(call_at<bool>(places_->set_input_shape, chosen, name.c_str(),
                         static_cast<const Dims*>(&dims)),
           "input " + name + " " + shape_text(shape));
  }
}

Shape Engine::output_shape(size_t profile, const std::string& name) {
  void* chosen = implementation(contexts_.at(profile));
  const Shape shape = shape_of(call_at<Dims>(places_->tensor_shape, chosen, name.c_str()));
  const auto is_unknown = [](int64_t size) { return size < 0; };
  demand(!shape.empty() && std::none_of(shape.begin(), shape.end(), is_unknown),
         "the shape of " + name);
  return shape;
}

void Engine::enqueue(size_t profile, const std::map<std::string, void*>& addresses, void* stream) {
  void* chosen = implementation(contexts_.at(profile));
  for (const auto& [name, address] : addresses) {
    demand(call_at<bool>(places_->set_address, chosen, name.c_str(), address),
           "the address of " + name);
  }
  demand(call_at<bool>(places_->enqueue, chosen, stream), "the call");
}

// Its context, made on first use.
void* Engine::context(size_t profile, void* stream) {
  void*& kept = contexts_.at(profile);
  if (kept != nullptr) return kept;
  // the default strategy reserves for the largest profile in every context
  std::unique_ptr<void, void (*)(void*)> made(
      call_at<void*>(places_->create_context, implementation(engine_), kOnProfileChange), destroy);
  demand(made != nullptr, "an execution context (is the GPU's memory full?)");
  demand(call_at<bool>(places_->set_profile, implementation(made.get()),
                       static_cast<int32_t>(profile), stream),
         "profile " + std::to_string(profile));
  return kept = made.release();
}

void Engine::demand(bool is_done, const std::string& what) {
  if (is_done) return;
  fail(XLSTM_ENGINE_ERROR, path_ + ": " + title_ + " refused " + what + log_.taken());
}

}  // namespace xlstm::session::trt
