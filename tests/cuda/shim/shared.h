// The dynamic shared memory of the block at work, which launch.cpp gives it.
#pragma once

namespace xlstm::cuda {

struct alignas(16) SharedChunk {
  unsigned char bytes[16];
};
extern SharedChunk* shared_memory;

}  // namespace xlstm::cuda
