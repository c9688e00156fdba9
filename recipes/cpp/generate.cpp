// Continues token ids with a bundle of a language model, greedily: ONNX Runtime's C++ API and the
// bundle's own description, xlstm_export.json.
//
//   generate FOLDER STEPS LIBRARY ID...
//
// FOLDER is the bundle. LIBRARY is libxlstm_ort.so, or "-" for the definitions in standard operators
// that the file brings along.
#define ORT_API_MANUAL_INIT  // an old ONNX Runtime is refused below, instead of crashing before main
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "json.h"

namespace {

namespace fs = std::filesystem;

constexpr int kFormatVersion = 1;
constexpr int64_t kMostSteps = 1'000'000;

struct Type {
  ONNXTensorElementDataType type;
  size_t bytes;
};

struct State {
  std::string input, output;
  Type type;
  std::vector<int64_t> shape;  // of one sequence
};

// What this program needs of xlstm_export.json.
struct Manifest {
  bool is_ragged;
  int64_t vocabulary;
  std::vector<State> states;
};

const std::string& text(const json::Value& object, const char* key) {
  return object.at(key, json::Kind::kString).string;
}

const std::vector<json::Value>& list(const json::Value& object, const char* key) {
  return object.at(key, json::Kind::kArray).items;
}

State read_state(const json::Value& entry) {
  static const std::map<std::string, Type> types = {
      {"float32", {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, 4}},
      {"float16", {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, 2}},
      {"bfloat16", {ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16, 2}},
      {"int32", {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, 4}},
      {"int64", {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, 8}},
  };
  const std::string& name = text(entry, "input");
  const auto type = types.find(text(entry, "dtype"));
  if (type == types.end()) throw std::runtime_error(name + ": dtype " + text(entry, "dtype"));
  if (text(entry, "init") != "zeros")
    throw std::runtime_error(name + ": init " + text(entry, "init"));
  State state{name, text(entry, "output"), type->second, {1}};  // the batch is one sequence
  const auto& shape = list(entry, "shape");
  for (size_t i = 1; i < shape.size(); ++i) {
    if (shape[i].number < 1) throw std::runtime_error(name + ": a size that is no number");
    state.shape.push_back(static_cast<int64_t>(shape[i].number));
  }
  return state;
}

Manifest read_manifest(const fs::path& folder) {
  const std::string path = (folder / "xlstm_export.json").string();
  std::ifstream file(path);
  if (!file)
    throw std::runtime_error(path + ": " + std::strerror(errno) +
                             "; make a bundle with: xlstm-export export");
  try {
    const std::string content{std::istreambuf_iterator<char>(file), {}};
    const json::Value root = json::Reader(content).document();
    if (root.at("format_version", json::Kind::kNumber).number > kFormatVersion)
      throw std::runtime_error("format_version is newer than this program");
    const auto &inputs = list(root, "inputs"), &outputs = list(root, "outputs");
    if (inputs.empty() || text(inputs[0], "name") != "input_ids" || outputs.empty() ||
        text(outputs[0], "name") != "logits" || text(outputs[0], "dtype") != "float32")
      throw std::runtime_error("no language model: it does not map input_ids to float32 logits");
    const auto& shape = list(outputs[0], "shape");
    if (shape.empty() || shape.back().number < 1) throw std::runtime_error("logits: no vocabulary");
    Manifest manifest{root.at("ragged", json::Kind::kBoolean).boolean,
                      static_cast<int64_t>(shape.back().number),
                      {}};
    for (const json::Value& entry : list(root, "states"))
      manifest.states.push_back(read_state(entry));
    return manifest;
  } catch (const std::exception& error) {
    throw std::runtime_error(path + ": " + error.what());
  }
}

Ort::SessionOptions session_options(const std::string& library) {
  Ort::SessionOptions options;
  if (library == "-") return options;
  if (!fs::exists(library))
    throw std::runtime_error(library + ": no such library; - does without one");
  // a name without a folder would be looked for in the system's folders
  options.RegisterCustomOpsLibrary(fs::absolute(library).c_str());
  return options;
}

// One sequence, and the states after what has been read of it.
class Sequence {
 public:
  Sequence(const Ort::Env& env, const fs::path& folder, const std::string& library,
           const Manifest& manifest)
      : session_(env, (folder / "model.onnx").c_str(), session_options(library)),
        inputs_{"input_ids"},
        outputs_{"logits"},
        is_ragged_(manifest.is_ragged) {
    if (is_ragged_) inputs_.push_back("sequence_lengths");
    for (const State& state : manifest.states) {
      inputs_.push_back(state.input);
      outputs_.push_back(state.output);
      states_.push_back(zeros(state));
    }
  }

