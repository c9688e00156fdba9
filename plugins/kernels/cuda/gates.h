// Gate functions in the arithmetic type; NaN in, NaN out.
#pragma once

#include <cmath>

#include "device.h"

namespace xlstm::cuda {

template <class T>
__device__ T at_least(T a, T b) {
  return a < b || b != b ? b : a;
}
template <class T>
__device__ T at_most(T a, T b) {
  return b < a || b != b ? b : a;
}

// log(sigmoid(x)) = min(x, 0) - log(1 + exp(-|x|))
template <class T>
__device__ T log_sigmoid(T x) {
  return at_most(x, T(0)) - std::log1p(std::exp(-std::fabs(x)));
}

// cap tanh(x / cap), or x where cap is 0.
template <class T>
__device__ T soft_cap(T x, T cap) {
  return cap > 0 ? cap * std::tanh(x / cap) : x;
}

// x / (1 + exp(-x))
template <class T>
__device__ T silu(T x) {
  return x / (T(1) + std::exp(-x));
}

}  // namespace xlstm::cuda
