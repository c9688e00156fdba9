/* The kernels without a framework: plain C, for ctypes, tests and other languages.
 *
 * Operators, sizes, operands and attributes are in the order of docs/ops.md. Every function that
 * can fail returns a status, 0 = done; xlstm_status_message says what another one means. */
#ifndef XLSTM_C_H_
#define XLSTM_C_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define XLSTM_C_API __attribute__((visibility("default")))
#else
#define XLSTM_C_API
#endif

#define XLSTM_C_MAX_SIZES 5
#define XLSTM_C_MAX_INPUTS 9
#define XLSTM_C_MAX_OUTPUTS 5
#define XLSTM_C_MAX_ATTRIBUTES 8

/* One call. `op` is the operator's place in the catalogue, `dtype` TX: 0 float32, 1 float16,
 * 2 bfloat16, 3 float64. `attributes` are all of the operator's. `packed` is null, or what
 * xlstm_cpu_pack made of the constant operand, whose own pointer may then be null; it is aligned to
 * 64 bytes. */
typedef struct {
  int32_t op;
  int32_t dtype;
  int64_t sizes[XLSTM_C_MAX_SIZES];
  int64_t lengths_size;
  const void* inputs[XLSTM_C_MAX_INPUTS];
  void* outputs[XLSTM_C_MAX_OUTPUTS];
  double attributes[XLSTM_C_MAX_ATTRIBUTES];
  const void* packed;
  void* workspace; /* aligned to 64 bytes */
  size_t workspace_size;
} xlstm_call;

/* Threads that calls share: those of several callers take turns. After a fork the child's calls run
 * on their own thread. Null is the calling thread alone. */
typedef struct xlstm_pool xlstm_pool;

XLSTM_C_API const char* xlstm_version(void);
XLSTM_C_API const char* xlstm_status_message(int32_t status);
/* Index of the operator of that name, -1 where there is none. */
XLSTM_C_API int32_t xlstm_find_op(const char* name);

/* Name of the instruction set in use: portable, neon, avx2, avx512. XLSTM_CPU_ISA forces one. */
XLSTM_C_API int32_t xlstm_cpu_isa(const char** name);
XLSTM_C_API xlstm_pool* xlstm_pool_create(int32_t threads);
XLSTM_C_API void xlstm_pool_destroy(xlstm_pool* pool);
/* Bytes; more where the call has no `packed`: what xlstm_cpu_pack would do is then done there. */
XLSTM_C_API int32_t xlstm_cpu_workspace_size(const xlstm_call* call, int32_t threads,
                                             size_t* bytes);
XLSTM_C_API int32_t xlstm_cpu_packed_size(const xlstm_call* call, size_t* bytes);
/* Write `packed`, of so many bytes and aligned to 64, for every call with that constant operand. */
XLSTM_C_API int32_t xlstm_cpu_pack(const xlstm_call* call, void* packed);
XLSTM_C_API int32_t xlstm_cpu_run(const xlstm_call* call, xlstm_pool* pool);

#ifdef __cplusplus
}
#endif

#endif /* XLSTM_C_H_ */
