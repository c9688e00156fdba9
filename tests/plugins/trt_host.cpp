// A small host of the TensorRT plugin library: calls the plugin objects as TensorRT would, without
// TensorRT, and prints what they answer.
//
//   trt_host RUNTIME LIBRARY COMMAND, RUNTIME being a library of trt_runtime.cpp, COMMAND one of
//
//   list
//   fields OP [NAME:TYPE:HEX ...]              create, serialise, re-create, attach
//   create OP build|engine [NAME:TYPE:HEX ...]
//   types OP TYPE ...                          output types from input types
//   formats OP TYPE[/FORMAT] ...               1 or 0 for every operand, in order
//   shapes OP 2x7x4 ...                        output shapes from input shapes
//   configure|workspace OP TYPE/2x7x4 ...      for these shapes at most
//   running OP TYPE/2x7x4 ...                  workspace for these shapes, no largest ones named
//   enqueue|launch OP TYPE/2x7x4 ...           without operands | with them, on host memory: for
//                                              machines without a GPU
//
// Log lines begin with "log: ". Types are numbers of nvinfer1::DataType and PluginFieldType.
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <NvInferRuntime.h>

namespace {

using namespace nvinfer1;
using Words = std::vector<std::string>;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "trt_host: %s\n", what.c_str());
  std::exit(2);
}

std::vector<int64_t> numbers(const std::string& text, char separator) {
  std::vector<int64_t> found;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(separator, at), text.size());
    found.push_back(std::stoll(text.substr(at, end - at)));
    at = end + 1;
  }
  return found;
}

Dims dims_of(const std::string& text) {
  Dims dims{};
  for (const int64_t size : numbers(text, 'x')) dims.d[dims.nbDims++] = size;
  return dims;
}

// "NAME:TYPE:HEX", HEX being the bytes of the value in memory order.
struct FieldList {
  explicit FieldList(const Words& words) {
    names.reserve(words.size());
    for (const std::string& word : words) {
      const size_t first = word.find(':');
      const size_t second = word.find(':', first + 1);
      names.push_back(word.substr(0, first));
      const auto type = static_cast<PluginFieldType>(std::stoi(word.substr(first + 1)));
      const std::string hex = word.substr(second + 1);
      values.emplace_back(hex.size() / 2);
      for (size_t i = 0; i < values.back().size(); ++i) {
        values.back()[i] = static_cast<char>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
      }
      const auto length = static_cast<int32_t>(hex.size() / 8);
      fields.emplace_back(names.back().c_str(), values.back().data(), type, length);
    }
  }
  PluginFieldCollection collection() const {
    return {static_cast<int32_t>(fields.size()), fields.data()};
  }
  std::vector<std::string> names;
  std::vector<std::vector<char>> values;
  std::vector<PluginField> fields;
};

void print_fields(const char* what, const PluginFieldCollection& collection) {
  for (int i = 0; i < collection.nbFields; ++i) {
    const PluginField& field = collection.fields[i];
    std::printf("%s %s:%d:", what, field.name, static_cast<int>(field.type));
    const auto* bytes = static_cast<const unsigned char*>(field.data);
    for (int b = 0; bytes != nullptr && b < 4 * field.length; ++b) std::printf("%02x", bytes[b]);
    std::printf("\n");
  }
}

// An expression is its value: enough to see which dimension an output takes.
struct Value final : apiv::VDimensionExpr, IDimensionExpr {
  explicit Value(int64_t given) : value(given) { mImpl = this; }
  bool isConstant() const override { return true; }
  int64_t getConstantValue() const override { return value; }
  bool isSizeTensor() const override { return false; }
  int64_t value;
};

struct Builder final : apiv::VExprBuilder, IExprBuilder {
  Builder() { mImpl = this; }
  const IDimensionExpr* constant(int64_t value) override {
    made.push_back(std::make_unique<Value>(value));
    return made.back().get();
  }
  const IDimensionExpr* operation(DimensionOperation op, const IDimensionExpr& first,
                                  const IDimensionExpr& second) override {
    if (op != DimensionOperation::kSUM) fail("an operation other than a sum");
    return constant(first.getConstantValue() + second.getConstantValue());
  }
  const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&,
                                          const IDimensionExpr&) override {
    return nullptr;
  }
  std::vector<std::unique_ptr<Value>> made;
};

void* open(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) fail(dlerror());
  return handle;
}

template <typename Function>
Function entry(void* library, const char* name) {
  void* found = dlsym(library, name);
  if (found == nullptr) fail(std::string("no entry ") + name);
  return reinterpret_cast<Function>(found);
}

