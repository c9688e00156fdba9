// XlstmCausalConv1d: rows and stretches of time in parallel.
//
//   y_t = act(b + sum_j w_j x_{t - (W-1) + j}), x before step 0 = the state.
#pragma once

#include "element.h"
#include "math.h"
#include "parallel.h"

namespace xlstm::cpu::XLSTM_ISA {

inline constexpr int64_t kConvStretch = 64;  // steps of a unit of work, in whole blocks

template <class TX>
struct ConvOperands {
  using T = Arithmetic<TX>;
  int64_t batch, time, size, width;
  const TX* x;
  const T *w, *b, *state;  // w packed
  const int32_t* lengths;
  int64_t lengths_size;
  TX* y;
  T* state_out;
  bool is_silu;
};

template <class T>
size_t conv1d_packed_size(const Problem& problem) {
  const int64_t size = round_up(problem.sizes[causalconv1d::size_D], kLanes<T>);
  return static_cast<size_t>(problem.sizes[causalconv1d::size_W] * size) * sizeof(T);
}

// w [D,W] -> [D / lanes][W][lanes]: the taps of a vector side by side, since rows of taps of a
// multiple of 4 KiB would compete with the inputs for the same sets of the first cache.
template <class TX>
void conv1d_pack(const Problem& problem, const void* constant, void* packed) {
  using T = Arithmetic<TX>;
  const int64_t D = problem.sizes[causalconv1d::size_D], W = problem.sizes[causalconv1d::size_W];
  const TX* w = static_cast<const TX*>(constant);
  T* out = static_cast<T*>(packed);
  std::memset(out, 0, conv1d_packed_size<T>(problem));
  for (int64_t d = 0; d < D; ++d) {
    T* taps = out + d / kLanes<T> * kLanes<T> * W + d % kLanes<T>;
    for (int64_t j = 0; j < W; ++j) taps[j * kLanes<T>] = load_wide_first(w + d * W + j, 1)[0];
  }
}

template <bool kSilu, class T>
XLSTM_INLINE Vec<T> conv1d_activate(Vec<T> sum) {
  if constexpr (kSilu) return silu<T>(sum);
  return sum;
}

// Steps computed at once, each input read once for all the outputs it meets; and channels carried
// through a stretch of time together, so that their inputs stay in the first cache, yet enough
// that loads do not meet the low address bits of stores still under way. As measured.
inline constexpr int kConvSteps = 4;
inline constexpr int64_t kConvChannels = 256;

// `kSteps` steps of kWidth taps, one vector of channels. `x` points at the oldest input, `w` and
// `bias` at the channels; all loads stand before the stores.
template <int kSteps, int kWidth, bool kSilu, class TX, class T = Arithmetic<TX>>
XLSTM_INLINE void conv1d_block(const TX* x, TX* y, int64_t size, const T* w, const T* bias,
                               int64_t left) {
  Vec<T> weights[kWidth], inputs[kSteps + kWidth - 1], sums[kSteps];
  for (int j = 0; j < kWidth; ++j) weights[j] = load(w + j * kLanes<T>);
  const Vec<T> offset = load_first(bias, left);
#pragma GCC unroll 16
  for (int t = 0; t < kSteps + kWidth - 1; ++t) inputs[t] = load_wide_first(x + t * size, left);
#pragma GCC unroll 8
  for (int t = 0; t < kSteps; ++t) {
    sums[t] = offset;
    for (int j = 0; j < kWidth; ++j) sums[t] = fma(inputs[t + j], weights[j], sums[t]);
    sums[t] = conv1d_activate<kSilu, T>(sums[t]);
  }
#pragma GCC unroll 8
  for (int t = 0; t < kSteps; ++t) store_narrow_first(y + t * size, sums[t], left);
}

// `kSteps` steps of the channels [begin, end). Sizes and pointers are copied: behind the reference
// they would be read again after every store.
template <int kSteps, int kWidth, bool kSilu, class TX, class T = Arithmetic<TX>>
XLSTM_INLINE void conv1d_rows(const ConvOperands<TX>& o, const TX* x, TX* y, int64_t begin,
                              int64_t end) {
  const int64_t size = o.size;
  const T *w = o.w, *b = o.b;
  int64_t d = begin;
  for (; d + kLanes<T> <= end; d += kLanes<T>) {
    conv1d_block<kSteps, kWidth, kSilu, TX>(x + d, y + d, size, w + d * kWidth, b + d,
                                            int64_t{kLanes<T>});
  }
  if (d < end) {
    conv1d_block<kSteps, kWidth, kSilu, TX>(x + d, y + d, size, w + d * kWidth, b + d, end - d);
  }
}

// One step of row `row` at any width; the first W-1 steps have taps in the state.
template <class TX, bool kSilu, class T = Arithmetic<TX>>
XLSTM_INLINE void conv1d_any_step(const ConvOperands<TX>& o, int64_t row, int64_t t, TX* y,
                                  int64_t begin, int64_t end) {
  const int64_t kept = o.width - 1;
  for (int64_t d = begin; d < end; d += kLanes<T>) {
    const int64_t left = end - d;
    Vec<T> sum = load_first(o.b + d, left);
    for (int64_t j = 0; j < o.width; ++j) {
      const int64_t step = t - kept + j;
      const Vec<T> input =
          step < 0 ? load_first(o.state + (row * kept + kept + step) * o.size + d, left)
                   : load_wide_first(o.x + (row * o.time + step) * o.size + d, left);
      sum = fma(input, load(o.w + d * o.width + j * kLanes<T>), sum);
    }
    store_narrow_first(y + d, conv1d_activate<kSilu, T>(sum), left);
  }
}

// Steps [begin, end) of one row.
template <class TX, bool kSilu>
void conv1d_stretch(const ConvOperands<TX>& o, int64_t row, int64_t begin, int64_t end) {
  constexpr int kUsualWidth = 4;
  const int64_t steps = valid_steps(o.lengths, o.lengths_size, row, o.time);
  const int64_t computed = max_of(begin, min_of(end, steps));
  const TX* x = o.x + row * o.time * o.size;
  TX* y = o.y + row * o.time * o.size;
  for (int64_t channel = 0; channel < o.size; channel += kConvChannels) {
    const int64_t last = min_of(channel + kConvChannels, o.size);
    for (int64_t t = begin; t < computed;) {
      const bool is_usual = o.width == kUsualWidth && t >= kUsualWidth - 1;
      if (is_usual && t + kConvSteps <= computed) {
        const TX* oldest = x + (t - kUsualWidth + 1) * o.size;
        conv1d_rows<kConvSteps, kUsualWidth, kSilu>(o, oldest, y + t * o.size, channel, last);
        t += kConvSteps;
      } else {
        conv1d_any_step<TX, kSilu>(o, row, t, y + t * o.size, channel, last);
        ++t;
      }
    }
  }
  std::memset(y + computed * o.size, 0, (end - computed) * o.size * sizeof(TX));
}

// The last W-1 inputs. Entry j takes the old entry j + steps, so ascending order serves in place.
template <class TX, class T = Arithmetic<TX>>
XLSTM_INLINE void conv1d_carry_state(const ConvOperands<TX>& o, int64_t row) {
  const int64_t kept = o.width - 1;
  const int64_t steps = valid_steps(o.lengths, o.lengths_size, row, o.time);
  for (int64_t j = 0; j < kept; ++j) {
    T* out = o.state_out + (row * kept + j) * o.size;
    if (j + steps < kept) {
      const T* old = o.state + (row * kept + j + steps) * o.size;
      if (old != out) std::memcpy(out, old, o.size * sizeof(T));
      continue;
    }
    const TX* x = o.x + (row * o.time + j + steps - kept) * o.size;
    for (int64_t d = 0; d < o.size; d += kLanes<T>) {
      store_first(out + d, load_wide_first(x + d, o.size - d), o.size - d);
    }
  }
}

template <class TX>
Status conv1d_run(const Call& call, const Parallel& parallel) {
  using T = Arithmetic<TX>;
  using namespace causalconv1d;
  const int64_t* size = call.problem.sizes;
  const ConvOperands<TX> o = {
      size[size_B], size[size_T], size[size_D], size[size_W],
      static_cast<const TX*>(call.inputs[in_x]), static_cast<const T*>(call.packed),
      static_cast<const T*>(call.inputs[in_b]), static_cast<const T*>(call.inputs[in_state]),
      static_cast<const int32_t*>(call.inputs[in_lengths]), call.lengths_size,
      static_cast<TX*>(call.outputs[out_y]), static_cast<T*>(call.outputs[out_state]),
      static_cast<const Attributes*>(call.attributes)->activation == 1};
  const int64_t stretches = round_up(o.time, kConvStretch) / kConvStretch;
  const int64_t units = o.batch * stretches;
  const int64_t length = min_of(o.time, kConvStretch);
  const double cost = static_cast<double>(length * o.size * (o.width + (o.is_silu ? 16 : 1)));
  const int64_t parts = count_parts(units, cost / 4, parallel.threads);
  auto part = [&](int64_t index) {
    const Units mine = units_of(units, parts, index, o.lengths_size > 1);
    for (int64_t u = mine.begin; u < mine.end; u += mine.step) {
      const int64_t row = u / stretches, begin = u % stretches * kConvStretch;
      const int64_t end = min_of(begin + kConvStretch, o.time);
      o.is_silu ? conv1d_stretch<TX, true>(o, row, begin, end)
                : conv1d_stretch<TX, false>(o, row, begin, end);
    }
  };
  parallel_for(parallel, parts, part);
  for (int64_t row = 0; row < o.batch; ++row) conv1d_carry_state(o, row);
  return Status::kOk;
}

}  // namespace xlstm::cpu::XLSTM_ISA
