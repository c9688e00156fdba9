/* Bundles of xlstm-export in a program: plain C, for every language that can call it.
 *
 * A bundle is opened in ONNX Runtime, whose shared library is loaded when it runs; one of its
 * engines in TensorRT or TensorRT-RTX. States are values: no call changes those it is given.
 *
 * Every function that can fail returns a status; xlstm_session_error then says in words what is
 * wrong and how to mend it, to the thread that asked. What a function makes, the caller gives back
 * to the function of that name with _close or _free; null is taken there. A session may be used by
 * many threads at once, each with states of its own; a session of an engine by one at a time. A
 * thread's current CUDA context is after a call what it was before. xlstm/session.hpp is the same
 * for C++. */
#ifndef XLSTM_SESSION_H_
#define XLSTM_SESSION_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define XLSTM_SESSION_API __attribute__((visibility("default")))
#else
#define XLSTM_SESSION_API
#endif

typedef enum {
  XLSTM_OK = 0,
  XLSTM_BUNDLE_ERROR = 1,      /* the bundle is missing, damaged, or of a newer format */
  XLSTM_INPUT_ERROR = 2,       /* a name, a shape, a type or a value does not fit */
  XLSTM_OPTION_ERROR = 3,      /* an option has a value that it cannot have */
  XLSTM_BACKEND_ERROR = 4,     /* a library or a device is missing, or too old */
  XLSTM_ENGINE_ERROR = 5,      /* the engine or its record is missing, damaged, or of another GPU */
  XLSTM_FILE_ERROR = 6,        /* a file cannot be read or written */
  XLSTM_OUT_OF_MEMORY = 7,
  XLSTM_INTERNAL_ERROR = 8
} xlstm_session_status;

typedef enum {
  XLSTM_FLOAT32 = 0,
  XLSTM_FLOAT16 = 1,
  XLSTM_BFLOAT16 = 2,
  XLSTM_INT32 = 4,
  XLSTM_INT64 = 5
} xlstm_dtype;

typedef struct xlstm_session xlstm_session;
typedef struct xlstm_states xlstm_states;
typedef struct xlstm_outputs xlstm_outputs;

/* Dense, in the host's memory. */
typedef struct {
  const char* name;
  int32_t dtype; /* an xlstm_dtype */
  int32_t rank;
  const int64_t* shape;
  const void* data;
} xlstm_tensor;

/* Zeroed, it opens a bundle in ONNX Runtime with the native kernels, where they are built. */
typedef struct {
  /* The shared library of ONNX Runtime or TensorRT. Null: the one that this process has, else the
   * one that the loader finds. */
  const char* runtime_library;
  /* libxlstm_ort.so, for an engine libxlstm_trt.so. Null: the one beside this library, if it is
   * there. "": none; ONNX Runtime then computes the operators by their definitions in the file. */
  const char* kernel_library;
  /* Null: ONNX Runtime. Else an engine of the bundle: a file, or a name like tensorrt_rtx-sm89. */
  const char* engine;
  int32_t threads; /* ONNX Runtime's; 0: every processor that this process may use */
  int32_t gpu;     /* an engine's, numbered from 0 */
} xlstm_session_options;

typedef enum { XLSTM_INPUTS = 0, XLSTM_OUTPUTS = 1, XLSTM_STATES = 2 } xlstm_ends;

XLSTM_SESSION_API const char* xlstm_session_version(void);
/* What the last call of this thread that failed has to say; "" before one did. */
XLSTM_SESSION_API const char* xlstm_session_error(void);

/* `options` may be null: zeroed ones. `session` is null where it fails. */
XLSTM_SESSION_API int32_t xlstm_session_open(const char* bundle,
                                             const xlstm_session_options* options,
                                             xlstm_session** session);
/* Outputs and states that it made live on. */
XLSTM_SESSION_API void xlstm_session_close(xlstm_session* session);
/* Who computes: runtime, version, device, precision; then the operators. Lives with the session. */
XLSTM_SESSION_API const char* xlstm_session_describe(const xlstm_session* session);
XLSTM_SESSION_API size_t xlstm_session_count(const xlstm_session* session, xlstm_ends ends);
/* Name (a state's is its key, whatever --state-names called it), type and shape, a free size as -1;
 * `data` is null. Lives with the session. */
XLSTM_SESSION_API int32_t xlstm_session_tensor(const xlstm_session* session, xlstm_ends ends,
                                               size_t index, xlstm_tensor* tensor);
