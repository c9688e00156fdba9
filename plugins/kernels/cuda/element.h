// The activation types TX on the device, read and written as the arithmetic type.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "device.h"

#define XLSTM_KERNELS cuda
#include "xlstm/mlstm_operands.h"

namespace xlstm::cuda {

__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline float widen(__half x) { return __half2float(x); }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

// To nearest, ties to even.
template <class TX>
__device__ TX narrow(Arithmetic<TX> x) {
  return x;
}
template <>
__device__ inline __half narrow<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// A double goes through float, as it does in torch.
template <class T>
__device__ T round_to_bfloat16(T x) {
  return static_cast<T>(__bfloat162float(__float2bfloat16_rn(static_cast<float>(x))));
}

// `body` with a value of the type that stands for `dtype`.
template <class Body>
auto with_element(DType dtype, Body body) {
  switch (dtype) {
    case DType::kFloat16: return body(__half{});
    case DType::kBfloat16: return body(__nv_bfloat16{});
    case DType::kFloat64: return body(double{});
    default: return body(float{});
  }
}

inline bool is_half(DType dtype) {
  return dtype == DType::kBfloat16 || dtype == DType::kFloat16;
}
// The same for one of two bytes, and for both, while `body` answers kOk.
template <class Body>
auto with_half(DType dtype, Body body) {
  return dtype == DType::kFloat16 ? body(__half{}) : body(__nv_bfloat16{});
}
template <class Body>
Status for_each_half(Body body) {
  const Status status = body(__nv_bfloat16{});
  return status == Status::kOk ? body(__half{}) : status;
}

// `body` with a value of each element type whose arithmetic is float's, while it answers kOk.
template <class Body>
Status for_each_single(Body body) {
  Status status = body(float{});
  if (status == Status::kOk) status = body(__half{});
  return status == Status::kOk ? body(__nv_bfloat16{}) : status;
}
// Of every element type.
template <class Body>
Status for_each_element(Body body) {
  const Status status = for_each_single(body);
  return status == Status::kOk ? body(double{}) : status;
}

}  // namespace xlstm::cuda
