// Checks a call and hands it to a variant of its operator.
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

#include "device.h"
#include "variant.h"
#include "xlstm/cuda.h"

namespace xlstm::cuda {

thread_local cudaError_t launch_error = cudaSuccess;

namespace {

constexpr const Kernel* kKernels[] = {&kMlstmKernel, &kSlstmKernel, &kConv1dKernel};

const Kernel& kernel(Op op) {
  switch (op) {
    case Op::kSLSTM: return kSlstmKernel;
    case Op::kCausalConv1d: return kConv1dKernel;
    default: return kMlstmKernel;
  }
}
static_assert(kOps == 3, "a new operator needs its kernel here");

Status ask(const int index, Device* device) {
  int major = 0, minor = 0, processors = 0, shared = 0, clusters = 0;
  const auto get = [&](int* value, cudaDeviceAttr attribute) {
    return status_of(cudaDeviceGetAttribute(value, attribute, index));
  };
  Status status = get(&major, cudaDevAttrComputeCapabilityMajor);
  if (status == Status::kOk) status = get(&minor, cudaDevAttrComputeCapabilityMinor);
  if (status == Status::kOk) status = get(&processors, cudaDevAttrMultiProcessorCount);
  if (status == Status::kOk) status = get(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  if (status == Status::kOk) status = get(&clusters, cudaDevAttrClusterLaunch);
  *device = {10 * major + minor, processors, shared, clusters != 0, {}};
  return status;
}

Status prepare_variants(Device& device) {
  for (const Kernel* kernel : kKernels) {
    for (int v = 0; v < kernel->count; ++v) {
      const Status status = kernel->variants[v]->prepare(device);
      if (status != Status::kOk) return status;
    }
  }
  return Status::kOk;
}

// What the current device is, its kernels loaded. What fails is tried again by the next call.
Status current_device(Device* device) {
  static std::mutex mutex;
  static std::vector<Device> known;  // by index; sm 0: not asked yet
  int index = 0;
  Status status = status_of(cudaGetDevice(&index));
  if (status != Status::kOk) return status;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto place = static_cast<size_t>(index);
  if (place >= known.size()) known.resize(place + 1, Device{});
  if (known[place].sm == 0) {
    status = ask(index, device);
    if (status == Status::kOk) status = prepare_variants(*device);
    if (status != Status::kOk) return status;
    known[place] = *device;
  }
  *device = known[place];
  return Status::kOk;
}

// The variant of a call; null where the one that the environment names does not take it.
const Variant* choose(const Problem& problem, const void* attributes, const Device& device) {
  const Kernel& of = kernel(problem.op);
  const char* forced = std::getenv(of.variable);
  const bool is_forced = forced != nullptr && *forced != '\0';
  for (int v = 0; v < of.count; ++v) {
    const Variant& variant = *of.variants[v];
    if (is_forced && std::strcmp(forced, variant.name) != 0) continue;
    if (variant.fits(problem, attributes, device)) return &variant;
  }
  return nullptr;
}

// Every operand is there; check_call lets constants go missing, since the CPU packs them.
bool has_inputs(const Call& call) {
  const OpSchema& schema = *find_schema(call.problem.op);
  for (int i = 0; i < schema.input_count; ++i) {
    const bool is_empty = element_count(schema.inputs[i], call.problem.sizes) == 0;
    if (call.inputs[i] == nullptr && !is_empty) return false;
  }
  return true;
}

}  // namespace

const char* launch_error_name() { return cudaGetErrorName(launch_error); }

const char* launch_error_text() { return cudaGetErrorString(launch_error); }

// Which variant runs depends on the device, which this does not touch: enough for any.
size_t workspace_size(const Problem& problem) {
  const Kernel& of = kernel(problem.op);
  size_t most = 0;
  for (int v = 0; v < of.count; ++v) {
    const size_t bytes = of.variants[v]->workspace_size(problem);
    if (bytes > most) most = bytes;
  }
  return most;
}

Status prepare() {
  Device device;
  return current_device(&device);
}

Status variant_name(const Problem& problem, const void* attributes, const char** name) {
  Device device;
  const Status status = current_device(&device);
  if (status != Status::kOk) return status;
  const Variant* variant = choose(problem, attributes, device);
  if (variant == nullptr) return Status::kUnavailable;
  *name = variant->name;
  return Status::kOk;
}

Status launch(const Call& call, void* stream) {
  if (const Status status = check_call(call); status != Status::kOk) return status;
  if (call.problem.sizes[0] == 0) return Status::kOk;  // no rows
  if (!has_inputs(call)) return Status::kNullPointer;
  const size_t needed = workspace_size(call.problem);
  const auto address = reinterpret_cast<uintptr_t>(call.workspace);
  if (needed > 0 && (call.workspace == nullptr || call.workspace_size < needed ||
                     address % kWorkspaceAlignment != 0)) {
    return Status::kSmallWorkspace;
  }
  Device device;
  if (const Status status = current_device(&device); status != Status::kOk) return status;
  const Variant* variant = choose(call.problem, call.attributes, device);
  return variant == nullptr ? Status::kUnavailable : variant->launch(call, device, stream);
}

}  // namespace xlstm::cuda
