// Variant `vector` of XlstmCausalConv1d, for W = 4 and channels in packs of four.
//
//   y_t = act(b + sum_j w_j x_{t - (W-1) + j}), x before step 0 = the state.
//
// A thread has a pack of channels over a stretch of steps and asks for a batch of x at once, so
// that a processor has tens of KB under way. What a window shares with the next stays in registers.
#include <initializer_list>

#include "conv1d/operands.h"
#include "variant.h"

namespace xlstm::cuda {
namespace {

constexpr int kWidth = 4, kKept = kWidth - 1;
constexpr int kCount = 4;  // channels of a thread
constexpr int kBatch = 4;  // steps whose x it asks for at once
constexpr int kThreads = 128, kBlocks = 8;           // of a block; of a processor
constexpr int64_t kLeastStretch = 8, kMostStretch = 64;  // steps of a thread
constexpr int64_t kMostUnits = int64_t{1} << 30;

template <class T>
struct alignas(min_of(16, kCount * sizeof(T))) Pack {
  T at[kCount];
};

// kCount elements; where they are not aligned, one by one.
template <bool kAligned, class T>
__device__ Pack<T> load_pack(const T* from) {
  if constexpr (kAligned) {
    return *reinterpret_cast<const Pack<T>*>(from);
  } else {
    Pack<T> pack;
#pragma unroll
    for (int e = 0; e < kCount; ++e) pack.at[e] = from[e];
    return pack;
  }
}

template <bool kAligned, class T>
__device__ void store_pack(T* to, const Pack<T>& pack) {
  if constexpr (kAligned) {
    *reinterpret_cast<Pack<T>*>(to) = pack;
  } else {
#pragma unroll
    for (int e = 0; e < kCount; ++e) to[e] = pack.at[e];
  }
}

// x / (1 + exp(-x)) by exp(-|x|), which does not overflow, within 4 units in the last place.
__device__ inline float silu_of(float x) {
  const float e = __expf(-std::fabs(x));
  return __fdividef(x >= 0.f ? x : x * e, 1.f + e);
}

template <class TX>
struct VectorProblem : ConvOperands<TX> {
  unsigned stretch;                   // steps of a thread
  unsigned stretches, blocks, units;  // of a row; of a step's channels; in all
};

// Input of the channels from `d` on at `step` of the row; before step 0 it lies in the state.
template <bool kAligned, class TX>
__device__ Pack<float> input_at(const VectorProblem<TX>& o, int64_t row, int64_t step, int64_t d) {
  if (step < 0) return load_pack<kAligned>(o.state + (row * kKept + kKept + step) * o.size + d);
  const auto x = load_pack<kAligned>(o.x + (row * o.time + step) * o.size + d);
  Pack<float> wide;
#pragma unroll
  for (int c = 0; c < kCount; ++c) wide.at[c] = widen(x.at[c]);
  return wide;
}

// The last W-1 inputs. The thread that has the row's first stretch, which alone reads the state,
// writes it too.
template <bool kAligned, class TX>
__device__ void carry_state(const VectorProblem<TX>& o, int64_t row, int64_t steps, int64_t d) {
  Pack<float> last[kKept];
#pragma unroll
  for (int j = 0; j < kKept; ++j) last[j] = input_at<kAligned>(o, row, steps - kKept + j, d);
#pragma unroll
  for (int j = 0; j < kKept; ++j) {
    store_pack<kAligned>(o.state_out + (row * kKept + j) * o.size + d, last[j]);
  }
}

// What a thread keeps over its steps: the inputs before the next one, and the weights.
struct Filter {
  Pack<float> window[kKept], bias;
  float taps[kCount][kWidth];
};

template <bool kAligned, class TX>
__device__ Filter load_filter(const VectorProblem<TX>& o, int64_t row, int64_t begin, int64_t d) {
  Filter filter;
#pragma unroll
  for (int p = 0; p < kWidth; ++p) {  // the taps of a channel lie together
    const auto pack = load_pack<kAligned>(o.w + d * kWidth + p * kCount);
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      filter.taps[(p * kCount + e) / kWidth][(p * kCount + e) % kWidth] = widen(pack.at[e]);
    }
  }
  filter.bias = load_pack<kAligned>(o.b + d);
#pragma unroll
  for (int j = 0; j < kKept; ++j) {
    filter.window[j] = input_at<kAligned>(o, row, begin - kKept + j, d);
  }
  return filter;
}

// y of kSteps steps, x of all asked for before any is used.
template <int kSteps, bool kAligned, class TX>
__device__ void convolve(const TX* x, TX* y, int64_t stride, bool is_silu, Filter& filter) {
  Pack<TX> batch[kSteps];
#pragma unroll
  for (int t = 0; t < kSteps; ++t) batch[t] = load_pack<kAligned>(x + t * stride);
#pragma unroll
  for (int t = 0; t < kSteps; ++t) {
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      const float now = widen(batch[t].at[c]);
      float sum = filter.bias.at[c];
#pragma unroll
      for (int j = 0; j < kKept; ++j) {
        sum = std::fma(filter.window[j].at[c], filter.taps[c][j], sum);
      }
      sum = std::fma(now, filter.taps[c][kKept], sum);
#pragma unroll
      for (int j = 1; j < kKept; ++j) filter.window[j - 1].at[c] = filter.window[j].at[c];
      filter.window[kKept - 1].at[c] = now;
      const float activated = silu_of(sum);
      batch[t].at[c] = narrow<TX>(is_silu ? activated : sum);
    }
    store_pack<kAligned>(y + t * stride, batch[t]);
  }
}

