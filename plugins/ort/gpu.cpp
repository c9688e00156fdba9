#include "gpu.h"

#include <string>

#include "kernel.h"
#include "xlstm/cuda.h"
#include "xlstm/launch_message.h"

namespace xlstm::ort {
namespace {

OrtStatus* status_of(const OrtApi& api, const OpSchema& schema, Status status) {
  if (status == Status::kOk) return nullptr;
  return failure(api, schema, cuda::launch_message(status));
}

// Device memory for one call, or null for 0 bytes. An arena knows the stream, and gives the memory
// to no other before that has come to here: so it may go back before the kernel has run.
OrtStatus* allocate(const OrtApi& api, const OrtKernelContext* context, OrtAllocator* allocator,
                    const void* stream, size_t bytes, void** block) {
  *block = nullptr;
  if (bytes == 0) return nullptr;
  if (stream == nullptr) {  // no arena to tell
    *block = allocator->Alloc(allocator, bytes);
    return nullptr;
  }
  return api.KernelContext_GetScratchBuffer(context, allocator->Info(allocator), bytes, block);
}

}  // namespace

OrtStatus* prepare_gpu(const OrtApi& api, const OpSchema& schema) {
  return status_of(api, schema, cuda::prepare());
}

OrtStatus* run_on_gpu(const OrtApi& api, const OpSchema& schema, const OrtKernelContext* context,
                      OrtAllocator* allocator, Call* call) {
  void* stream = nullptr;
  if (OrtStatus* status = api.KernelContext_GetGPUComputeStream(context, &stream)) return status;
  const size_t needed = cuda::workspace_size(call->problem);
  const size_t bytes = needed == 0 ? 0 : needed + kWorkspaceAlignment;
  void* block = nullptr;
  if (OrtStatus* status = allocate(api, context, allocator, stream, bytes, &block)) return status;
  if (block == nullptr && bytes > 0) {
    return failure(api, schema,
                   "no memory for a workspace of " + std::to_string(needed) + " bytes");
  }
  const auto address = reinterpret_cast<uintptr_t>(block);
  call->workspace = static_cast<char*>(block) + (-address & (kWorkspaceAlignment - 1));
  call->workspace_size = needed;
  const Status status = cuda::launch(*call, stream);
  if (block != nullptr) allocator->Free(allocator, block);
  return status_of(api, schema, status);
}

}  // namespace xlstm::ort
