// The operands of an sLSTM call with their types.
#pragma once

#include "element.h"

namespace xlstm::cuda {

template <class TX>
struct SlstmOperands {
  using T = Arithmetic<TX>;
  int64_t batch, time, heads;
  int size;  // R [N,H,4,H] fits in memory, so H is far below 2^31
  const T* gates;
  const TX* R;
  const T *b, *y, *c, *n, *m;
  const int32_t* lengths;
  int64_t lengths_size;
  TX* y_all;
  T *y_out, *c_out, *n_out, *m_out;
  T n_floor, f_clamp;
  bool rounds;
};

template <class TX>
SlstmOperands<TX> slstm_operands(const Call& call) {
  using T = Arithmetic<TX>;
  using namespace slstm;
  const int64_t* size = call.problem.sizes;
  const auto& attributes = *static_cast<const Attributes*>(call.attributes);
  const auto in = [&](int i) { return static_cast<const T*>(call.inputs[i]); };
  const auto out = [&](int o) { return static_cast<T*>(call.outputs[o]); };
  return {size[size_B], size[size_T], size[size_N], static_cast<int>(size[size_H]),
          in(in_gates), static_cast<const TX*>(call.inputs[in_R]), in(in_b),
          in(in_y), in(in_c), in(in_n), in(in_m),
          static_cast<const int32_t*>(call.inputs[in_lengths]), call.lengths_size,
          static_cast<TX*>(call.outputs[out_y_all]),
          out(out_y), out(out_c), out(out_n), out(out_m),
          static_cast<T>(attributes.n_floor), static_cast<T>(attributes.f_clamp),
          attributes.state_rounding == 1};
}

}  // namespace xlstm::cuda