  // Reads `ids` and returns the likeliest id after them.
  int64_t next(std::vector<int64_t> ids) {
    const int64_t shape[] = {1, static_cast<int64_t>(ids.size())};
    int32_t length = static_cast<int32_t>(ids.size());
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::vector<Ort::Value> values;
    values.push_back(Ort::Value::CreateTensor(memory, ids.data(), ids.size(), shape, 2));
    if (is_ragged_) values.push_back(Ort::Value::CreateTensor(memory, &length, 1, shape, 1));
    for (Ort::Value& state : states_) values.push_back(std::move(state));
    const auto inputs = pointers(inputs_), outputs = pointers(outputs_);
    auto results = session_.Run(Ort::RunOptions{}, inputs.data(), values.data(), values.size(),
                                outputs.data(), outputs.size());
    const auto size = results[0].GetTensorTypeAndShapeInfo().GetShape();  // [1, steps, vocabulary]
    const float* last = results[0].GetTensorData<float>() + (size[1] - 1) * size[2];
    std::move(results.begin() + 1, results.end(), states_.begin());
    return std::max_element(last, last + size[2]) - last;
  }

 private:
  static Ort::Value zeros(const State& state) {
    Ort::AllocatorWithDefaultOptions allocator;
    auto value = Ort::Value::CreateTensor(allocator, state.shape.data(), state.shape.size(),
                                          state.type.type);
    const size_t elements = value.GetTensorTypeAndShapeInfo().GetElementCount();
    std::memset(value.GetTensorMutableRawData(), 0, elements * state.type.bytes);
    return value;
  }

  static std::vector<const char*> pointers(const std::vector<std::string>& names) {
    std::vector<const char*> result;
    for (const std::string& name : names) result.push_back(name.c_str());
    return result;
  }

  Ort::Session session_;
  std::vector<std::string> inputs_, outputs_;
  bool is_ragged_;
  std::vector<Ort::Value> states_;
};

// A whole number from `least` to `most`; `what` is its name where it is none.
int64_t number(const std::string& what, const std::string& word, int64_t least, int64_t most) {
  char* end = nullptr;
  errno = 0;
  const long long result = std::strtoll(word.c_str(), &end, 10);
  if (word.empty() || *end != '\0' || errno != 0 || result < least || result > most)
    throw std::runtime_error(what + " \"" + word + "\": expected a whole number from " +
                             std::to_string(least) + " to " + std::to_string(most));
  return result;
}

void generate(const std::string& folder, const std::string& steps_word, const std::string& library,
              const std::vector<std::string>& words) {
  const OrtApiBase* runtime = OrtGetApiBase();
  const OrtApi* api = runtime->GetApi(ORT_API_VERSION);
  if (api == nullptr)
    throw std::runtime_error(std::string("ONNX Runtime ") + runtime->GetVersionString() +
                             " is older than the headers this program was compiled with");
  Ort::InitApi(api);
  const Manifest manifest = read_manifest(folder);
  const int64_t steps = number("STEPS", steps_word, 1, kMostSteps);
  std::vector<int64_t> ids;
  for (const std::string& word : words)
    ids.push_back(number("ID", word, 0, manifest.vocabulary - 1));
  const Ort::Env env(ORT_LOGGING_LEVEL_FATAL, "generate");  // what is thrown says it
  Sequence sequence(env, folder, library, manifest);
  int64_t token = sequence.next(ids);
  for (int64_t step = 1; step <= steps; ++step) {
    std::cout << token << (step < steps ? ' ' : '\n') << std::flush;
    if (step < steps) token = sequence.next({token});
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::cerr << "usage: generate FOLDER STEPS LIBRARY|- ID...\n";
    return 2;
  }
  try {
    generate(argv[1], argv[2], argv[3], {argv + 4, argv + argc});
  } catch (const std::exception& error) {
    std::string line = error.what();
    std::replace(line.begin(), line.end(), '\n', ' ');
    std::cerr << "error: " << line << '\n';
    return 1;
  }
}
