// The operators on an NVIDIA GPU.
#pragma once

#include <cstddef>

#include "xlstm/call.h"

namespace xlstm::cuda {

// Device bytes that launch() needs; 0 is possible. Does not touch the device.
size_t workspace_size(const Problem& problem);

// Queue the operator on `stream` (a cudaStream_t; null is the default stream) and return. Operands,
// lengths and workspace are device memory, attributes host memory. Allocates nothing and waits for
// nothing; state outputs may be their inputs. Can be captured into a CUDA graph: launch once
// before, since CUDA may load a kernel when it is first asked for.
Status launch(const Call& call, void* stream);

// After Status::kLaunchFailed in this thread: CUDA's name of the cause, and what it says of it.
const char* launch_error_name();
const char* launch_error_text();

}  // namespace xlstm::cuda