struct Library {
  Library(const std::string& runtime, const std::string& path) {
    const auto finder_of = entry<ILoggerFinder* (*)()>(open(runtime), "logger_finder");
    void* plugins = open(path);
    entry<void (*)(ILoggerFinder*)>(plugins, "setLoggerFinder")(finder_of());
    using Creators = IPluginCreatorInterface* const* (*)(int32_t&);
    const auto get_creators = entry<Creators>(plugins, "getCreators");
    int32_t count = 0;
    IPluginCreatorInterface* const* found = get_creators(count);
    for (int i = 0; i < count; ++i) creators.push_back(static_cast<IPluginCreatorV3One*>(found[i]));
  }
  IPluginCreatorV3One& creator(const std::string& op) const {
    for (IPluginCreatorV3One* creator : creators) {
      if (op == creator->getPluginName()) return *creator;
    }
    fail("no creator of " + op);
  }
  std::unique_ptr<IPluginV3> make(const std::string& op, TensorRTPhase phase,
                                  const PluginFieldCollection& fields) const {
    return std::unique_ptr<IPluginV3>(creator(op).createPlugin("node", &fields, phase));
  }
  std::vector<IPluginCreatorV3One*> creators;
};

template <typename Capability>
Capability& capability(IPluginV3& plugin, PluginCapabilityType type) {
  auto* found = static_cast<Capability*>(plugin.getCapabilityInterface(type));
  if (found == nullptr) fail("a capability is missing");
  return *found;
}
IPluginV3OneBuild& build_side(IPluginV3& plugin) {
  return capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
}
IPluginV3OneRuntime& runtime_side(IPluginV3& plugin) {
  return capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
}

void list(const Library& library) {
  for (IPluginCreatorV3One* creator : library.creators) {
    std::printf("creator %s %s %s\n", creator->getPluginName(), creator->getPluginVersion(),
                creator->getPluginNamespace());
    print_fields(creator->getPluginName(), *creator->getFieldNames());
  }
}

void round_trip(const Library& library, const std::string& op, const Words& words) {
  const FieldList given(words);
  auto built = library.make(op, TensorRTPhase::kBUILD, given.collection());
  if (built == nullptr) fail("refused");
  std::unique_ptr<IPluginV3> copy(built->clone());
  std::printf("timing %s\n", build_side(*copy).getTimingCacheID());
  built.reset();
  auto engine = library.make(op, TensorRTPhase::kRUNTIME,
                             *runtime_side(*copy).getFieldsToSerialize());
  if (engine == nullptr) fail("its own fields are refused");
  copy.reset();
  std::unique_ptr<IPluginV3> first(runtime_side(*engine).attachToContext(nullptr));
  std::unique_ptr<IPluginV3> second(runtime_side(*engine).attachToContext(nullptr));
  if (first == second || first == engine) fail("a context shares its plugin");
  engine.reset();
  first.reset();
  auto& core = capability<IPluginV3OneCore>(*second, PluginCapabilityType::kCORE);
  std::printf("core %s %s %s\n", core.getPluginName(), core.getPluginVersion(),
              core.getPluginNamespace());
  print_fields("field", *runtime_side(*second).getFieldsToSerialize());
}

// Operands of TYPE, TYPE/FORMAT or TYPE/DIMS; shapes are the least, the best and the largest.
std::vector<DynamicPluginTensorDesc> descs_of(const Words& words, bool with_dims) {
  std::vector<DynamicPluginTensorDesc> descs;
  for (const std::string& word : words) {
    DynamicPluginTensorDesc made{};
    const size_t slash = word.find('/');
    const std::string rest = slash == std::string::npos ? "" : word.substr(slash + 1);
    made.desc.type = static_cast<DataType>(std::stoi(word));
    if (with_dims) made.desc.dims = made.min = made.opt = made.max = dims_of(rest);
    if (with_dims) std::fill(made.min.d, made.min.d + made.min.nbDims, 1);
    if (!with_dims && !rest.empty()) made.desc.format = static_cast<TensorFormat>(std::stoi(rest));
    descs.push_back(made);
  }
  return descs;
}

void types(IPluginV3OneBuild& plugin, const Words& words) {
  std::vector<DataType> given;
  for (const std::string& word : words) given.push_back(static_cast<DataType>(std::stoi(word)));
  std::vector<DataType> made(static_cast<size_t>(plugin.getNbOutputs()), DataType::kBOOL);
  const int status =
      plugin.getOutputDataTypes(made.data(), plugin.getNbOutputs(), given.data(),
                                static_cast<int>(given.size()));
  std::printf("status %d\ntypes", status);
  for (const DataType type : made) std::printf(" %d", static_cast<int>(type));
  std::printf("\n");
}

void formats(IPluginV3OneBuild& plugin, const Words& words) {
  const auto descs = descs_of(words, false);
  const int outputs = plugin.getNbOutputs();
  std::printf("formats");
  for (int i = 0; i < static_cast<int>(descs.size()); ++i) {
    const int inputs = static_cast<int>(descs.size()) - outputs;
    std::printf(" %d", plugin.supportsFormatCombination(i, descs.data(), inputs, outputs) ? 1 : 0);
  }
  std::printf("\n");
}

