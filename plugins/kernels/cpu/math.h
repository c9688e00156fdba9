// exp, tanh, log-sigmoid and their kin on vectors: within 2.5 ulp, NaN in NaN out. Where exp(-x)
// overflows, sigmoid(x) and silu(x) are 0.
#pragma once

#include "simd.h"

namespace xlstm::cpu::XLSTM_ISA {

// Polynomial of (exp(r) - 1 - r) / r^2 on |r| <= ln(2)/2, highest power first: for float the one
// of least relative error of exp (3e-9), for double the Taylor series.
template <class T>
struct ExpSeries;
template <>
struct ExpSeries<float> {
  static constexpr float kCoefficients[] = {0x1.6a2404p-10f, 0x1.1239ffp-7f, 0x1.5558f3p-5f,
                                            0x1.555491p-3f, 0x1.fffffcp-2f};
  static constexpr float kLargest = 89.f, kSmallest = -104.f;
  static constexpr float kLog2High = 0x1.62e4p-1f, kLog2Low = 0x1.7f7d1cp-20f;
  static constexpr float kRound = 0x1.8p23f;  // adding it leaves the integer in the low bits
};
template <>
struct ExpSeries<double> {
  static constexpr double kCoefficients[] = {
      1. / 87178291200, 1. / 6227020800, 1. / 479001600, 1. / 39916800, 1. / 3628800,
      1. / 362880,      1. / 40320,      1. / 5040,      1. / 720,      1. / 120,
      1. / 24,          1. / 6,          1. / 2};
  static constexpr double kLargest = 710., kSmallest = -746.;
  static constexpr double kLog2High = 0x1.62e42feep-1, kLog2Low = 0x1.a39ef35793c76p-33;
  static constexpr double kRound = 0x1.8p52;
};

template <class T>
struct ReducedExp {
  Vec<T> expm1;     // exp(r) - 1, x = n ln 2 + r
  Vec<T> n;
  IntVec<T> power;  // n as an integer
};

// exp(x) = 2^n (1 + expm1(r)); x is clamped to where exp leaves the type's range.
template <class T>
XLSTM_INLINE ReducedExp<T> reduce_exp(Vec<T> x) {
  using Series = ExpSeries<T>;
  x = at_least(x, broadcast(Series::kSmallest));
  x = at_most(x, broadcast(Series::kLargest));
  const Vec<T> round = broadcast(Series::kRound);
  const Vec<T> shifted = fma(x, broadcast(T(0x1.71547652b82fep0)), round);
  const Vec<T> n = shifted - round;
  Vec<T> r = fma(n, broadcast(-Series::kLog2High), x);
  r = fma(n, broadcast(-Series::kLog2Low), r);
  Vec<T> series = broadcast(Series::kCoefficients[0]);
  constexpr int kTerms = sizeof(Series::kCoefficients) / sizeof(T);
  for (int i = 1; i < kTerms; ++i) series = fma(series, r, broadcast(Series::kCoefficients[i]));
  const Vec<T> expm1 = fma(series, r * r, r);
  return {expm1, n, (IntVec<T>)shifted - (IntVec<T>)round};
}

// 2^n for n in the range of normal numbers.
template <class T>
XLSTM_INLINE Vec<T> power_of_two(IntVec<T> n) {
  return (Vec<T>)((n + Simd<T>::kExponentBias) << Simd<T>::kMantissaBits);
}

#if defined(__AVX512F__)
// x 2^n for any n: infinite or subnormal where it must be.
XLSTM_INLINE Vec<float> times_power_of_two(Vec<float> x, Vec<float> n) {
  return (Vec<float>)_mm512_scalef_ps((__m512)x, (__m512)n);
}
XLSTM_INLINE Vec<double> times_power_of_two(Vec<double> x, Vec<double> n) {
  return (Vec<double>)_mm512_scalef_pd((__m512d)x, (__m512d)n);
}
#endif

template <class T>
XLSTM_INLINE Vec<T> exp(Vec<T> x) {
  const ReducedExp<T> e = reduce_exp<T>(x);
#if defined(__AVX512F__)
  return times_power_of_two(broadcast(T(1)) + e.expm1, e.n);
#else
  // in two factors: 2^n alone may be out of range where the result is subnormal or infinite
  const IntVec<T> half = e.power >> 1;
  const Vec<T> scaled = fma(e.expm1, power_of_two<T>(half), power_of_two<T>(half));
  return scaled * power_of_two<T>(e.power - half);
#endif
}

// exp(x) - 1 for x <= 0.
template <class T>
XLSTM_INLINE Vec<T> expm1_of_negative(Vec<T> x) {
  const ReducedExp<T> e = reduce_exp<T>(at_least(x, broadcast(T(-40))));
  const Vec<T> scale = power_of_two<T>(e.power);
  return fma(e.expm1, scale, scale - broadcast(T(1)));
}

// (1 - e) / (1 + e) with e = exp(-2|x|), and the sign of x.
template <class T>
XLSTM_INLINE Vec<T> tanh(Vec<T> x) {
  const Vec<T> e = expm1_of_negative<T>(broadcast(T(-2)) * absolute<T>(x));
  return with_sign<T>(e / (broadcast(T(2)) + e), x);
}

// 1 / (1 + exp(-x))
template <class T>
XLSTM_INLINE Vec<T> sigmoid(Vec<T> x) {
  return broadcast(T(1)) / (broadcast(T(1)) + exp<T>(-x));
}

// x / (1 + exp(-x))
template <class T>
XLSTM_INLINE Vec<T> silu(Vec<T> x) {
  return x / (broadcast(T(1)) + exp<T>(-x));
}

// log(1 + e) = 2 atanh(s), s = e / (2 + e), for 0 <= e <= 1: s <= 1/3, so the series is short.
template <class T>
XLSTM_INLINE Vec<T> log1p_of_fraction(Vec<T> e) {
  constexpr int kTerms = sizeof(T) == 4 ? 7 : 17;
  const Vec<T> s = e / (broadcast(T(2)) + e);
  const Vec<T> square = s * s;
  Vec<T> series = broadcast(T(1) / T(2 * kTerms + 1));
  for (int i = kTerms - 1; i > 0; --i) series = fma(series, square, broadcast(T(1) / T(2 * i + 1)));
  const Vec<T> twice = s + s;
  return fma(series * square, twice, twice);
}

// log(sigmoid(x)) = min(x, 0) - log(1 + exp(-|x|))
template <class T>
XLSTM_INLINE Vec<T> log_sigmoid(Vec<T> x) {
  const Vec<T> tail = log1p_of_fraction<T>(exp<T>(-absolute<T>(x)));
  return at_most(x, zero<T>()) - tail;
}

// cap tanh(x / cap), or x where cap is 0.
template <class T>
XLSTM_INLINE Vec<T> soft_cap(Vec<T> x, T cap) {
  return cap > 0 ? broadcast(cap) * tanh<T>(x / broadcast(cap)) : x;
}

}  // namespace xlstm::cpu::XLSTM_ISA
