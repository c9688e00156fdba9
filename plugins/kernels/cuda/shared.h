// A block's dynamic shared memory. Include it as <shared.h>: tests/cuda/shim has one of its own.
#pragma once

namespace xlstm::cuda {

struct alignas(16) SharedChunk {
  unsigned char bytes[16];
};
extern __shared__ SharedChunk shared_memory[];

}  // namespace xlstm::cuda
