// Calls on a GPU, which libxlstm_ort_cuda.so alone has.
#pragma once

#include <onnxruntime_c_api.h>

#include "xlstm/call.h"

namespace xlstm::ort {

#ifdef XLSTM_ORT_CUDA
inline constexpr bool kHasGpu = true;
#else
inline constexpr bool kHasGpu = false;
#endif

// The provider whose nodes run there, and whether those of the CPU have kernels as well.
#ifdef XLSTM_ORT_EMULATED  // in tests: on the CPU, by an emulator of the GPU
inline constexpr const char* kGpuProvider = nullptr;
inline constexpr bool kHasCpu = false;
#else
inline constexpr const char* kGpuProvider = "CUDAExecutionProvider";
inline constexpr bool kHasCpu = true;
#endif

// Load the kernels on the device at hand, so that no capture of a graph has to.
OrtStatus* prepare_gpu(const OrtApi& api, const OpSchema& schema);

// Queue `call`, whose operands are on the device, on the stream of `context`; the workspace comes
// from `allocator`, the device's.
OrtStatus* run_on_gpu(const OrtApi& api, const OpSchema& schema, const OrtKernelContext* context,
                      OrtAllocator* allocator, Call* call);

}  // namespace xlstm::ort
