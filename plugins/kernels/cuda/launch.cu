// Checks a call and hands it to its operator.
#include "device.h"
#include "table.h"
#include "xlstm/cuda.h"

namespace xlstm::cuda {

thread_local cudaError_t launch_error = cudaSuccess;

namespace {

const Kernel& kernel(Op op) {
  switch (op) {
    case Op::kSLSTM: return kSlstmKernel;
    case Op::kCausalConv1d: return kConv1dKernel;
    default: return kMlstmKernel;
  }
}
static_assert(kOps == 3, "a new operator needs its kernel here");

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

size_t workspace_size(const Problem& problem) {
  return kernel(problem.op).workspace_size(problem);
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
  return kernel(call.problem.op).launch(call, stream);
}

}  // namespace xlstm::cuda
