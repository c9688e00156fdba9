// Vectors of float and double in the instruction set this file is compiled for.
//
// The types are the vector extensions of GCC and Clang, so +, -, *, / and comparisons are the
// language's own. Everything lives in the set's namespace: no code compiled for one set can be
// merged with another's at link time; for that reason no template of the standard library is used.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define XLSTM_INLINE static inline __attribute__((always_inline))

namespace xlstm::cpu::XLSTM_ISA {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

template <class T>
struct Simd;

template <>
struct Simd<float> {
  typedef float Vector __attribute__((vector_size(kVectorBytes)));
  typedef int32_t Integers __attribute__((vector_size(kVectorBytes)));
  using Integer = int32_t;
  static constexpr int kMantissaBits = 23;
  static constexpr int kExponentBias = 127;
};

template <>
struct Simd<double> {
  typedef double Vector __attribute__((vector_size(kVectorBytes)));
  typedef int64_t Integers __attribute__((vector_size(kVectorBytes)));
  using Integer = int64_t;
  static constexpr int kMantissaBits = 52;
  static constexpr int kExponentBias = 1023;
};

template <class T>
using Vec = typename Simd<T>::Vector;
template <class T>
using IntVec = typename Simd<T>::Integers;
template <class T>
inline constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

XLSTM_INLINE int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
XLSTM_INLINE int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
XLSTM_INLINE int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

template <class T>
XLSTM_INLINE Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
XLSTM_INLINE void store(T* p, Vec<T> v) {
  std::memcpy(p, &v, sizeof v);
}

// To an aligned place that is not read soon: past the caches where the set has such a store. Others
// see it once await_stores() has been called.
template <class T>
XLSTM_INLINE void store_past_caches(T* p, Vec<T> v) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#elif defined(__AVX2__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#else
  store(p, v);
#endif
}

XLSTM_INLINE void await_stores() {
#if defined(__AVX2__) || defined(__AVX512F__)
  _mm_sfence();
#endif
}

// The first `count` elements; the others are 0.
template <class T>
XLSTM_INLINE Vec<T> load_first(const T* p, int64_t count) {
  if (count >= kLanes<T>) return load(p);
  T buffer[kLanes<T>] = {};
  for (int64_t i = 0; i < kLanes<T> && i < count; ++i) buffer[i] = p[i];
  return load(buffer);
}

template <class T>
XLSTM_INLINE void store_first(T* p, Vec<T> v, int64_t count) {
  if (count >= kLanes<T>) return store(p, v);
  T buffer[kLanes<T>];
  store(buffer, v);
  for (int64_t i = 0; i < kLanes<T> && i < count; ++i) p[i] = buffer[i];
}

#if defined(__AVX512F__)
XLSTM_INLINE Vec<float> broadcast(float x) { return (Vec<float>)_mm512_set1_ps(x); }
XLSTM_INLINE Vec<double> broadcast(double x) { return (Vec<double>)_mm512_set1_pd(x); }
XLSTM_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
XLSTM_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
#elif defined(__AVX2__)
XLSTM_INLINE Vec<float> broadcast(float x) { return (Vec<float>)_mm256_set1_ps(x); }
XLSTM_INLINE Vec<double> broadcast(double x) { return (Vec<double>)_mm256_set1_pd(x); }
XLSTM_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Vec<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
XLSTM_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Vec<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
#elif defined(__ARM_NEON)
XLSTM_INLINE Vec<float> broadcast(float x) { return (Vec<float>)vdupq_n_f32(x); }
XLSTM_INLINE Vec<double> broadcast(double x) { return (Vec<double>)vdupq_n_f64(x); }
XLSTM_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Vec<float>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
XLSTM_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Vec<double>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
#else
XLSTM_INLINE Vec<float> broadcast(float x) { return Vec<float>{x, x, x, x}; }
XLSTM_INLINE Vec<double> broadcast(double x) { return Vec<double>{x, x}; }
// Not fused: the baseline has no such instruction.
XLSTM_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return a * b + c; }
XLSTM_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return a * b + c; }
#endif

