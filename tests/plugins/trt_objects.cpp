// Plugin objects of libxlstm_trt behind plain C functions, so that a test can hold them: made as a
// builder makes them, taken through an engine, attached to contexts, and called.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <NvInferRuntime.h>

using namespace nvinfer1;

namespace {

struct Operand {  // as tests/gpu/plugins.py has it
  int32_t type;
  int32_t rank;
  int64_t dims[5];
};

struct Plugin {
  std::unique_ptr<IPluginV3> from_engine;
  std::vector<std::unique_ptr<IPluginV3>> contexts;
};

IPluginV3OneBuild& build_side(IPluginV3& plugin) {
  return *static_cast<IPluginV3OneBuild*>(
      plugin.getCapabilityInterface(PluginCapabilityType::kBUILD));
}

IPluginV3OneRuntime& runtime_side(IPluginV3& plugin) {
  return *static_cast<IPluginV3OneRuntime*>(
      plugin.getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}

IPluginCreatorV3One* find_creator(const char* library, const std::string& op) {
  void* handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return nullptr;
  }
  const auto get_creators = reinterpret_cast<IPluginCreatorInterface* const* (*)(int32_t&)>(
      dlsym(handle, "getCreators"));
  int32_t count = 0;
  IPluginCreatorInterface* const* creators = get_creators(count);
  for (int i = 0; i < count; ++i) {
    auto* creator = static_cast<IPluginCreatorV3One*>(creators[i]);
    if (op == creator->getPluginName()) return creator;
  }
  return nullptr;
}

PluginTensorDesc desc_of(const Operand& operand) {
  PluginTensorDesc desc{};
  desc.type = static_cast<DataType>(operand.type);
  desc.dims.nbDims = operand.rank;
  for (int d = 0; d < operand.rank; ++d) desc.dims.d[d] = operand.dims[d];
  return desc;
}

std::vector<PluginTensorDesc> descs_of(const Operand* operands, int32_t count) {
  std::vector<PluginTensorDesc> descs;
  for (int i = 0; i < count; ++i) descs.push_back(desc_of(operands[i]));
  return descs;
}

std::vector<DynamicPluginTensorDesc> profile_of(const Operand* operands, int32_t count) {
  std::vector<DynamicPluginTensorDesc> descs;
  for (const PluginTensorDesc& desc : descs_of(operands, count)) {
    descs.push_back({desc, desc.dims, desc.dims, desc.dims});
  }
  return descs;
}

}  // namespace

extern "C" {

// A plugin with so many contexts; null where one is refused. `bits` are the values of the fields.
void* trt_make(const char* library, const char* op, const char* const* names, const int32_t* types,
               const uint32_t* bits, int32_t count, int32_t contexts) {
  IPluginCreatorV3One* creator = find_creator(library, op);
  if (creator == nullptr) return nullptr;
  std::vector<PluginField> fields;
  for (int i = 0; i < count; ++i) {
    fields.emplace_back(names[i], bits + i, static_cast<PluginFieldType>(types[i]), 1);
  }
  const PluginFieldCollection given{count, fields.data()};
  const std::unique_ptr<IPluginV3> built(
      creator->createPlugin("node", &given, TensorRTPhase::kBUILD));
  if (built == nullptr) return nullptr;
  auto made = std::make_unique<Plugin>();
  made->from_engine.reset(creator->createPlugin(
      "node", runtime_side(*built).getFieldsToSerialize(), TensorRTPhase::kRUNTIME));
  if (made->from_engine == nullptr) return nullptr;
  for (int i = 0; i < contexts; ++i) {
    made->contexts.emplace_back(runtime_side(*made->from_engine).attachToContext(nullptr));
    if (made->contexts.back() == nullptr) return nullptr;
  }
  return made.release();
}

void trt_free(void* plugin) { delete static_cast<Plugin*>(plugin); }

// Configure for these shapes and say how much workspace they take; -1 where they are refused.
int64_t trt_configure(void* plugin, const Operand* inputs, int32_t input_count,
                      const Operand* outputs, int32_t output_count) {
  IPluginV3OneBuild& build = build_side(*static_cast<Plugin*>(plugin)->from_engine);
  auto given = profile_of(inputs, input_count);
  const auto made = profile_of(outputs, output_count);
  given.insert(given.end(), made.begin(), made.end());
  for (int i = 0; i < input_count + output_count; ++i) {
    if (!build.supportsFormatCombination(i, given.data(), input_count, output_count)) return -1;
  }
  if (build.configurePlugin(given.data(), input_count, made.data(), output_count) != 0) return -1;
  return static_cast<int64_t>(
      build.getWorkspaceSize(given.data(), input_count, made.data(), output_count));
}

int32_t trt_enqueue(void* plugin, int32_t context, const Operand* inputs, int32_t input_count,
                    const Operand* outputs, int32_t output_count, const void* const* in,
                    void* const* out, void* workspace, void* stream) {
  IPluginV3& attached = *static_cast<Plugin*>(plugin)->contexts[static_cast<size_t>(context)];
  IPluginV3OneRuntime& runtime = runtime_side(attached);
  const auto given = descs_of(inputs, input_count);
  const auto made = descs_of(outputs, output_count);
  const int32_t status =
      runtime.onShapeChange(given.data(), input_count, made.data(), output_count);
  if (status != 0) return status;
  return runtime.enqueue(given.data(), made.data(), in, out, workspace,
                         static_cast<cudaStream_t>(stream));
}

}  // extern "C"