// y over the steps [begin, end), of which those before `steps` count.
template <bool kAligned, class TX>
__device__ void convolve_stretch(const VectorProblem<TX>& o, int64_t row, int64_t begin,
                                 int64_t end, int64_t steps, int64_t d) {
  auto filter = load_filter<kAligned>(o, row, begin, d);
  const int64_t first = (row * o.time + begin) * o.size + d;
  const TX* x = o.x + first;
  TX* y = o.y + first;
  auto left = static_cast<int>(max_of(0, min_of(steps, end) - begin));
  auto past = static_cast<int>(end - begin) - left;
#pragma unroll 1
  for (; left >= kBatch; left -= kBatch, x += kBatch * o.size, y += kBatch * o.size) {
    convolve<kBatch, kAligned>(x, y, o.size, o.is_silu, filter);
  }
#pragma unroll 1
  for (; left > 0; --left, x += o.size, y += o.size) {
    convolve<1, kAligned>(x, y, o.size, o.is_silu, filter);
  }
  Pack<TX> zeros;
#pragma unroll
  for (int c = 0; c < kCount; ++c) zeros.at[c] = narrow<TX>(0.f);
#pragma unroll 1
  for (; past > 0; --past, y += o.size) store_pack<kAligned>(y, zeros);
}

template <class TX, bool kAligned>
__global__ void __launch_bounds__(kThreads, kAligned ? kBlocks : 6)
    conv1d_vector(VectorProblem<TX> o) {
  for (unsigned unit = blockIdx.x; unit < o.units; unit += gridDim.x) {
    const unsigned part = unit / o.blocks, row = part / o.stretches;
    const int64_t d = int64_t{(unit - part * o.blocks) * blockDim.x + threadIdx.x} * kCount;
    if (d >= o.size) continue;
    const int64_t begin = int64_t{part - row * o.stretches} * o.stretch;
    const int64_t steps = valid_steps(o.lengths, o.lengths_size, row, o.time);
    convolve_stretch<kAligned>(o, row, begin, min_of(begin + o.stretch, o.time), steps, d);
    if (begin == 0) carry_state<kAligned>(o, row, steps, d);
  }
}

bool are_aligned(std::initializer_list<const void*> operands) {
  for (const void* operand : operands) {
    if (reinterpret_cast<uintptr_t>(operand) % 16 != 0) return false;
  }
  return true;
}

// Steps of a thread: so many that all threads are on the processors at once.
int64_t stretch_of(int64_t threads, const Device& device) {
  const int64_t at_once = int64_t{kThreads} * kBlocks * device.processors;
  const int64_t stretch = round_up(parts_of(threads, at_once), kBatch);
  return max_of(kLeastStretch, min_of(stretch, kMostStretch));
}

template <class TX>
Status launch_vector(const Call& call, const Device& device, void* stream) {
  VectorProblem<TX> o = {conv1d_operands<TX>(call), 0, 0, 0, 0};
  const int64_t packs = o.size / kCount, threads = min_of(round_up(packs, kWarp), kThreads);
  const int64_t stretch = stretch_of(o.batch * o.time * packs, device);
  o.stretch = static_cast<unsigned>(stretch);
  o.stretches = static_cast<unsigned>(parts_of(o.time, stretch));
  o.blocks = static_cast<unsigned>(parts_of(packs, threads));
  o.units = static_cast<unsigned>(o.batch) * o.stretches * o.blocks;
  const bool aligned = are_aligned({o.x, o.w, o.b, o.state, o.y, o.state_out});
  return launch_kernel(aligned ? conv1d_vector<TX, true> : conv1d_vector<TX, false>, o, o.units,
                       threads, 0, stream);
}

bool fits(const Problem& problem, const void*, const Device&) {
  using namespace causalconv1d;
  const int64_t* size = problem.sizes;
  const int64_t stretches = size[size_B] * parts_of(size[size_T], kLeastStretch);
  return problem.dtype != DType::kFloat64 && size[size_W] == kWidth && size[size_D] % kCount == 0 &&
         stretches * size[size_D] / kCount <= kMostUnits;
}

size_t workspace_size(const Problem&) { return 0; }

Status prepare(Device&) {
  return for_each_single([](auto element) {
    using TX = decltype(element);
    return load_kernels(conv1d_vector<TX, true>, conv1d_vector<TX, false>);
  });
}

Status launch(const Call& call, const Device& device, void* stream) {
  switch (call.problem.dtype) {
    case DType::kFloat16: return launch_vector<__half>(call, device, stream);
    case DType::kBfloat16: return launch_vector<__nv_bfloat16>(call, device, stream);
    default: return launch_vector<float>(call, device, stream);
  }
}

}  // namespace

extern const Variant kConv1dVector = {"vector", fits, workspace_size, prepare, launch};

}  // namespace xlstm::cuda
