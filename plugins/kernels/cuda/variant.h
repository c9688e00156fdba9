// The kernels of an operator among which a launch chooses.
#pragma once

#include <cstddef>
#include <cstdint>

#include "xlstm/call.h"

namespace xlstm::cuda {

constexpr int kClusterShapes = 4;

// What choosing depends on: a plain value, asked for once, so that a choice is a pure function.
struct Device {
  int sm;                // compute capability, such as 90
  int processors;        // multiprocessors
  int64_t shared_bytes;  // shared memory a block may have, where it is asked for
  bool has_clusters;     // of blocks
  // How many clusters of each shape of slstm/clusters.cu run at once; its prepare finds out.
  int clusters[kClusterShapes];
};

// One way to compute an operator.
struct Variant {
  const char* name;
  // Whether it takes calls of these sizes, types and attributes (the operator's struct) there.
  bool (*fits)(const Problem& problem, const void* attributes, const Device& device);
  // Device bytes it needs. Never less where B or T is more: TensorRT asks for the largest alone.
  size_t (*workspace_size)(const Problem& problem);
  // Once for each device and before the first launch: every kernel is loaded, so that no capture
  // of a graph has to, and is given the shared memory it will ask for. What that tells of the
  // device is added to it.
  Status (*prepare)(Device& device);
  // Queue a checked call that fits.
  Status (*launch)(const Call& call, const Device& device, void* stream);
};

// An operator's variants. The first that fits a call runs; the last, plain, takes every call.
struct Kernel {
  const char* variable;  // of the environment: a variant's name, which is then the only one
  const Variant* const* variants;
  int count;
};

extern const Kernel kMlstmKernel;
extern const Kernel kSlstmKernel;
extern const Kernel kConv1dKernel;

}  // namespace xlstm::cuda
