// Kernels with one mistake each, to show that the emulator meets it. Through ctypes: the launch's
// error, results in `out` (64 floats).
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <ptx.h>

#include "device.h"

namespace {

using xlstm::cuda::kAllLanes;
using xlstm::cuda::kWarp;

struct Operands {
  float* out;
};

constexpr unsigned kThreads = 2 * kWarp;

// Each thread gives its neighbour a number through shared memory.
template <bool kWaits>
__global__ void neighbours(Operands x) {
  auto* shared = reinterpret_cast<float*>(xlstm::cuda::shared_memory);
  shared[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (kWaits) __syncthreads();
  x.out[threadIdx.x] = shared[(threadIdx.x + 1) % kThreads];
}

__global__ void half_waits(Operands x) {
  if (threadIdx.x < kWarp) __syncthreads();
  x.out[threadIdx.x] = 1;
}

__global__ void two_barriers(Operands x) {
  if (threadIdx.x < kWarp) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  x.out[threadIdx.x] = 1;
}

__global__ void odd_lanes_shuffle(Operands x) {
  float value = 1;
  if (threadIdx.x % 2 == 1) value = __shfl_xor_sync(kAllLanes, value, 1);
  x.out[threadIdx.x] = value;
}

// What a sum over the warp must be: 0 + 1 + ... + 31 in the first.
__global__ void warp_sums(Operands x) {
  float value = static_cast<float>(threadIdx.x);
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  x.out[threadIdx.x] = value;
}

__global__ void past_shared(Operands x) {
  auto* shared = reinterpret_cast<float*>(xlstm::cuda::shared_memory);
  shared[threadIdx.x + 1] = 1;
  x.out[threadIdx.x] = 1;
}

__global__ void unset_shared(Operands x) {
  x.out[threadIdx.x] = reinterpret_cast<float*>(xlstm::cuda::shared_memory)[threadIdx.x];
}

// Every block reads what block 0 overwrites, as with a state that is carried on in place.
__global__ void disturbed(Operands x) {
  const float before = x.out[0];
  if (blockIdx.x == 0 && threadIdx.x == 0) x.out[0] = 2;
  if (threadIdx.x == 0 && blockIdx.x > 0) x.out[blockIdx.x] = before;
}

struct Product {
  const __nv_bfloat16 *a, *b;  // [16,16], [16,8]
  float* d;                    // [16,8]
};

// d = a b by one warp, its operands through shared memory.
template <bool kWaits>
__global__ void product(Product x) {
  using namespace xlstm::cuda;
  auto* a = reinterpret_cast<__nv_bfloat16*>(shared_memory);
  auto* b = a + 16 * 16;
  const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
  copy_async_16(a + 8 * lane, x.a + 8 * lane);
  if (lane < 16) copy_async_16(b + 8 * lane, x.b + 8 * lane);
  copy_async_commit();
  if (kWaits) copy_async_wait<0>();
  __syncthreads();
  uint32_t left[4], right[2];
  load_matrix_x4(left, a + lane % 16 * 16 + lane / 16 * 8);
  load_matrix_x2_transposed(right, b + lane % 16 * 8);
  float d[4] = {};
  mma_m16n8k16(d, left, right, __nv_bfloat16{});
  for (int i = 0; i < 4; ++i) x.d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
}

enum class Sends { kRight, kBeforeAll, kWithoutEnd, kUnparted, kOutside };

// Each thread of a cluster of two gives its namesake in the other block a number.
template <Sends kHow>
__global__ void sends(Operands x) {
  using namespace xlstm::cuda;
  auto* shared = reinterpret_cast<float*>(shared_memory);
  const int rank = static_cast<int>(blockIdx.x % 2);
  const unsigned thread = threadIdx.x + blockIdx.x * kWarp;
  if (kHow != Sends::kBeforeAll) {
    cluster_arrive();
    cluster_wait();
  }
  const auto number = static_cast<float>(thread);
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  if (kHow == Sends::kWithoutEnd && rank == 0) return;
  store_to_block(shared + threadIdx.x + (kHow == Sends::kOutside ? kThreads : 0), 1 - rank, bits);
  if (kHow == Sends::kUnparted) {
    __syncthreads();
  } else {
    cluster_arrive();
    cluster_wait();
  }
  x.out[thread] = shared[threadIdx.x];
}

__global__ void half_arrives(Operands x) {
  if (threadIdx.x == 0) xlstm::cuda::cluster_arrive();
  xlstm::cuda::cluster_arrive();
  xlstm::cuda::cluster_wait();
  x.out[threadIdx.x] = 1;
}

__global__ void one_block_waits(Operands x) {
  xlstm::cuda::cluster_arrive();
  if (blockIdx.x == 0) xlstm::cuda::cluster_wait();
  if (blockIdx.x == 0) xlstm::cuda::cluster_arrive();
  if (blockIdx.x == 0) xlstm::cuda::cluster_wait();
  x.out[threadIdx.x] = 1;
}

int launch(void (*kernel)(Operands), unsigned blocks, unsigned threads, size_t shared,
           float* out, unsigned cluster = 1) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {cluster, 1, 1};
  cudaLaunchConfig_t config = {};
  config.attrs = &attribute;
  config.numAttrs = 1;
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  return cudaLaunchKernelEx(&config, kernel, Operands{out});
}

}  // namespace

