// The operators on an NVIDIA GPU, and the choice of a token there.
#pragma once

#include <cstddef>
#include <cstdint>

#include "xlstm/call.h"

namespace xlstm::cuda {

// Device bytes that launch() needs; 0 is possible. Does not touch the device.
size_t workspace_size(const Problem& problem);

// Load every operator's kernels on the current device, which the first launch there does as well: a
// graph's capture should not be it.
Status prepare();

// Which variant of the operator's kernels a call of these sizes and attributes takes on the current
// device. XLSTM_CUDA_MLSTM, XLSTM_CUDA_SLSTM and XLSTM_CUDA_CONV1D name the one to take instead;
// kUnavailable where that one does not take it.
Status variant_name(const Problem& problem, const void* attributes, const char** name);

// Queue the operator on `stream` (a cudaStream_t; null is the default stream) and return. Operands,
// lengths and workspace are device memory, attributes host memory. Allocates nothing and waits for
// nothing; state outputs may be their inputs. Can be captured into a CUDA graph, after prepare().
Status launch(const Call& call, void* stream);

// Queue on `stream` the choice of each row's likeliest token: of the row's `vocabulary` float32 on
// the device, which begin `starts[row]` elements after `logits`, the place of the largest to
// tokens[row] and that logit to values[row], both on the device. Of equal logits it is the first;
// NaN is above infinity. `starts` is host memory, read before this returns.
Status likeliest(const float* logits, const int64_t* starts, int64_t rows, int64_t vocabulary,
                 int64_t* tokens, float* values, void* stream);

// After Status::kLaunchFailed in this thread: CUDA's name of the cause, and what it says of it.
const char* launch_error_name();
const char* launch_error_text();

}  // namespace xlstm::cuda
