// Reading and writing the activation types TX as vectors of the arithmetic type.
#pragma once

#include "simd.h"

#define XLSTM_KERNELS cpu::XLSTM_ISA
#include "xlstm/mlstm_operands.h"

namespace xlstm::cpu::XLSTM_ISA {

struct Float16 {
  uint16_t bits;
};
struct Bfloat16 {
  uint16_t bits;
};

#if !defined(__F16C__) && !defined(__ARM_NEON)
XLSTM_INLINE float widen_one(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  uint32_t bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
  if (exponent == 0x1f) bits = sign | 0x7f800000u | (mantissa << 13);
  float value;
  std::memcpy(&value, &bits, sizeof value);
  if (exponent == 0) {  // subnormal: mantissa * 2^-24
    value = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  return value;
}

// To nearest, ties to even.
XLSTM_INLINE uint16_t narrow_one(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {  // subnormal or 0: the float adder rounds to multiples of 2^-24
    float absolute_value;
    std::memcpy(&absolute_value, &magnitude, sizeof absolute_value);
    const float shifted = absolute_value + 0.5f;
    uint32_t shifted_bits;
    std::memcpy(&shifted_bits, &shifted, sizeof shifted_bits);
    return static_cast<uint16_t>(sign | (shifted_bits - 0x3f000000u));
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}
#endif

XLSTM_INLINE Vec<float> load_wide(const float* p) { return load(p); }
XLSTM_INLINE Vec<double> load_wide(const double* p) { return load(p); }
XLSTM_INLINE void store_narrow(float* p, Vec<float> v) { store(p, v); }
XLSTM_INLINE void store_narrow(double* p, Vec<double> v) { store(p, v); }

XLSTM_INLINE Vec<float> load_wide(const Float16* p) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
  return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__ARM_NEON)
  return (Vec<float>)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)));
#else
  Vec<float> v;
  for (int i = 0; i < kLanes<float>; ++i) v[i] = widen_one(p[i].bits);
  return v;
#endif
}

XLSTM_INLINE void store_narrow(Float16* p, Vec<float> v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__ARM_NEON)
  vst1_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v)));
#else
  for (int i = 0; i < kLanes<float>; ++i) p[i].bits = narrow_one(v[i]);
#endif
}

typedef uint16_t Uint16s __attribute__((vector_size(kVectorBytes / 2)));
typedef uint32_t Uint32s __attribute__((vector_size(kVectorBytes)));

XLSTM_INLINE Vec<float> load_wide(const Bfloat16* p) {
  Uint16s bits;
  std::memcpy(&bits, p, sizeof bits);
  return (Vec<float>)(__builtin_convertvector(bits, Uint32s) << 16);
}

// `v` rounded to bfloat16, in the upper half of each float's bits; to nearest, ties to even.
XLSTM_INLINE Uint32s bfloat16_bits(Vec<float> v) {
  const Uint32s bits = (Uint32s)v;
  const Uint32s rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const Uint32s is_nan = (Uint32s)((bits & 0x7fffffffu) > 0x7f800000u);
  return (is_nan & (bits | 0x400000u)) | (~is_nan & rounded);
}

XLSTM_INLINE void store_narrow(Bfloat16* p, Vec<float> v) {
  const Uint16s bits = __builtin_convertvector(bfloat16_bits(v) >> 16, Uint16s);
  std::memcpy(p, &bits, sizeof bits);
}

XLSTM_INLINE Vec<float> round_to_bfloat16(Vec<float> v) {
  return (Vec<float>)(bfloat16_bits(v) & 0xffff0000u);
}
XLSTM_INLINE Vec<double> round_to_bfloat16(Vec<double> v) {
  Vec<double> rounded = {};
  for (int i = 0; i < kLanes<double>; ++i) {
    // through float, as torch does
    const Vec<float> wide = round_to_bfloat16(broadcast(static_cast<float>(v[i])));
    rounded[i] = static_cast<double>(wide[0]);
  }
  return rounded;
}

// The first `count` elements; the others are 0.
template <class TX>
XLSTM_INLINE Vec<Arithmetic<TX>> load_wide_first(const TX* p, int64_t count) {
  constexpr int kCount = kLanes<Arithmetic<TX>>;
  if (count >= kCount) return load_wide(p);
  TX buffer[kCount] = {};
  for (int64_t i = 0; i < kCount && i < count; ++i) buffer[i] = p[i];
  return load_wide(buffer);
}

template <class TX>
XLSTM_INLINE void store_narrow_first(TX* p, Vec<Arithmetic<TX>> v, int64_t count) {
  constexpr int kCount = kLanes<Arithmetic<TX>>;
  if (count >= kCount) return store_narrow(p, v);
  TX buffer[kCount];
  store_narrow(buffer, v);
  for (int64_t i = 0; i < kCount && i < count; ++i) p[i] = buffer[i];
}

}  // namespace xlstm::cpu::XLSTM_ISA