/* Ids of a language model; 0 where there are none, or it is not known how many. */
XLSTM_SESSION_API int64_t xlstm_session_vocabulary(const xlstm_session* session);
/* The ids that end a text, as the bundle's configuration has them. */
XLSTM_SESSION_API size_t xlstm_session_stop_ids(const xlstm_session* session, const int64_t** ids);

/* Continue from `states` (null: from the beginning) over `feeds`, every input by name. Of a ragged
 * bundle sequence_lengths may be left out: every row then has every step. `outputs` and `next` may
 * be null where they are not wanted. */
XLSTM_SESSION_API int32_t xlstm_session_run(xlstm_session* session, const xlstm_tensor* feeds,
                                            size_t count, const xlstm_states* states,
                                            xlstm_outputs** outputs, xlstm_states** next);
XLSTM_SESSION_API size_t xlstm_outputs_count(const xlstm_outputs* outputs);
/* Lives with the outputs. */
XLSTM_SESSION_API int32_t xlstm_outputs_tensor(const xlstm_outputs* outputs, size_t index,
                                               xlstm_tensor* tensor);
XLSTM_SESSION_API void xlstm_outputs_free(xlstm_outputs* outputs);

/* States before the first step, for `batch` rows. */
XLSTM_SESSION_API int32_t xlstm_states_zeros(const xlstm_session* session, int64_t batch,
                                             xlstm_states** states);
XLSTM_SESSION_API int32_t xlstm_states_copy(const xlstm_states* states, xlstm_states** copy);
/* Those rows, in that order; one may come twice. */
XLSTM_SESSION_API int32_t xlstm_states_rows(const xlstm_states* states, const int64_t* rows,
                                            size_t count, xlstm_states** chosen);
/* The batches one after another. */
XLSTM_SESSION_API int32_t xlstm_states_join(const xlstm_states* const* parts, size_t count,
                                            xlstm_states** joined);
/* The same, but those rows begin again. */
XLSTM_SESSION_API int32_t xlstm_states_reset(const xlstm_states* states, const int64_t* rows,
                                             size_t count, xlstm_states** begun);
/* A safetensors file, which Python's States.load reads; complete, or not there. */
XLSTM_SESSION_API int32_t xlstm_states_save(const xlstm_states* states, const char* path);
XLSTM_SESSION_API int32_t xlstm_states_load(const xlstm_session* session, const char* path,
                                            xlstm_states** states);
XLSTM_SESSION_API int64_t xlstm_states_batch(const xlstm_states* states);
XLSTM_SESSION_API size_t xlstm_states_nbytes(const xlstm_states* states);
/* Every state on the host, by its key. */
XLSTM_SESSION_API int32_t xlstm_states_read(const xlstm_states* states, xlstm_outputs** tensors);
XLSTM_SESSION_API void xlstm_states_free(xlstm_states* states);

/* Zeroed but for max_new_tokens, it takes the likeliest id each time. */
typedef struct {
  int64_t max_new_tokens;
  double temperature; /* 0: the likeliest id */
  int64_t top_k;      /* the k likeliest and those equal to the last of them; 0: all */
  double top_p;       /* of these the fewest whose probability reaches it; 0 or 1: all */
  uint64_t seed;
  const int64_t* stop; /* ids that end it; null and 0: none */
  size_t stop_count;
} xlstm_generation;

/* Called with each id as it is chosen, a stop id included; another result than 0 ends it. */
typedef int32_t (*xlstm_token_function)(void* context, int64_t token);

/* Continue the ids `prompt`, at least one. `*states` (null: from the beginning) are taken, and
 * replaced by those after all that was read: the prompt, and the new ids but the last. `states` may
 * be null. Where it fails `*states` stay what they were. */
XLSTM_SESSION_API int32_t xlstm_session_generate(xlstm_session* session, const int64_t* prompt,
                                                 size_t count, const xlstm_generation* options,
                                                 xlstm_token_function on_token, void* context,
                                                 xlstm_states** states);

/* The levels of a forecaster's quantiles; 0 where the bundle is none. */
XLSTM_SESSION_API size_t xlstm_session_levels(const xlstm_session* session, const double** levels);
/* Continue each series, of `lengths` steps, NaN where a value is missing, by `horizon` steps. The
 * one output is "quantiles", float32 [series, horizon, levels]. */
XLSTM_SESSION_API int32_t xlstm_session_forecast(xlstm_session* session,
                                                 const float* const* series,
                                                 const int64_t* lengths, size_t count,
                                                 int64_t horizon, xlstm_outputs** quantiles);

#ifdef __cplusplus
}
#endif

#endif /* XLSTM_SESSION_H_ */
