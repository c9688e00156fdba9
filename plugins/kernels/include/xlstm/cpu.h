// The operators on the CPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "xlstm/call.h"

namespace xlstm::cpu {

// How a kernel shares its work: run(pool, task, context, count) calls task(context, i) once for
// every i in [0, count), on any threads, and returns when all are done. Results do not depend on
// `threads`, which only says into how many parts it is worth cutting. Tasks do not throw.
struct Parallel {
  int threads = 1;
  void* pool = nullptr;
  void (*run)(void* pool, void (*task)(void* context, int64_t index), void* context,
              int64_t count) = nullptr;  // null runs serially
};

// Instruction sets, from the plainest on. kPortable is the compiler's baseline.
enum class Isa : int32_t { kPortable, kNeon, kAvx2, kAvx512 };

// The best set this processor and this build have, or the one XLSTM_CPU_ISA names (portable, neon,
// avx2, avx512). Read once per process. False where the named one is unknown or not to be had:
// `isa` is then the best one, and run() answers kUnavailable.
bool select_isa(Isa* isa);

const char* isa_name(Isa isa);

// Bytes that run() needs; 0 is possible. Grows with the threads, never with the time. Without
// call.packed the constant operand is laid out anew by every call, in the workspace.
size_t workspace_size(const Problem& problem, int threads, bool is_packed);

// Bytes that pack() writes: 0 where the operator has nothing to pack.
size_t packed_size(const Problem& problem);

// Lay out the constant operand (R of the sLSTM, w of the convolution) as this processor reads it:
// once per model, for any number of calls. `constant` is that operand; `packed` is aligned to
// kWorkspaceAlignment. B and T of the problem have no influence.
Status pack(const Problem& problem, const void* constant, void* packed);

// Index of the input that pack() takes, -1 where the operator has none.
int packed_input(Op op);

// Compute the outputs. With call.packed, the constant operand itself may be null.
Status run(const Call& call, const Parallel& parallel);

}  // namespace xlstm::cpu
