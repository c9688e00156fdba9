// One cell of the sLSTM in float32. A step of the recurrence waits for it and it is most of a
// step's instructions: written for few of them and for a short chain.
//
//   m' = i where n == 0, else max(i, k),  k = m + log sigmoid(f)
//   I = min(1, exp(i - m')), F = min(1, exp(k - m'))
//   c' = F c + I tanh(z), n' = F n + I, y' = sigmoid(o) c' / n'
//
// One of i - m' and k - m' is 0 and the other -|i - k|, so both factors cost one exponential.
#pragma once

#include <ptx.h>

#include "element.h"
#include "gates.h"

namespace xlstm::cuda {

constexpr float kPerLn2 = 1.44269504f;

// exp(x), x taken for +-87 beyond: 2^t (1 + r), t = x / ln 2 rounded, r = x - t ln 2 the rest.
__device__ inline float exp_of(float x) {
  constexpr float kLn2 = 0.693147182f, kLn2Rest = -1.90465421e-9f, kMost = 87.f;
  x = minimum(maximum(x, -kMost), kMost);
  const float t = x * kPerLn2, power = exp2_approximate(t);
  return std::fma(power, std::fma(-t, kLn2Rest, std::fma(-t, kLn2, x)), power);
}

// exp(-d) for d >= 0, to 3e-7 of 1. A factor near 1 is applied for as many steps as it is near:
// there the error is that of rounding, 1 - d (1 + d Q(d)).
__device__ inline float decay_of(float d) {
  constexpr float kNear = 0.25f;
  const float d2 = d * d, far = exp2_approximate(-d * kPerLn2);
  const float q = std::fma(d2, std::fma(d, 0.0075102183f, -0.041488953f),
                           std::fma(d, 0.16665082f, -0.4999995f));
  const float near = 1.f - std::fma(d2, q, d);
  return d < kNear ? near : far;
}

// log(1 + exp(-|f|)) = e + e^2 Q(e), Q of degree 7, relative error 3e-8. As a tree: log1pf is a
// chain of twice its length.
__device__ inline float log1p_exp_of(float f) {
  const float e = exp2_approximate(std::fabs(f) * -kPerLn2), e2 = e * e, e4 = e2 * e2;
  const float q0 = std::fma(e, 0.33321321f, -0.49999648f);
  const float q2 = std::fma(e, 0.19153646f, -0.24857162f);
  const float q4 = std::fma(e, 0.079204284f, -0.13753781f);
  const float q6 = std::fma(e, 0.0053647836f, -0.030065633f);
  return std::fma(e2, std::fma(e4, std::fma(e2, q6, q4), std::fma(e2, q2, q0)), e);
}

struct SlstmLimits {
  float f_most, n_least;  // infinite where there is none
};

struct SlstmCell {
  float y, c, n, m;
};

template <bool kRounds>
__device__ float as_state(float x) {
  return kRounds ? round_to_bfloat16(x) : x;
}

// raw: i, f, z, o.
template <bool kRounds>
__device__ SlstmCell slstm_next(const float (&raw)[4], const SlstmCell& s, SlstmLimits limits) {
  const float input = raw[0], f = minimum(raw[1], limits.f_most);
  const float kept = (s.m + minimum(f, 0.f)) - log1p_exp_of(f);
  const float ahead = input - kept, other = decay_of(std::fabs(ahead));
  const float m = s.n == 0.f ? input : maximum(input, kept);
  const float one = m - m + 1.f;  // exp(m' - m'), which is NaN where m' is infinite
  const float write = s.n == 0.f || ahead >= 0.f ? one : other;
  const float forget = ahead < 0.f ? one : other;
  const float c = std::fma(forget, s.c, write * std::tanh(raw[2]));
  const float n = maximum(std::fma(forget, s.n, write), limits.n_least);
  const float open = reciprocal_approximate(1.f + exp_of(-raw[3]));
  const float y = c * open * reciprocal_approximate(n);
  return {as_state<kRounds>(y), as_state<kRounds>(c), as_state<kRounds>(n), as_state<kRounds>(m)};
}

}  // namespace xlstm::cuda
