/* The CUDA kernels without a framework: plain C, for ctypes, tests and other languages.
 *
 * The call is that of xlstm_c.h; its operands, lengths, outputs and workspace are device memory,
 * and `packed` is null. Statuses are those of xlstm_status_message. */
#ifndef XLSTM_CUDA_C_H_
#define XLSTM_CUDA_C_H_

#include "xlstm_c.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The library has xlstm_version of xlstm_c.h, too. CUDA's version that it was built with, such as
 * "13.0", says which driver it needs. */
XLSTM_C_API const char* xlstm_cuda_toolkit(void);

/* Device bytes of workspace for these sizes, aligned to 64. Does not touch the device. */
XLSTM_C_API int32_t xlstm_cuda_workspace_size(const xlstm_call* call, size_t* bytes);
/* Load every operator's kernels on the current device, as the first launch there does: call it
 * before the capture of a graph. */
XLSTM_C_API int32_t xlstm_cuda_prepare(void);
/* The kernel's variant that such a call takes on the current device, such as "plain". The variables
 * XLSTM_CUDA_MLSTM, XLSTM_CUDA_SLSTM and XLSTM_CUDA_CONV1D of the environment name another. */
XLSTM_C_API int32_t xlstm_cuda_variant(const xlstm_call* call, const char** name);
/* Queue the operator on `stream` (a cudaStream_t; null is the default stream) and return. */
XLSTM_C_API int32_t xlstm_cuda_launch(const xlstm_call* call, void* stream);
/* Queue on `stream` the choice of each row's likeliest token: of the row's `vocabulary` float32 on
 * the device, which begin `starts[row]` elements after `logits`, the place of the largest to
 * tokens[row] and that logit to values[row], both on the device. Of equal logits it is the first;
 * NaN is above infinity. `starts` is host memory, read before this returns. */
XLSTM_C_API int32_t xlstm_cuda_likeliest(const float* logits, const int64_t* starts, int64_t rows,
                                         int64_t vocabulary, int64_t* tokens, float* values,
                                         void* stream);
/* After a launch of this thread that the device refused: CUDA's name of the cause. */
XLSTM_C_API const char* xlstm_cuda_error_name(void);

#ifdef __cplusplus
}
#endif

#endif /* XLSTM_CUDA_C_H_ */
