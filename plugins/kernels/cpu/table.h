// What each instruction set provides: the same kernels, compiled for it.
#pragma once

#include "xlstm/cpu.h"

namespace xlstm::cpu {

// One operator's functions, with the meaning they have in xlstm/cpu.h. Calls are checked before,
// and constants packed: workspace_size is without them.
struct Kernel {
  Status (*run)(const Call& call, const Parallel& parallel);
  size_t (*workspace_size)(const Problem& problem, int threads);  // null: none
  size_t (*packed_size)(const Problem& problem);                  // null: nothing to pack
  void (*pack)(const Problem& problem, const void* constant, void* packed);
};

using KernelTable = const Kernel* (*)();  // kOps kernels, by Op

namespace portable { const Kernel* kernels(); }
namespace neon { const Kernel* kernels(); }
namespace avx2 { const Kernel* kernels(); }
namespace avx512 { const Kernel* kernels(); }

}  // namespace xlstm::cpu
