// The likeliest token of each row, where its logits lie: V x 4 bytes a row stay on the device.
//
// A row is one block's. 200 KB of logits (V 50,304) lie in L2, since they have just been written,
// and a processor reads some 64 bytes a clock from there: about 2 us. More blocks for a row
// would need another launch, which costs as much.
#include <cmath>

#include "device.h"
#include "xlstm/cuda.h"

namespace xlstm::cuda {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / kWarp;
constexpr int kAtOnce = 8;  // loads of a thread under way: 32 KB of a processor
constexpr int kRows = 256;  // of a launch: where they begin is among its operands, 4 KB at most
constexpr int64_t kMostTokens = int64_t{1} << 30;
static_assert(kWarps == kWarp, "one warp goes over what the warps have found");

struct Rows {
  const float* logits;
  int64_t* tokens;
  float* values;
  int vocabulary, count;
  int64_t starts[kRows];
};

// Larger where the logit is, and of equal logits where the token is lower; NaN is above infinity.
// The bits of a float rise with it once all of a negative one's, and only the sign of others, are
// turned round.
__device__ uint64_t rank(float logit, uint32_t token) {
  uint32_t bits = __float_as_uint(logit + 0.f);  // -0 becomes 0
  bits = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
  if (logit != logit) bits = 0xffffffffu;
  return (uint64_t{bits} << 32) | (0xffffffffu - token);
}

__device__ uint64_t largest_of_warp(uint64_t best) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const uint64_t other = __shfl_xor_sync(kAllLanes, best, distance);
    best = other > best ? other : best;
  }
  return best;
}

__device__ uint64_t largest_of_block(const float* logits, int vocabulary) {
  auto* const of_warps = reinterpret_cast<uint64_t*>(shared_memory);
  const auto thread = static_cast<int>(threadIdx.x);
  float largest = -HUGE_VALF;
  int token = thread;
#pragma unroll kAtOnce
  for (int next = thread; next < vocabulary; next += kThreads) {
    const float logit = logits[next];
    // a first NaN is larger than all before it, and nothing after is larger
    if (!(logit <= largest) && largest == largest) largest = logit, token = next;
  }
  uint64_t best = thread < vocabulary ? rank(largest, static_cast<uint32_t>(token)) : 0;
  best = largest_of_warp(best);
  if (thread % kWarp == 0) of_warps[thread / kWarp] = best;
  __syncthreads();
  best = largest_of_warp(of_warps[thread % kWarp]);
  __syncthreads();  // another row may follow
  return best;
}

__global__ void __launch_bounds__(kThreads, 1) likeliest_tokens(Rows x) {
  for (auto row = static_cast<int>(blockIdx.x); row < x.count;
       row += static_cast<int>(gridDim.x)) {
    const float* const logits = x.logits + x.starts[row];
    const uint64_t best = largest_of_block(logits, x.vocabulary);
    if (threadIdx.x != 0) continue;
    const int64_t token = 0xffffffffu - static_cast<uint32_t>(best);
    x.tokens[row] = token;
    x.values[row] = logits[token];
  }
}

}  // namespace

Status likeliest(const float* logits, const int64_t* starts, int64_t rows, int64_t vocabulary,
                 int64_t* tokens, float* values, void* stream) {
  if (rows < 0 || vocabulary < 1 || vocabulary > kMostTokens) return Status::kBadSize;
  if (rows == 0) return Status::kOk;
  if (logits == nullptr || starts == nullptr || tokens == nullptr || values == nullptr) {
    return Status::kNullPointer;
  }
  Status status = Status::kOk;
  for (int64_t first = 0; first < rows && status == Status::kOk; first += kRows) {
    const auto count = static_cast<int>(min_of(rows - first, kRows));
    Rows x = {logits, tokens + first, values + first, static_cast<int>(vocabulary), count, {}};
    for (int row = 0; row < count; ++row) x.starts[row] = starts[first + row];
    status = launch_kernel(likeliest_tokens, x, count, kThreads, kWarps * sizeof(uint64_t), stream);
  }
  return status;
}

}  // namespace xlstm::cuda
