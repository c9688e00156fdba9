// XlstmCausalConv1d: channels, rows and stretches of time in parallel.
//
//   y_t = act(b + sum_j w_j x_{t - (W-1) + j}), x before step 0 = the state.
#include "conv1d/operands.h"
#include "gates.h"
#include "variant.h"

namespace xlstm::cuda {
namespace {

constexpr int64_t kConvStretch = 32;  // steps of one thread
constexpr int64_t kConvThreads = 128;

// Operands of a call, and how many stretches a row has.
template <class TX>
struct ConvProblem : ConvOperands<TX> {
  int64_t stretches;
};

// Input of channel `d` at `step` of the row; before step 0 it lies in the state.
template <class TX, class T = Arithmetic<TX>>
__device__ T conv1d_input(const ConvProblem<TX>& o, int64_t row, int64_t step, int64_t d) {
  const int64_t kept = o.width - 1;
  return step < 0 ? o.state[(row * kept + kept + step) * o.size + d]
                  : widen(o.x[(row * o.time + step) * o.size + d]);
}

// The last W-1 inputs of one channel. Entry j takes the old entry j + steps, so ascending order
// serves in place.
template <class TX, class T = Arithmetic<TX>>
__device__ void conv1d_carry_state(const ConvProblem<TX>& o, int64_t row, int64_t d) {
  const int64_t kept = o.width - 1;
  const int64_t steps = valid_steps(o.lengths, o.lengths_size, row, o.time);
  for (int64_t j = 0; j < kept; ++j) {
    o.state_out[(row * kept + j) * o.size + d] = conv1d_input(o, row, j + steps - kept, d);
  }
}

// y of one channel at the steps [begin, end), all of them valid. Of x one load a step: the inputs
// before it stay in registers.
template <class TX, int kWidth, class T = Arithmetic<TX>>
__device__ void conv1d_in_registers(const ConvProblem<TX>& o, int64_t row, int64_t begin,
                                    int64_t end, int64_t d) {
  T taps[kWidth], inputs[kWidth];
  for (int j = 0; j < kWidth; ++j) taps[j] = widen(o.w[d * kWidth + j]);
  for (int j = 1; j < kWidth; ++j) inputs[j] = conv1d_input(o, row, begin - kWidth + j, d);
  const T bias = o.b[d];
  const TX* x = o.x + (row * o.time + begin) * o.size + d;
  TX* y = o.y + (row * o.time + begin) * o.size + d;
#pragma unroll 4
  for (int64_t t = begin; t < end; ++t, x += o.size, y += o.size) {
    for (int j = 1; j < kWidth; ++j) inputs[j - 1] = inputs[j];
    inputs[kWidth - 1] = widen(*x);
    T sum = bias;
    for (int j = 0; j < kWidth; ++j) sum = std::fma(inputs[j], taps[j], sum);
    *y = narrow<TX>(o.is_silu ? silu(sum) : sum);
  }
}

// The same for any width; what is read again comes from the cache.
template <class TX, class T = Arithmetic<TX>>
__device__ void conv1d_from_memory(const ConvProblem<TX>& o, int64_t row, int64_t begin,
                                   int64_t end, int64_t d) {
  for (int64_t t = begin; t < end; ++t) {
    T sum = o.b[d];
    for (int64_t j = 0; j < o.width; ++j) {
      const T tap = widen(o.w[d * o.width + j]);
      sum = std::fma(conv1d_input(o, row, t - o.width + 1 + j, d), tap, sum);
    }
    o.y[(row * o.time + t) * o.size + d] = narrow<TX>(o.is_silu ? silu(sum) : sum);
  }
}

// y of one channel over one stretch. kWidth 0: the width of `o`.
template <class TX, int kWidth, class T = Arithmetic<TX>>
__device__ void conv1d_stretch(const ConvProblem<TX>& o, int64_t row, int64_t begin,
                               int64_t end, int64_t d) {
  const int64_t steps = valid_steps(o.lengths, o.lengths_size, row, o.time);
  const int64_t valid = max_of(begin, min_of(steps, end));
  if constexpr (kWidth > 0) {
    conv1d_in_registers<TX, kWidth>(o, row, begin, valid, d);
  } else {
    conv1d_from_memory(o, row, begin, valid, d);
  }
  for (int64_t t = valid; t < end; ++t) {
    o.y[(row * o.time + t) * o.size + d] = narrow<TX>(T(0));
  }
}

// One thread per row, stretch and channel. A row of one stretch has its state carried on here:
// each thread then reads and writes its own channel's state alone.
template <class TX, int kWidth>
__global__ void __launch_bounds__(kConvThreads, 5) conv1d_outputs(ConvProblem<TX> o) {
  const int64_t blocks = parts_of(o.size, kConvThreads);
  const int64_t units = o.batch * o.stretches * blocks;
  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const int64_t part = unit / blocks, row = part / o.stretches;
    const int64_t d = (unit - part * blocks) * kConvThreads + threadIdx.x;
    const int64_t stretch = part - row * o.stretches;
    if (d >= o.size) continue;
    const int64_t begin = stretch * kConvStretch;
    conv1d_stretch<TX, kWidth>(o, row, begin, min_of(begin + kConvStretch, o.time), d);
    if (o.stretches == 1) conv1d_carry_state(o, row, d);
  }
}

// The states of rows of several stretches, once all have read them.
template <class TX>
__global__ void __launch_bounds__(kConvThreads, 5) conv1d_state(ConvProblem<TX> o) {
  const int64_t blocks = parts_of(o.size, kConvThreads), units = o.batch * blocks;
  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const int64_t d = unit % blocks * kConvThreads + threadIdx.x;
    if (d < o.size) conv1d_carry_state(o, unit / blocks, d);
  }
}

template <class TX>
Status conv1d_launch(const Call& call, void* stream) {
  const ConvOperands<TX> operands = conv1d_operands<TX>(call);
  const ConvProblem<TX> o = {operands, parts_of(operands.time, kConvStretch)};
  const int64_t blocks = parts_of(o.size, kConvThreads);
  const auto outputs = o.width == 4 ? conv1d_outputs<TX, 4> : conv1d_outputs<TX, 0>;
  const Status status =
      launch_kernel(outputs, o, o.batch * o.stretches * blocks, kConvThreads, 0, stream);
  if (status != Status::kOk || o.stretches == 1) return status;
  return launch_kernel(conv1d_state<TX>, o, o.batch * blocks, kConvThreads, 0, stream);
}

bool fits(const Problem&, const void*, const Device&) { return true; }

size_t workspace_size(const Problem&) { return 0; }

Status prepare(Device&) {
  return for_each_element([](auto element) {
    using TX = decltype(element);
    return load_kernels(conv1d_outputs<TX, 0>, conv1d_outputs<TX, 4>, conv1d_state<TX>);
  });
}

Status launch(const Call& call, const Device&, void* stream) {
  return with_element(call.problem.dtype, [&](auto element) {
    return conv1d_launch<decltype(element)>(call, stream);
  });
}

}  // namespace

extern const Variant kConv1dPlain = {"plain", fits, workspace_size, prepare, launch};

}  // namespace xlstm::cuda
