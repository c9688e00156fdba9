// XlstmCausalConv1d: rows and stretches of time in parallel.
//
//   y_t = act(b + sum_j w_j x_{t - (W-1) + j}), x before step 0 = the state.
#pragma once

#include "element.h"
#include "math.h"
#include "parallel.h"

namespace xlstm::cpu::XLSTM_ISA {

inline constexpr int64_t kConvStretch = 64;  // steps of one unit of work

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
  const int64_t padded = round_up(problem.sizes[causalconv1d::size_D], kLanes<T>);
  return static_cast<size_t>(problem.sizes[causalconv1d::size_W] * padded) * sizeof(T);
}

// w [D,W] -> [W][padded D]
template <class TX>
void conv1d_pack(const Problem& problem, const void* constant, void* packed) {
  using T = Arithmetic<TX>;
  const int64_t D = problem.sizes[causalconv1d::size_D], W = problem.sizes[causalconv1d::size_W];
  const int64_t padded = round_up(D, kLanes<T>);
  const TX* w = static_cast<const TX*>(constant);
  T* out = static_cast<T*>(packed);
  std::memset(out, 0, conv1d_packed_size<T>(problem));
  for (int64_t d = 0; d < D; ++d) {
    for (int64_t j = 0; j < W; ++j) out[j * padded + d] = load_wide_first(w + d * W + j, 1)[0];
  }
}

template <class TX, bool kSilu, class T = Arithmetic<TX>>
XLSTM_INLINE void conv1d_finish(TX* y, Vec<T> sum, int64_t left) {
  if constexpr (kSilu) sum = silu<T>(sum);
  store_narrow_first(y, sum, left);
}

// One step whose taps all lie in x; `x` points at the oldest. kWidth 0: the width of `o`.
template <class TX, int kWidth, bool kSilu, class T = Arithmetic<TX>>
XLSTM_INLINE void conv1d_step(const ConvOperands<TX>& o, const TX* x, TX* y) {
  const int64_t width = kWidth > 0 ? kWidth : o.width, padded = round_up(o.size, kLanes<T>);
  int64_t d = 0;
  for (; d + kLanes<T> <= o.size; d += kLanes<T>) {
    Vec<T> sum = load(o.b + d);
    for (int64_t j = 0; j < width; ++j) {
      sum = fma(load_wide(x + j * o.size + d), load(o.w + j * padded + d), sum);
    }
    conv1d_finish<TX, kSilu>(y + d, sum, kLanes<T>);
  }
  if (d < o.size) {
    const int64_t left = o.size - d;
    Vec<T> sum = load_first(o.b + d, left);
    for (int64_t j = 0; j < width; ++j) {
      sum = fma(load_wide_first(x + j * o.size + d, left), load(o.w + j * padded + d), sum);
    }
    conv1d_finish<TX, kSilu>(y + d, sum, left);
  }
}

// One of the first W-1 steps of row `row`: some taps lie in the state.
template <class TX, bool kSilu, class T = Arithmetic<TX>>
XLSTM_INLINE void conv1d_first_step(const ConvOperands<TX>& o, int64_t row, int64_t t, TX* y) {
  const int64_t padded = round_up(o.size, kLanes<T>), kept = o.width - 1;
  for (int64_t d = 0; d < o.size; d += kLanes<T>) {
    const int64_t left = o.size - d;
    Vec<T> sum = load_first(o.b + d, left);
    for (int64_t j = 0; j < o.width; ++j) {
      const int64_t step = t - kept + j;
      const Vec<T> input =
          step < 0 ? load_first(o.state + (row * kept + kept + step) * o.size + d, left)
                   : load_wide_first(o.x + (row * o.time + step) * o.size + d, left);
      sum = fma(input, load(o.w + j * padded + d), sum);
    }
    conv1d_finish<TX, kSilu>(y + d, sum, left);
  }
}

template <class TX, int kWidth, bool kSilu>
void conv1d_stretch(const ConvOperands<TX>& o, int64_t row, int64_t begin, int64_t end) {
  const int64_t steps = valid_steps(o.lengths, o.lengths_size, row, o.time);
  for (int64_t t = begin; t < end; ++t) {
    TX* y = o.y + (row * o.time + t) * o.size;
    if (t >= steps) {
      std::memset(y, 0, o.size * sizeof(TX));
    } else if (t < o.width - 1) {
      conv1d_first_step<TX, kSilu>(o, row, t, y);
    } else {
      conv1d_step<TX, kWidth, kSilu>(o, o.x + (row * o.time + t - o.width + 1) * o.size, y);
    }
  }
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

template <class TX, int kWidth>
XLSTM_INLINE void conv1d_any_stretch(const ConvOperands<TX>& o, int64_t row, int64_t begin,
                                     int64_t end) {
  o.is_silu ? conv1d_stretch<TX, kWidth, true>(o, row, begin, end)
            : conv1d_stretch<TX, kWidth, false>(o, row, begin, end);
}

template <class TX>
Status conv1d_run(const Call& call, const Parallel& parallel) {
  using T = Arithmetic<TX>;
  using namespace causalconv1d;
  const int64_t* size = call.problem.sizes;
  const T* packed = static_cast<const T*>(call.packed);
  if (packed == nullptr) {
    conv1d_pack<TX>(call.problem, call.inputs[in_w], call.workspace);
    packed = static_cast<const T*>(call.workspace);
  }
  const ConvOperands<TX> o = {
      size[size_B], size[size_T], size[size_D], size[size_W],
      static_cast<const TX*>(call.inputs[in_x]), packed,
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
    const Share share = share_of(units, parts, index);
    for (int64_t u = share.begin; u < share.end; ++u) {
      const int64_t row = u / stretches, begin = u % stretches * kConvStretch;
      const int64_t end = min_of(begin + kConvStretch, o.time);
      o.width == 4 ? conv1d_any_stretch<TX, 4>(o, row, begin, end)
                   : conv1d_any_stretch<TX, 0>(o, row, begin, end);
    }
  };
  parallel_for(parallel, parts, part);
  for (int64_t row = 0; row < o.batch; ++row) conv1d_carry_state(o, row);
  return Status::kOk;
}

template <class T>
size_t conv1d_workspace(const Problem& problem, int) {
  return conv1d_packed_size<T>(problem);
}

}  // namespace xlstm::cpu::XLSTM_ISA
