#include "kernel.h"

#include <algorithm>
#include <cstring>

#include "gpu.h"

namespace xlstm::ort {
namespace {

struct SessionPool {
  const OrtApi& api;
  const OrtKernelContext* context;
  OrtStatus* status;
};

struct Task {
  void (*function)(void* context, int64_t index);
  void* context;
};

void run_task(void* task, size_t index) {
  const auto* work = static_cast<const Task*>(task);
  work->function(work->context, static_cast<int64_t>(index));
}

void run_in_session(void* pool, void (*function)(void*, int64_t), void* context, int64_t count) {
  auto* session = static_cast<SessionPool*>(pool);
  Task task{function, context};
  if (session->status != nullptr) return;
  session->status = session->api.KernelContext_ParallelFor(session->context, run_task,
                                                           static_cast<size_t>(count), 0, &task);
}

// Memory of the session's allocator, aligned for a kernel; of 0 bytes, none.
class Workspace {
 public:
  Workspace(OrtAllocator* allocator, size_t bytes)
      : allocator_(allocator),
        block_(bytes == 0 ? nullptr : allocator->Alloc(allocator, bytes + kWorkspaceAlignment)) {}
  ~Workspace() {
    if (block_ != nullptr) allocator_->Free(allocator_, block_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* aligned() const {
    if (block_ == nullptr) return nullptr;
    const auto address = reinterpret_cast<uintptr_t>(block_);
    return static_cast<char*>(block_) + (-address & (kWorkspaceAlignment - 1));
  }

 private:
  OrtAllocator* const allocator_;
  void* const block_;
};

struct Tensor {
  int64_t dims[kMaxRank];
  size_t rank;
  void* data;
};

OrtStatus* read_tensor(const OrtApi& api, const OrtValue* value, Tensor* tensor) {
  OrtTensorTypeAndShapeInfo* shape = nullptr;
  if (OrtStatus* status = api.GetTensorTypeAndShape(value, &shape)) return status;
  OrtStatus* unread = read_shape(api, shape, tensor->dims, &tensor->rank);
  api.ReleaseTensorTypeAndShapeInfo(shape);
  if (unread != nullptr) return unread;
  // Inputs are only read; this version of the API has no other way to their data.
  return api.GetTensorMutableData(const_cast<OrtValue*>(value), &tensor->data);
}

}  // namespace

OrtStatus* failure(const OrtApi& api, const OpSchema& schema, const std::string& message) {
  return api.CreateStatus(ORT_INVALID_ARGUMENT, (schema.name + (": " + message)).c_str());
}

OrtStatus* read_shape(const OrtApi& api, const OrtTensorTypeAndShapeInfo* info, int64_t* dims,
                      size_t* rank) {
  if (OrtStatus* status = api.GetDimensionsCount(info, rank)) return status;
  return api.GetDimensions(info, dims, std::min<size_t>(*rank, kMaxRank));
}

Kernel::Kernel(const OrtApi& api, const OpSchema& schema, DType dtype, Processor processor,
               int threads)
    : api_(api), schema_(schema), dtype_(dtype), processor_(processor), threads_(threads) {}

Kernel::~Kernel() {
  if (allocator_ != nullptr) api_.ReleaseAllocator(allocator_);
}

OrtStatus* Kernel::create(const OrtApi& api, const OrtKernelInfo* info, const OpSchema& schema,
                          DType dtype, Processor processor, int threads, Kernel** kernel) {
  std::unique_ptr<Kernel> made(new Kernel(api, schema, dtype, processor, threads));
  if (OrtStatus* status = made->read_attributes(info)) return status;
  if (OrtStatus* status = made->check_static_shapes(info)) return status;
  if constexpr (kHasGpu) {
    // a constant is on the device already, and a kernel there reads it as it is
    OrtStatus* status = processor == Processor::kGpu ? prepare_gpu(api, schema) : nullptr;
    if (status != nullptr) return status;
  }
  if (processor == Processor::kCpu) {
    cpu::Isa isa;
    if (!cpu::select_isa(&isa)) {
      return failure(api, schema, status_message(Status::kUnavailable));
    }
    if (OrtStatus* status = made->pack_constant(info)) return status;
  }
  if (OrtStatus* status = api.KernelInfoGetAllocator(info, OrtMemTypeDefault, &made->allocator_)) {
    return status;
  }
  *kernel = made.release();
  return nullptr;
}

OrtStatus* Kernel::read_attributes(const OrtKernelInfo* info) {
  for (int a = 0; a < schema_.attribute_count; ++a) {
    const AttributeSchema& attribute = schema_.attributes[a];
    const bool is_float = attribute.kind == AttributeKind::kFloat;
    float number = 0;
    int64_t integer = 0;
    OrtStatus* missing =
        is_float ? api_.KernelInfoGetAttribute_float(info, attribute.name, &number)
                 : api_.KernelInfoGetAttribute_int64(info, attribute.name, &integer);
    if (missing != nullptr) {
      api_.ReleaseStatus(missing);
      return failure(api_, schema_,
                     std::string("attribute ") + attribute.name +
                         " is missing from the node, or no " + (is_float ? "FLOAT" : "INT") +
                         "; every attribute is written on the node");
    }
    const double value = is_float ? number : static_cast<double>(integer);
    if (!in_range(attribute, value)) {
      return failure(api_, schema_, "attribute " + out_of_range(attribute, value));
    }
    const auto small = static_cast<int32_t>(integer);
    static_assert(sizeof small == sizeof number);
    std::memcpy(attributes_ + attribute.offset,
                is_float ? static_cast<const void*>(&number) : &small, sizeof number);
  }
  return nullptr;
}

OrtStatus* Kernel::check_static_shapes(const OrtKernelInfo* info) const {
  Sizes sizes(schema_);
  for (int i = 0; i < schema_.input_count; ++i) {
    OrtTypeInfo* type = nullptr;
    if (OrtStatus* status = api_.KernelInfo_GetInputTypeInfo(info, i, &type)) return status;
    const OrtTensorTypeAndShapeInfo* shape = nullptr;
    int64_t dims[kMaxRank];
    size_t rank = 0;
    OrtStatus* unread = api_.CastTypeInfoToTensorInfo(type, &shape);
    if (unread == nullptr && shape != nullptr) unread = read_shape(api_, shape, dims, &rank);
    api_.ReleaseTypeInfo(type);
    if (unread != nullptr) return unread;
    if (rank == 0) continue;  // unknown
    if (const std::string wrong = sizes.bind(i, dims, rank); !wrong.empty()) {
      return failure(api_, schema_, wrong);
    }
  }
  const std::string wrong = sizes.check_lengths();
  return wrong.empty() ? nullptr : failure(api_, schema_, wrong);
}

OrtStatus* Kernel::pack_constant(const OrtKernelInfo* info) {
  const int input = cpu::packed_input(schema_.op);
  if (input < 0) return nullptr;
  int is_constant = 0;
  const OrtValue* value = nullptr;
  OrtStatus* unknown = api_.KernelInfoGetConstantInput_tensor(info, input, &is_constant, &value);
  if (unknown != nullptr) return unknown;
  if (is_constant == 0 || value == nullptr) return nullptr;
  Tensor constant;
  if (OrtStatus* status = read_tensor(api_, value, &constant)) return status;

  Sizes sizes(schema_);
  const std::string wrong = sizes.bind(input, constant.dims, constant.rank);
  if (!wrong.empty()) return failure(api_, schema_, wrong);
  Problem problem{schema_.op, dtype_, {}};
  for (int s = 0; s < schema_.size_count; ++s) {
    problem.sizes[s] = sizes.values()[s] < 0 ? 1 : sizes.values()[s];
  }
  Status status = check_problem(problem);
  if (status == Status::kOk) {
    const size_t bytes = cpu::packed_size(problem);
    if (bytes == 0) return nullptr;
    packed_.reset(::operator new(bytes, std::align_val_t{kWorkspaceAlignment}));
    status = cpu::pack(problem, constant.data, packed_.get());
  }
  if (status == Status::kOk) return nullptr;
  return failure(api_, schema_, schema_.inputs[input].name + std::string(": ") +
                                    status_message(status));
}

OrtStatus* Kernel::compute(OrtKernelContext* context) const {
  Call call{};
  call.problem.op = schema_.op;
  call.problem.dtype = dtype_;
  call.attributes = attributes_;
  call.packed = packed_.get();
  Sizes sizes(schema_);
  if (OrtStatus* status = read_inputs(context, &sizes, &call)) return status;
  if (const Status status = check_problem(call.problem); status != Status::kOk) {
    return failure(api_, schema_, status_message(status) + (" (" + sizes.text() + ")"));
  }
  if (OrtStatus* status = make_outputs(context, sizes, &call)) return status;
  if (call.problem.sizes[0] == 0) return nullptr;  // no rows
  if constexpr (kHasGpu) {
    if (processor_ == Processor::kGpu) {
      return run_on_gpu(api_, schema_, context, allocator_, &call);
    }
  }
  return run_on_cpu(context, &call);
}

OrtStatus* Kernel::read_inputs(OrtKernelContext* context, Sizes* sizes, Call* call) const {
  for (int i = 0; i < schema_.input_count; ++i) {
    const OrtValue* value = nullptr;
    if (OrtStatus* status = api_.KernelContext_GetInput(context, i, &value)) return status;
    if (value == nullptr) {
      return failure(api_, schema_, std::string("input ") + schema_.inputs[i].name + " is missing");
    }
    Tensor tensor;
    if (OrtStatus* status = read_tensor(api_, value, &tensor)) return status;
    const std::string wrong = sizes->bind(i, tensor.dims, tensor.rank);
    if (!wrong.empty()) return failure(api_, schema_, wrong);
    call->inputs[i] = tensor.data;
  }
  if (const std::string wrong = sizes->check_lengths(); !wrong.empty()) {
    return failure(api_, schema_, wrong);
  }
  std::copy_n(sizes->values(), schema_.size_count, call->problem.sizes);
  call->lengths_size = sizes->lengths_size();
  return nullptr;
}

OrtStatus* Kernel::make_outputs(OrtKernelContext* context, const Sizes& sizes, Call* call) const {
  for (int o = 0; o < schema_.output_count; ++o) {
    const TensorSchema& tensor = schema_.outputs[o];
    int64_t dims[kMaxRank];
    for (int i = 0; i < tensor.rank; ++i) dims[i] = sizes.of(tensor.dims[i]);
    OrtValue* value = nullptr;
    if (OrtStatus* status = api_.KernelContext_GetOutput(context, o, dims, tensor.rank, &value)) {
      return status;
    }
    if (value == nullptr) {
      return failure(api_, schema_, std::string("output ") + tensor.name +
                                        " is missing from the node; the kernel writes every one");
    }
    if (OrtStatus* status = api_.GetTensorMutableData(value, &call->outputs[o])) return status;
  }
  return nullptr;
}

OrtStatus* Kernel::run_on_cpu(OrtKernelContext* context, Call* call) const {
  SessionPool pool{api_, context, nullptr};
  cpu::Parallel parallel;
  parallel.threads = threads_;
  parallel.pool = &pool;
  parallel.run = run_in_session;

  call->workspace_size =
      cpu::workspace_size(call->problem, parallel.threads, call->packed != nullptr);
  const Workspace workspace(allocator_, call->workspace_size);
  call->workspace = workspace.aligned();
  if (call->workspace == nullptr && call->workspace_size > 0) {
    return failure(api_, schema_, "no memory for a workspace of " +
                                      std::to_string(call->workspace_size) + " bytes");
  }
  const Status status = cpu::run(*call, parallel);
  if (pool.status != nullptr) return pool.status;
  return status == Status::kOk ? nullptr : failure(api_, schema_, status_message(status));
}

}  // namespace xlstm::ort
