#include "xlstm_cuda_c.h"

#include "unpack.h"
#include "xlstm/cuda.h"

using xlstm::Status;

int32_t xlstm_cuda_workspace_size(const xlstm_call* call, size_t* bytes) {
  if (call == nullptr || bytes == nullptr) return static_cast<int32_t>(Status::kNullPointer);
  const xlstm::Problem problem = xlstm::problem_of(*call);
  const Status status = xlstm::check_problem(problem);
  if (status == Status::kOk) *bytes = xlstm::cuda::workspace_size(problem);
  return static_cast<int32_t>(status);
}

const char* xlstm_version(void) { return XLSTM_VERSION; }

const char* xlstm_cuda_toolkit(void) { return XLSTM_CUDA_TOOLKIT; }

int32_t xlstm_cuda_prepare(void) { return static_cast<int32_t>(xlstm::cuda::prepare()); }

int32_t xlstm_cuda_variant(const xlstm_call* call, const char** name) {
  if (call == nullptr || name == nullptr) return static_cast<int32_t>(Status::kNullPointer);
  xlstm::UnpackedCall unpacked;
  Status status = unpacked.unpack(*call);
  if (status == Status::kOk) status = xlstm::check_problem(unpacked.call.problem);
  if (status == Status::kOk) {
    status = xlstm::cuda::variant_name(unpacked.call.problem, unpacked.call.attributes, name);
  }
  return static_cast<int32_t>(status);
}

int32_t xlstm_cuda_launch(const xlstm_call* call, void* stream) {
  if (call == nullptr) return static_cast<int32_t>(Status::kNullPointer);
  xlstm::UnpackedCall unpacked;
  Status status = unpacked.unpack(*call);
  if (status == Status::kOk) status = xlstm::cuda::launch(unpacked.call, stream);
  return static_cast<int32_t>(status);
}

int32_t xlstm_cuda_likeliest(const float* logits, const int64_t* starts, int64_t rows,
                             int64_t vocabulary, int64_t* tokens, float* values, void* stream) {
  return static_cast<int32_t>(
      xlstm::cuda::likeliest(logits, starts, rows, vocabulary, tokens, values, stream));
}

const char* xlstm_cuda_error_name(void) { return xlstm::cuda::launch_error_name(); }
