// The operands of a convolution call with their types.
#pragma once

#include "element.h"

namespace xlstm::cuda {

template <class TX>
struct ConvOperands {
  using T = Arithmetic<TX>;
  int64_t batch, time, size, width;
  const TX *x, *w;
  const T *b, *state;
  const int32_t* lengths;
  int64_t lengths_size;
  TX* y;
  T* state_out;
  bool is_silu;
};

template <class TX>
ConvOperands<TX> conv1d_operands(const Call& call) {
  using T = Arithmetic<TX>;
  using namespace causalconv1d;
  const int64_t* size = call.problem.sizes;
  return {size[size_B], size[size_T], size[size_D], size[size_W],
          static_cast<const TX*>(call.inputs[in_x]), static_cast<const TX*>(call.inputs[in_w]),
          static_cast<const T*>(call.inputs[in_b]), static_cast<const T*>(call.inputs[in_state]),
          static_cast<const int32_t*>(call.inputs[in_lengths]), call.lengths_size,
          static_cast<TX*>(call.outputs[out_y]), static_cast<T*>(call.outputs[out_state]),
          static_cast<const Attributes*>(call.attributes)->activation == 1};
}

}  // namespace xlstm::cuda
