// Continues token ids with a bundle of a language model, greedily: ONNX Runtime's C++ API alone.
//
//   generate FOLDER STEPS LIBRARY ID...
//
// FOLDER holds model.onnx and model.onnx.data. LIBRARY is libxlstm_ort.so, or "-" for the
// definitions in standard operators that the file brings along.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

namespace {

// The states of one sequence: outputs present.* of a call are the inputs past.* of the next.
class Model {
 public:
  Model(const Ort::Env& env, const std::string& folder, const std::string& library)
      : session_(env, (folder + "/model.onnx").c_str(), options(library)) {
    Ort::AllocatorWithDefaultOptions allocator;
    for (size_t i = 0; i < session_.GetInputCount(); ++i) {
      inputs_.push_back(session_.GetInputNameAllocated(i, allocator).get());
      if (i > 0) states_.push_back(zeros(i));  // input 0 is input_ids
    }
    for (const std::string& input : inputs_) {
      const bool is_state = input.rfind("past.", 0) == 0;
      outputs_.push_back(is_state ? "present." + input.substr(5) : "logits");
    }
  }

  // Reads `ids` and returns the likeliest token after them.
  int64_t next(std::vector<int64_t> ids) {
    const int64_t shape[] = {1, static_cast<int64_t>(ids.size())};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::vector<Ort::Value> values;
    values.push_back(Ort::Value::CreateTensor(memory, ids.data(), ids.size(), shape, 2));
    for (Ort::Value& state : states_) values.push_back(std::move(state));
    const auto inputs = pointers(inputs_), outputs = pointers(outputs_);
    auto results = session_.Run(Ort::RunOptions{}, inputs.data(), values.data(), values.size(),
                                outputs.data(), outputs.size());
    const auto size = results[0].GetTensorTypeAndShapeInfo().GetShape();  // [1, steps, vocabulary]
    const float* last = results[0].GetTensorData<float>() + (size[1] - 1) * size[2];
    const int64_t best = std::max_element(last, last + size[2]) - last;
    for (size_t i = 0; i < states_.size(); ++i) states_[i] = std::move(results[i + 1]);
    return best;
  }

 private:
  static Ort::SessionOptions options(const std::string& library) {
    Ort::SessionOptions options;
    if (library != "-") options.RegisterCustomOpsLibrary(library.c_str());
    return options;
  }

  // The state before any token; its first dimension is the batch. States are float32.
  Ort::Value zeros(size_t input) const {
    const Ort::TypeInfo type = session_.GetInputTypeInfo(input);
    auto shape = type.GetTensorTypeAndShapeInfo().GetShape();
    shape[0] = 1;
    Ort::AllocatorWithDefaultOptions allocator;
    auto value = Ort::Value::CreateTensor<float>(allocator, shape.data(), shape.size());
    std::fill_n(value.GetTensorMutableData<float>(),
                value.GetTensorTypeAndShapeInfo().GetElementCount(), 0.0f);
    return value;
  }

  static std::vector<const char*> pointers(const std::vector<std::string>& names) {
    std::vector<const char*> result;
    for (const std::string& name : names) result.push_back(name.c_str());
    return result;
  }

  Ort::Session session_;
  std::vector<std::string> inputs_, outputs_;
  std::vector<Ort::Value> states_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::cerr << "usage: generate FOLDER STEPS LIBRARY|- ID...\n";
    return 2;
  }
  try {
    const Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "generate");
    Model model(env, argv[1], argv[3]);
    std::vector<int64_t> ids;
    for (int i = 4; i < argc; ++i) ids.push_back(std::atoll(argv[i]));
    int64_t token = model.next(ids);
    for (int step = 1, steps = std::atoi(argv[2]); step <= steps; ++step) {
      std::cout << token << (step < steps ? ' ' : '\n') << std::flush;
      if (step < steps) token = model.next({token});
    }
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
}
