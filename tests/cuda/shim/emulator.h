/* Control of the emulated GPU, for tests through ctypes.
 *
 * Checked while a kernel runs: every thread of a block reaches the same barrier (by source line),
 * every lane of a mask the same shuffle; shared memory stays within the launch's size and starts
 * as NaN in each block; no more shared memory than a kernel was allowed; copies to shared memory
 * arrive when they are waited for, or at once in descending order; stores to blocks of a cluster
 * the same by its barrier, past one and to no block that may have ended; the limits of a launch
 * that all GPUs have. A failed check ends the launch with cudaErrorLaunchFailure. Missing barriers
 * and blocks that disturb each other show as different results under different orders. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define XLSTM_EMULATOR_API __attribute__((visibility("default")))

/* Order of the blocks, and of the threads between barriers: 0 ascending, 1 descending (where copies
 * arrive at once), else shuffled by that seed. */
XLSTM_EMULATOR_API void xlstm_emulator_order(uint32_t order);
/* Give kernels at most so many blocks, whatever they ask for: those here loop over their units by
 * gridDim, as they do on a GPU where there are more units than a grid has blocks. 0 is no limit. */
XLSTM_EMULATOR_API void xlstm_emulator_most_blocks(uint32_t most);
/* The largest cluster of blocks that the device takes: 16, or fewer; 1 is none. */
XLSTM_EMULATOR_API void xlstm_emulator_most_cluster(uint32_t most);
/* What the last failed launch did wrong; "" after a good one. */
XLSTM_EMULATOR_API const char* xlstm_emulator_message(void);
/* Whether sums of matrix products are cut toward zero, not rounded to nearest. */
XLSTM_EMULATOR_API void xlstm_emulator_truncates(uint32_t truncates);
/* Whether launches are counted and not run: operands are not touched. */
XLSTM_EMULATOR_API void xlstm_emulator_idles(uint32_t idles);
/* Launches since the last call. */
XLSTM_EMULATOR_API int64_t xlstm_emulator_launches(void);
/* Of those that were counted last, the `index`-th: blocks, threads of each, bytes of shared memory,
 * blocks of a cluster. */
XLSTM_EMULATOR_API void xlstm_emulator_geometry(int64_t index, int64_t geometry[4]);

#ifdef __cplusplus
}
#endif
