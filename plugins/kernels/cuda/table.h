// What each operator's file provides to the launcher.
#pragma once

#include "xlstm/call.h"

namespace xlstm::cuda {

// One operator's functions, with the meaning they have in xlstm/cuda.h. Calls are checked before.
struct Kernel {
  Status (*launch)(const Call& call, void* stream);
  size_t (*workspace_size)(const Problem& problem);
};

extern const Kernel kMlstmKernel;
extern const Kernel kSlstmKernel;
extern const Kernel kConv1dKernel;

}  // namespace xlstm::cuda