extern "C" int launch_fault(const char* name, float* out) {
  constexpr size_t kBytes = kThreads * sizeof(float);
  const auto is = [&](const char* wanted) { return std::strcmp(name, wanted) == 0; };
  if (is("waits")) return launch(neighbours<true>, 1, kThreads, kBytes, out);
  if (is("missing_barrier")) return launch(neighbours<false>, 1, kThreads, kBytes, out);
  if (is("half_waits")) return launch(half_waits, 1, kThreads, 0, out);
  if (is("two_barriers")) return launch(two_barriers, 1, kThreads, 0, out);
  if (is("odd_lanes_shuffle")) return launch(odd_lanes_shuffle, 1, kThreads, 0, out);
  if (is("warp_sums")) return launch(warp_sums, 1, kThreads, 0, out);
  if (is("past_shared")) return launch(past_shared, 1, kThreads, kBytes, out);
  if (is("unset_shared")) return launch(unset_shared, 1, kThreads, kBytes, out);
  if (is("disturbed")) return launch(disturbed, 8, kWarp, 0, out);
  const auto pair = [&](auto kernel) { return launch(kernel, 2, kWarp, kBytes / 2, out, 2); };
  if (is("sends")) return pair(sends<Sends::kRight>);
  if (is("sends_before_all")) return pair(sends<Sends::kBeforeAll>);
  if (is("sends_to_the_ended")) return pair(sends<Sends::kWithoutEnd>);
  if (is("sends_unparted")) return pair(sends<Sends::kUnparted>);
  if (is("sends_outside")) return pair(sends<Sends::kOutside>);
  if (is("half_arrives")) return pair(half_arrives);
  if (is("one_block_waits")) return pair(one_block_waits);
  if (is("odd_cluster")) return launch(warp_sums, 3, kWarp, 0, out, 2);
  if (is("large_cluster")) return launch(warp_sums, 16, kWarp, 0, out, 16);
  if (is("no_threads")) return launch(warp_sums, 1, 0, 0, out);
  if (is("much_shared")) return launch(warp_sums, 1, kThreads, 49 * 1024, out);
  return -1;
}

extern "C" int launch_product(const void* a, const void* b, float* d, int waits) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(1);
  config.blockDim = dim3(kWarp);
  config.dynamicSmemBytes = (16 * 16 + 16 * 8) * sizeof(__nv_bfloat16);
  const Product x = {static_cast<const __nv_bfloat16*>(a), static_cast<const __nv_bfloat16*>(b), d};
  return cudaLaunchKernelEx(&config, waits ? product<true> : product<false>, x);
}

// Every value rounded to the type and back.
extern "C" void through_half(const float* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = __half2float(__float2half_rn(from[i]));
}
extern "C" void through_bfloat16(const float* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = __bfloat162float(__float2bfloat16_rn(from[i]));
}
