#include "graph.h"

#include <map>

#include "../error.h"
#include "../file.h"

namespace xlstm::session::ort {
namespace {

struct Expected {
  const DType* dtype;
  std::vector<int64_t> shape;  // -1 where it is free
};
using Tensors = std::map<std::string, Expected>;

void add(const std::vector<TensorInfo>& tensors, Tensors* expected) {
  for (const TensorInfo& tensor : tensors) {
    Expected& one = (*expected)[tensor.name] = {tensor.dtype, {}};
    for (const Dim& dim : tensor.shape) one.shape.push_back(dim.size);
  }
}

void add(const StateInfo& state, const std::string& name, Tensors* expected) {
  Expected& one = (*expected)[name] = {state.dtype, {-1}};
  one.shape.insert(one.shape.end(), state.row.begin(), state.row.end());
}

// Equal sizes, where both are known.
bool agree(const Expected& expected, const Ort::ConstTensorTypeAndShapeInfo& found) {
  const std::vector<int64_t> shape = found.GetShape();
  if (found.GetElementType() != element_type(*expected.dtype)) return false;
  if (shape.size() != expected.shape.size()) return false;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] >= 0 && expected.shape[i] >= 0 && shape[i] != expected.shape[i]) return false;
  }
  return true;
}

// What is wrong with the data file by its size; "" where it has the right one.
std::string wrong_data(const std::string& bundle, const Manifest& manifest) {
  const std::string path = join(bundle, kDataFile);
  const int64_t found = file_size(path);
  if (manifest.data_bytes == 0 || found == manifest.data_bytes) return "";
  const std::string state = found < 0 ? "missing"
                                      : "has " + std::to_string(found) + " of " +
                                            std::to_string(manifest.data_bytes) + " bytes";
  return path + ": " + state +
         "; a bundle is its whole folder: copy it again, or export again";
}

Ort::Value tensor_of(const Ort::MemoryInfo& host, const DType& dtype, const Shape& shape,
                     const void* data) {
  return Ort::Value::CreateTensor(host, const_cast<void*>(data),
                                  static_cast<size_t>(elements(shape)) * dtype.bytes, shape.data(),
                                  shape.size(), element_type(dtype));
}

}  // namespace

Graph::Graph(const std::string& bundle, std::shared_ptr<const Manifest> manifest, const Ends& ends,
             bool takes_states, const Ort::Env& env, const Ort::SessionOptions& options)
    : manifest_(std::move(manifest)),
      ends_(ends),
      takes_states_(takes_states),
      host_(Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault)) {
  const std::string path = join(bundle, ends.file);
  if (!is_file(path)) fail(XLSTM_BUNDLE_ERROR, path + ": missing; export again");
  const std::string wrong = wrong_data(bundle, *manifest_);
  if (!wrong.empty()) fail(XLSTM_BUNDLE_ERROR, wrong);
  try {
    session_ = Ort::Session(env, path.c_str(), options);
  } catch (const Ort::Exception& error) {
    fail(XLSTM_BUNDLE_ERROR, path + ": ONNX Runtime cannot load it; export again (" +
                                 last_words(error) + ")");
  }
  check(path);
  for (const TensorInfo& tensor : ends.inputs) inputs_.push_back(tensor.name.c_str());
  for (const TensorInfo& tensor : ends.outputs) outputs_.push_back(tensor.name.c_str());
  for (const StateInfo& state : manifest_->states) {
    if (takes_states) inputs_.push_back(state.input.c_str());
    outputs_.push_back(state.output.c_str());
  }
}

// Names, types and sizes of the graph's tensors are the manifest's.
void Graph::check(const std::string& path) {
  Tensors expected;
  add(ends_.inputs, &expected);
  add(ends_.outputs, &expected);
  for (const StateInfo& state : manifest_->states) {
    if (takes_states_) add(state, state.input, &expected);
    add(state, state.output, &expected);
  }
  std::string wrong;
  Ort::AllocatorWithDefaultOptions allocator;
  const auto take = [&](const std::string& name, const Ort::TypeInfo& info) {
    const auto found = expected.find(name);
    const bool is_tensor = info.GetONNXType() == ONNX_TYPE_TENSOR;
    if (found == expected.end() || !is_tensor ||
        !agree(found->second, info.GetTensorTypeAndShapeInfo())) {
      wrong = name;
    }
    if (found != expected.end()) expected.erase(found);
  };
  for (size_t i = 0; i < session_.GetInputCount(); ++i) {
    take(session_.GetInputNameAllocated(i, allocator).get(), session_.GetInputTypeInfo(i));
  }
  for (size_t i = 0; i < session_.GetOutputCount(); ++i) {
    take(session_.GetOutputNameAllocated(i, allocator).get(), session_.GetOutputTypeInfo(i));
  }
  if (wrong.empty() && !expected.empty()) wrong = expected.begin()->first;
  if (wrong.empty()) return;
  fail(XLSTM_BUNDLE_ERROR, path + ": " + wrong +
                               " does not belong to the manifest beside it; export again");
}

std::vector<Output> Graph::run(const std::vector<Feed>& feeds, const States* past,
                               const States& present) {
  std::vector<Ort::Value> given, made;
  given.reserve(inputs_.size());
  made.reserve(outputs_.size());
  for (const Feed& feed : feeds) {
    given.push_back(tensor_of(host_, *feed.dtype, feed.shape, feed.data));
  }
  for (size_t i = 0; i < ends_.outputs.size(); ++i) made.emplace_back(nullptr);  // ONNX Runtime's
  for (size_t i = 0; i < manifest_->states.size(); ++i) {
    const DType& dtype = *manifest_->states[i].dtype;
    const Shape shape = present.shape(i);
    if (past != nullptr) given.push_back(tensor_of(host_, dtype, shape, past->address(i)));
    made.push_back(tensor_of(host_, dtype, shape, present.address(i)));
  }
  try {
    session_.Run(Ort::RunOptions{nullptr}, inputs_.data(), given.data(), given.size(),
                 outputs_.data(), made.data(), made.size());
  } catch (const Ort::Exception& error) {
    const std::string said = error.what();
    if (said.find("indices element out of data bounds") != std::string::npos) {
      fail(XLSTM_INPUT_ERROR, ends_.inputs[0].name + ": a token id is outside the vocabulary");
    }
    fail(XLSTM_INTERNAL_ERROR, "ONNX Runtime: " + last_words(error));
  }
  std::vector<Output> outputs;
  for (size_t i = 0; i < ends_.outputs.size(); ++i) {
    auto value = std::make_shared<Ort::Value>(std::move(made[i]));
    const TensorInfo& tensor = ends_.outputs[i];
    outputs.push_back({tensor.name, tensor.dtype, value->GetTensorTypeAndShapeInfo().GetShape(),
                       value->GetTensorRawData(), value});
  }
  return outputs;
}

}  // namespace xlstm::session::ort
