#include "runtime.h"

#include <charconv>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "../error.h"
#include "../library.h"

namespace xlstm::session::ort {
namespace {

constexpr uint32_t kApi = 20;  // the oldest ONNX Runtime whose tables have all that is called here
constexpr size_t kMostWords = 160;
const char* const kCure =
    "name the library of ONNX Runtime (libonnxruntime.so.1, of a release or of Python's package), "
    "or put its folder on LD_LIBRARY_PATH";

struct Runtime {
  std::string path;
  std::string version;
  Ort::Env env{nullptr};
};

Runtime* load(const char* path) {
  // it would write an identifier of the device to the user's cache; a value that is set stays
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);
  const Library library =
      path != nullptr
          ? Library(path, kCure)
          : Library::find("OrtGetApiBase", {"libonnxruntime.so.1", "libonnxruntime.so"}, kCure);
  const auto base_of = library.function<const OrtApiBase* (*)()>("OrtGetApiBase");
  if (base_of == nullptr) {
    fail(XLSTM_BACKEND_ERROR, library.path() + ": is no ONNX Runtime; " + kCure);
  }
  const OrtApiBase* base = base_of();
  const OrtApi* api = base->GetApi(kApi);
  if (api == nullptr) {
    fail(XLSTM_BACKEND_ERROR, library.path() + ": ONNX Runtime " + base->GetVersionString() +
                                  " is too old; 1.20 or later is needed");
  }
  Ort::InitApi(api);
  // what is thrown says it
  Ort::Env env(ORT_LOGGING_LEVEL_FATAL, "xlstm");
  return new Runtime{path == nullptr ? "" : path, base->GetVersionString(), std::move(env)};
}

// It lives to the end of the process: sessions and values may outlive every other static object.
Runtime* loaded = nullptr;
std::mutex mutex;

}  // namespace

const Ort::Env& load_runtime(const char* path) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (loaded == nullptr) loaded = load(path);
  if (path != nullptr && loaded->path != path) {
    fail(XLSTM_BACKEND_ERROR, std::string(path) + ": this process already has another ONNX " +
                                  "Runtime (" + loaded->version + "); name the same one each time");
  }
  return loaded->env;
}

std::string runtime_version() { return loaded->version; }

bool runtime_is_before(int major, int minor) {
  const std::string& text = loaded->version;
  const char* end = text.data() + text.size();
  int own_major = 0, own_minor = 0;
  const char* dot = std::from_chars(text.data(), end, own_major).ptr;
  if (dot != end) std::from_chars(dot + 1, end, own_minor);
  return std::pair(own_major, own_minor) < std::pair(major, minor);
}

ONNXTensorElementDataType element_type(const DType& dtype) {
  switch (dtype.code) {
    case XLSTM_FLOAT32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    case XLSTM_FLOAT16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    case XLSTM_BFLOAT16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
    case XLSTM_INT32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
    case XLSTM_INT64: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  }
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

std::string last_words(const std::exception& error) {
  std::string line = error.what();
  line.resize(std::min(line.size(), line.find('\n')));
  if (line.size() > kMostWords) line = "... " + line.substr(line.size() - kMostWords);
  return line;
}

}  // namespace xlstm::session::ort
