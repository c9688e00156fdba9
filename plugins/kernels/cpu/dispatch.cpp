// Chooses the instruction set, checks the call, and hands it to that set's kernel.
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "table.h"

namespace xlstm::cpu {
namespace {

struct Candidate {
  Isa isa;
  const char* name;
  KernelTable table;  // null: not in this build
};

#ifdef XLSTM_HAS_NEON
constexpr KernelTable kNeonTable = neon::kernels;
#else
constexpr KernelTable kNeonTable = nullptr;
#endif
#ifdef XLSTM_HAS_AVX2
constexpr KernelTable kAvx2Table = avx2::kernels;
#else
constexpr KernelTable kAvx2Table = nullptr;
#endif
#ifdef XLSTM_HAS_AVX512
constexpr KernelTable kAvx512Table = avx512::kernels;
#else
constexpr KernelTable kAvx512Table = nullptr;
#endif

// In the order of Isa, the best last.
constexpr Candidate kCandidates[] = {
    {Isa::kPortable, "portable", portable::kernels},
    {Isa::kNeon, "neon", kNeonTable},
    {Isa::kAvx2, "avx2", kAvx2Table},
    {Isa::kAvx512, "avx512", kAvx512Table},
};

#if defined(__x86_64__)
// Clang's __builtin_cpu_supports does not know it.
bool has_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

bool processor_has(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             has_f16c();
    case Isa::kAvx512:
      return processor_has(Isa::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl");
    default:
      return isa == Isa::kPortable;
  }
#else
  return isa == Isa::kPortable || isa == Isa::kNeon;
#endif
}

struct Selection {
  const Candidate* candidate;
  bool as_asked;
};

Selection select() {
  const char* asked = std::getenv("XLSTM_CPU_ISA");
  const bool forced = asked != nullptr && *asked != '\0';
  Selection selection{&kCandidates[0], !forced};
  for (const Candidate& candidate : kCandidates) {
    if (candidate.table == nullptr || !processor_has(candidate.isa)) continue;
    if (forced && std::strcmp(candidate.name, asked) == 0) return {&candidate, true};
    selection.candidate = &candidate;
  }
  return selection;
}

const Selection& selection() {
  static const Selection chosen = select();
  return chosen;
}

const Kernel& kernel(Op op) { return selection().candidate->table()[static_cast<int>(op)]; }

size_t aligned(size_t bytes) {
  return (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
}

}  // namespace

bool select_isa(Isa* isa) {
  *isa = selection().candidate->isa;
  return selection().as_asked;
}

const char* isa_name(Isa isa) { return kCandidates[static_cast<int>(isa)].name; }

size_t packed_size(const Problem& problem) {
  const Kernel& chosen = kernel(problem.op);
  return chosen.packed_size == nullptr ? 0 : chosen.packed_size(problem);
}

size_t workspace_size(const Problem& problem, int threads, bool is_packed) {
  const Kernel& chosen = kernel(problem.op);
  const size_t own = chosen.workspace_size == nullptr ? 0 : chosen.workspace_size(problem, threads);
  return is_packed ? own : own + aligned(packed_size(problem));
}

int packed_input(Op op) {
  switch (op) {
    case Op::kSLSTM: return slstm::in_R;
    case Op::kCausalConv1d: return causalconv1d::in_w;
    default: return -1;
  }
}

Status pack(const Problem& problem, const void* constant, void* packed) {
  if (!selection().as_asked) return Status::kUnavailable;
  if (constant == nullptr || packed == nullptr) return Status::kNullPointer;
  const size_t element = element_size(problem.dtype, TypeVar::kTX);
  if (reinterpret_cast<uintptr_t>(constant) % element != 0 ||
      reinterpret_cast<uintptr_t>(packed) % kWorkspaceAlignment != 0) {
    return Status::kMisaligned;
  }
  const Kernel& chosen = kernel(problem.op);
  if (chosen.pack != nullptr) chosen.pack(problem, constant, packed);
  return Status::kOk;
}

Status run(const Call& call, const Parallel& parallel) {
  if (!selection().as_asked) return Status::kUnavailable;
  if (const Status status = check_call(call); status != Status::kOk) return status;
  if (call.problem.sizes[0] == 0) return Status::kOk;  // no rows
  for (int i = 0; i < find_schema(call.problem.op)->input_count; ++i) {
    const bool is_packed = i == packed_input(call.problem.op) && call.packed != nullptr;
    const bool is_empty = call.problem.op == Op::kCausalConv1d && i == causalconv1d::in_state &&
                          call.problem.sizes[causalconv1d::size_W] == 1;
    if (call.inputs[i] == nullptr && !is_packed && !is_empty) return Status::kNullPointer;
  }
  const size_t needed = workspace_size(call.problem, parallel.threads, call.packed != nullptr);
  const auto address = reinterpret_cast<uintptr_t>(call.workspace);
  if (needed > 0 && (call.workspace == nullptr || call.workspace_size < needed ||
                     address % kWorkspaceAlignment != 0)) {
    return Status::kSmallWorkspace;
  }
  if (reinterpret_cast<uintptr_t>(call.packed) % kWorkspaceAlignment != 0) {
    return Status::kMisaligned;
  }
  const Kernel& chosen = kernel(call.problem.op);
  if (call.packed != nullptr || chosen.pack == nullptr) return chosen.run(call, parallel);
  Call packed = call;
  packed.packed = call.workspace;
  packed.workspace = static_cast<char*>(call.workspace) + aligned(packed_size(call.problem));
  chosen.pack(call.problem, call.inputs[packed_input(call.problem.op)], call.workspace);
  return chosen.run(packed, parallel);
}

}  // namespace xlstm::cpu
