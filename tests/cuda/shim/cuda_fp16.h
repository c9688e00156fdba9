// __half and the conversions that the kernels use; to nearest, ties to even.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct __half {
  uint16_t bits = 0;
};

inline float __half2float(__half x) {
  const int exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
  float magnitude = std::ldexp(static_cast<float>(mantissa + (exponent > 0 ? 1024 : 0)),
                               (exponent > 0 ? exponent : 1) - 25);
  if (exponent == 31) magnitude = mantissa == 0 ? INFINITY : NAN;
  return x.bits & 0x8000 ? -magnitude : magnitude;
}

inline __half __float2half_rn(float x) {
  const auto sign = static_cast<uint16_t>(std::signbit(x) ? 0x8000 : 0);
  const float magnitude = std::fabs(x);
  if (std::isnan(x)) return {static_cast<uint16_t>(sign | 0x7e00)};
  if (magnitude >= 65520.f) return {static_cast<uint16_t>(sign | 0x7c00)};
  int power = 0;
  std::frexp(magnitude, &power);  // magnitude < 2^power
  const int exponent = magnitude > 0 && power + 14 > 1 ? power + 14 : 1;
  // in units of the last place; where it rounds up to the next power of two it carries over
  const auto units = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 25 - exponent)));
  return {static_cast<uint16_t>(sign | (((exponent - 1) << 10) + units))};
}