void shapes(IPluginV3OneBuild& plugin, const Words& words) {
  Builder builder;
  std::vector<DimsExprs> given;
  for (const std::string& word : words) {
    DimsExprs made{};
    for (const int64_t size : numbers(word, 'x')) made.d[made.nbDims++] = builder.constant(size);
    given.push_back(made);
  }
  std::vector<DimsExprs> outputs(static_cast<size_t>(plugin.getNbOutputs()));
  const int status = plugin.getOutputShapes(given.data(), static_cast<int>(given.size()), nullptr,
                                            0, outputs.data(), plugin.getNbOutputs(), builder);
  std::printf("status %d\n", status);
  for (const DimsExprs& shape : outputs) {
    std::printf("shape");
    for (int d = 0; status == 0 && d < shape.nbDims; ++d) {
      std::printf(" %lld", static_cast<long long>(shape.d[d]->getConstantValue()));
    }
    std::printf("\n");
  }
}

void configure(IPluginV3OneBuild& build, const Words& words) {
  const auto descs = descs_of(words, true);
  const std::vector<DynamicPluginTensorDesc> none(static_cast<size_t>(build.getNbOutputs()));
  std::printf("status %d\n", build.configurePlugin(descs.data(), static_cast<int>(descs.size()),
                                                   none.data(), build.getNbOutputs()));
}

size_t workspace_size(IPluginV3OneBuild& build, const Words& words, bool running = false) {
  auto descs = descs_of(words, true);
  for (DynamicPluginTensorDesc& desc : descs) {
    if (running) desc.min = desc.opt = desc.max = {};
  }
  const std::vector<DynamicPluginTensorDesc> none(static_cast<size_t>(build.getNbOutputs()));
  return build.getWorkspaceSize(descs.data(), static_cast<int>(descs.size()), none.data(),
                                build.getNbOutputs());
}

// Memory for an operand of any type, and as much for an output.
struct Memory {
  static constexpr size_t kBytes = size_t{1} << 20;
  Memory() : data(static_cast<char*>(std::aligned_alloc(64, kBytes)), std::free) {}
  std::unique_ptr<char, void (*)(void*)> data;
};

void call(IPluginV3& plugin, const Words& words, bool with_operands) {
  IPluginV3OneBuild& build = build_side(plugin);
  IPluginV3OneRuntime& runtime = runtime_side(plugin);
  const auto outputs = static_cast<size_t>(build.getNbOutputs());
  std::vector<PluginTensorDesc> given;
  for (const DynamicPluginTensorDesc& desc : descs_of(words, true)) given.push_back(desc.desc);
  const std::vector<PluginTensorDesc> made(outputs);
  std::vector<const void*> in(given.size(), nullptr);
  std::vector<void*> out(outputs, nullptr);
  const std::vector<Memory> memory(given.size() + outputs + 1);
  if (with_operands) {
    for (size_t i = 0; i < in.size(); ++i) in[i] = memory[i].data.get();
    for (size_t o = 0; o < outputs; ++o) out[o] = memory[in.size() + o].data.get();
  }
  void* workspace = workspace_size(build, words) > 0 ? memory.back().data.get() : nullptr;
  std::printf("shape change %d\n",
              runtime.onShapeChange(given.data(), static_cast<int>(given.size()), made.data(),
                                    build.getNbOutputs()));
  std::printf("status %d\n", runtime.enqueue(given.data(), made.data(), in.data(), out.data(),
                                             workspace, nullptr));
}

}  // namespace

int main(int count, char** arguments) {
  Words words(arguments + 1, arguments + count);
  if (words.size() < 3) fail("usage: trt_host RUNTIME LIBRARY COMMAND [OP ...]");
  const Library library(words[0], words[1]);
  words.erase(words.begin(), words.begin() + 2);
  const std::string command = words[0];
  if (command == "list") {
    list(library);
    return 0;
  }
  if (words.size() < 2) fail("no operator");
  const std::string op = words[1];
  Words rest(words.begin() + 2, words.end());
  if (command == "fields") {
    round_trip(library, op, rest);
    return 0;
  }
  if (command == "create") {
    const bool engine = rest.at(0) == "engine";
    rest.erase(rest.begin());
    const auto phase = engine ? TensorRTPhase::kRUNTIME : TensorRTPhase::kBUILD;
    const FieldList given(rest);
    std::printf("plugin %d\n", library.make(op, phase, given.collection()) != nullptr ? 1 : 0);
    return 0;
  }
  const auto plugin = library.make(op, TensorRTPhase::kBUILD, {});
  if (command == "types") types(build_side(*plugin), rest);
  else if (command == "formats") formats(build_side(*plugin), rest);
  else if (command == "shapes") shapes(build_side(*plugin), rest);
  else if (command == "configure") configure(build_side(*plugin), rest);
  else if (command == "workspace" || command == "running")
    std::printf("workspace %zu\n",
                workspace_size(build_side(*plugin), rest, command == "running"));
  else call(*plugin, rest, command == "launch");
  return 0;
}
