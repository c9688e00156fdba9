// A stream of the emulator: work is done at once, or kept where a graph is being captured.
#pragma once

#include <functional>
#include <vector>

#include "cuda_runtime.h"

struct CUstream_st {
  bool captures = false;
  std::vector<std::function<cudaError_t()>> captured;
};
