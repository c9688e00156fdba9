// The operands of an mLSTM call with their types, alike for CPU and CUDA.
//
// XLSTM_KERNELS is the namespace of the includer below xlstm: every instruction set compiles a copy
// of its own, which the linker must not take for another's.
#pragma once

#include <cmath>
#include <cstdint>

#include "xlstm/call.h"

#ifndef XLSTM_INLINE
#define XLSTM_INLINE inline
#endif

namespace xlstm::XLSTM_KERNELS {

// float for every activation type TX but double.
template <class TX>
struct ArithmeticOf {
  using Type = float;
};
template <>
struct ArithmeticOf<double> {
  using Type = double;
};
template <class TX>
using Arithmetic = typename ArithmeticOf<TX>::Type;

template <class TX>
struct MlstmOperands {
  using T = Arithmetic<TX>;
  int64_t batch, time, heads, qk_dim, v_dim;
  const TX *q, *k, *v;
  const T *i, *f, *C, *n, *m;
  const int32_t* lengths;
  int64_t lengths_size;
  TX* h;
  T *C_out, *n_out, *m_out;
  T soft_cap, eps, q_scale, k_scale;
  int64_t chunk_size;
};

template <class TX, class T = Arithmetic<TX>>
XLSTM_INLINE MlstmOperands<TX> mlstm_operands(const Call& call) {
  using namespace mlstm;
  const int64_t* size = call.problem.sizes;
  const auto& attributes = *static_cast<const Attributes*>(call.attributes);
  const auto tx = [&](int i) { return static_cast<const TX*>(call.inputs[i]); };
  const auto ts = [&](int i) { return static_cast<const T*>(call.inputs[i]); };
  const auto out = [&](int o) { return static_cast<T*>(call.outputs[o]); };
  const T scale = static_cast<T>(1.0 / std::sqrt(static_cast<double>(size[size_K])));
  const bool on_k = attributes.scale_side == 1;
  return {size[size_B], size[size_T], size[size_N], size[size_K], size[size_V],
          tx(in_q), tx(in_k), tx(in_v),
          ts(in_i), ts(in_f), ts(in_C), ts(in_n), ts(in_m),
          static_cast<const int32_t*>(call.inputs[in_lengths]), call.lengths_size,
          static_cast<TX*>(call.outputs[out_h]), out(out_C), out(out_n), out(out_m),
          static_cast<T>(attributes.gate_soft_cap), static_cast<T>(attributes.eps),
          on_k ? T(1) : scale, on_k ? scale : T(1),
          attributes.chunk_size};
}

}  // namespace xlstm::XLSTM_KERNELS