template <class T>
XLSTM_INLINE Vec<T> zero() {
  return Vec<T>{};
}

// Where `a` is NaN the result is NaN.
template <class V>
XLSTM_INLINE V at_least(V a, V b) {
  return a < b ? b : a;
}
template <class V>
XLSTM_INLINE V at_most(V a, V b) {
  return a > b ? b : a;
}

// The larger; NaN where either is.
template <class V>
XLSTM_INLINE V larger(V a, V b) {
  const V chosen = a < b ? b : a;
  return b == b ? chosen : b;
}

template <class T>
XLSTM_INLINE Vec<T> absolute(Vec<T> v) {
  using Integer = typename Simd<T>::Integer;
  const Integer all_but_sign = static_cast<Integer>(~(Integer{1} << (8 * sizeof(T) - 1)));
  return (Vec<T>)((IntVec<T>)v & all_but_sign);
}

// Magnitude of `magnitude`, sign of `sign`.
template <class T>
XLSTM_INLINE Vec<T> with_sign(Vec<T> magnitude, Vec<T> sign) {
  using Integer = typename Simd<T>::Integer;
  const Integer all_but_sign = static_cast<Integer>(~(Integer{1} << (8 * sizeof(T) - 1)));
  return (Vec<T>)(((IntVec<T>)magnitude & all_but_sign) | ((IntVec<T>)sign & ~all_but_sign));
}

// Of lanes that differ in the bit `kBit`, `a` keeps the lower and takes `b`'s lower into the upper;
// `b` the other way round: a 2x2 transposition of blocks of kBit lanes.
template <int kBit, class V, int... kLane>
XLSTM_INLINE void exchange_blocks(V& a, V& b, std::integer_sequence<int, kLane...>) {
  constexpr int kOther = sizeof...(kLane);  // where b's lanes begin
  const V lower = __builtin_shufflevector(a, b, (kLane & kBit ? kOther + kLane - kBit : kLane)...);
  b = __builtin_shufflevector(a, b, (kLane & kBit ? kOther + kLane : kLane + kBit)...);
  a = lower;
}

// A square of kLanes vectors, rows and columns exchanged: blocks of half the size at each level.
template <class T, int kBit = kLanes<T> / 2>
XLSTM_INLINE void transpose(Vec<T>* rows) {
#pragma GCC unroll 16
  for (int r = 0; r < kLanes<T>; ++r) {
    if ((r & kBit) == 0) {
      exchange_blocks<kBit>(rows[r], rows[r + kBit], std::make_integer_sequence<int, kLanes<T>>());
    }
  }
  if constexpr (kBit > 1) transpose<T, kBit / 2>(rows);
}

// The lanes moved down by kBy, those of the front to the end.
template <int kBy, class V, int... kLane>
XLSTM_INLINE V rotate(V v, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(v, v, ((kLane + kBy) % static_cast<int>(sizeof...(kLane)))...);
}

// The lanes' sum, by halves.
template <class T, int kHalf = kLanes<T> / 2>
XLSTM_INLINE T sum_lanes(Vec<T> v) {
  v = v + rotate<kHalf>(v, std::make_integer_sequence<int, kLanes<T>>());
  if constexpr (kHalf > 1) return sum_lanes<T, kHalf / 2>(v);
  return v[0];
}

template <class T, int kHalf = kLanes<T> / 2>
XLSTM_INLINE T largest_lane(Vec<T> v) {
  v = at_least(rotate<kHalf>(v, std::make_integer_sequence<int, kLanes<T>>()), v);
  if constexpr (kHalf > 1) return largest_lane<T, kHalf / 2>(v);
  return v[0];
}

}  // namespace xlstm::cpu::XLSTM_ISA
