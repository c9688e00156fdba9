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

/* Device bytes of workspace for these sizes, aligned to 64. Does not touch the device. */
XLSTM_C_API int32_t xlstm_cuda_workspace_size(const xlstm_call* call, size_t* bytes);
/* Queue the operator on `stream` (a cudaStream_t; null is the default stream) and return. */
XLSTM_C_API int32_t xlstm_cuda_launch(const xlstm_call* call, void* stream);
/* After a launch of this thread that the device refused: CUDA's name of the cause. */
XLSTM_C_API const char* xlstm_cuda_error_name(void);

#ifdef __cplusplus
}
#endif

#endif /* XLSTM_CUDA_C_H_ */
