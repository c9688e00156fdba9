// XlstmSLSTM: rows and heads in parallel, steps in sequence, no call per step.
//
//   raw = gates_t + y R + b, slots i, f, z, o
//   m' = i where n == 0, else max(i, m + log sigmoid(f))
//   I = min(1, exp(i - m')), F = min(1, exp(m + log sigmoid(f) - m'))
//   c' = F c + I tanh(z), n' = F n + I, y' = sigmoid(o) c' / n'
// Source: ops/reference/slstm.py.
#pragma once

#include "math.h"
#include "parallel.h"
#include "slstm_mix.h"

namespace xlstm::cpu::XLSTM_ISA {

template <class TX>
struct SlstmOperands {
  using T = Arithmetic<TX>;
  int64_t batch, time, heads, size;
  const T *gates, *b;
  const T* state[4];  // y, c, n, m
  const int32_t* lengths;
  int64_t lengths_size;
  TX* y_all;
  T* state_out[4];
  T n_floor, f_clamp;
  bool rounds;
};

// One step of one row and head: raw [4][padded] and the gates of the step to the new state.
template <class TX, class T = Arithmetic<TX>>
XLSTM_INLINE void slstm_cell(const SlstmOperands<TX>& x, const T* gates, const T* bias,
                             const T* raw, T* const* state, TX* y_out) {
  const int64_t slot = x.heads * x.size, padded = slstm_padded<T>(x.size);
  const Vec<T> one = broadcast(T(1)), nothing = zero<T>();
  for (int64_t e = 0; e < x.size; e += kLanes<T>) {
    const int64_t left = x.size - e;
    Vec<T> gate[4];
    for (int g = 0; g < 4; ++g) {
      Vec<T> given = load_first(gates + g * slot + e, left), mixed = load(raw + g * padded + e);
      if (x.rounds) {
        given = round_to_bfloat16(given);
        mixed = round_to_bfloat16(mixed);
      }
      gate[g] = given + mixed + load_first(bias + g * slot + e, left);
    }
    Vec<T> c = load(state[1] + e), n = load(state[2] + e), m = load(state[3] + e);
    if (x.f_clamp > 0) gate[1] = at_most(gate[1], broadcast(x.f_clamp));
    const Vec<T> kept = m + log_sigmoid<T>(gate[1]);
    m = n == nothing ? gate[0] : larger(gate[0], kept);
    const Vec<T> write = at_most(exp<T>(gate[0] - m), one);
    const Vec<T> forget = at_most(exp<T>(kept - m), one);
    c = fma(forget, c, write * tanh<T>(gate[2]));
    n = fma(forget, n, write);
    if (x.n_floor > 0) n = at_least(n, broadcast(x.n_floor));
    Vec<T> y = c / n / (one + exp<T>(-gate[3]));  // the product of both may overflow
    if (x.rounds) {
      y = round_to_bfloat16(y);
      c = round_to_bfloat16(c);
      n = round_to_bfloat16(n);
      m = round_to_bfloat16(m);
    }
    store(state[0] + e, y);
    store(state[1] + e, c);
    store(state[2] + e, n);
    store(state[3] + e, m);
    store_narrow_first(y_out + e, y, left);
  }
}

// All steps of the rows [first, first + rows) of one head, whose packed matrix is R. `scratch`
// holds the rows' states, each [4][padded], and raw [rows][columns].
template <class TX, class P, class T = Arithmetic<TX>>
void slstm_rows(const SlstmOperands<TX>& x, const P* R, int64_t head, int64_t first, int64_t rows,
                T* scratch) {
  const int64_t H = x.size, padded = slstm_padded<T>(H), columns = slstm_columns<T>(H);
  T* const raw = scratch + 4 * kMixRows * padded;
  T* states[kMixRows][4];
  int64_t steps[kMixRows], most = 0;
  std::memset(scratch, 0, 4 * kMixRows * padded * sizeof(T));
  for (int64_t r = 0; r < rows; ++r) {
    for (int s = 0; s < 4; ++s) {
      // states of one kind beside each other: y of the rows is the left operand of y R
      states[r][s] = scratch + (s * kMixRows + r) * padded;
      const int64_t place = ((first + r) * x.heads + head) * H;
      std::memcpy(states[r][s], x.state[s] + place, H * sizeof(T));
    }
    steps[r] = valid_steps(x.lengths, x.lengths_size, first + r, x.time);
    most = max_of(most, steps[r]);
  }
  for (int64_t t = 0; t < most; ++t) {
    // from the first row that goes on to the last
    int64_t begin = 0, end = rows;
    while (t >= steps[begin]) ++begin;
    while (t >= steps[end - 1]) --end;
    if (end - begin > 2) begin = 0;
    slstm_mix(states[begin][0], padded, end - begin, H, R, columns, raw + begin * columns);
    for (int64_t r = 0; r < rows; ++r) {
      if (t >= steps[r]) continue;
      const int64_t step = (first + r) * x.time + t;
      slstm_cell(x, x.gates + (step * 4 * x.heads + head) * H, x.b + head * H, raw + r * columns,
                 states[r], x.y_all + (step * x.heads + head) * H);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int s = 0; s < 4; ++s) {
      std::memcpy(x.state_out[s] + ((first + r) * x.heads + head) * H, states[r][s], H * sizeof(T));
    }
    for (int64_t t = steps[r]; t < x.time; ++t) {
      std::memset(x.y_all + (((first + r) * x.time + t) * x.heads + head) * H, 0, H * sizeof(TX));
    }
  }
}

template <class T>
XLSTM_INLINE int64_t slstm_scratch(int64_t H) {
  return round_up(4 * kMixRows * slstm_padded<T>(H) + kMixRows * slstm_columns<T>(H),
                  kWorkspaceAlignment / sizeof(T));
}

// All rows and heads, with the packed matrices R.
template <class TX, class P>
void slstm_units(const SlstmOperands<TX>& x, const P* R, const Call& call,
                 const Parallel& parallel) {
  using T = Arithmetic<TX>;
  // rows share the reading of R, unless more parts are wanted than there are heads
  int64_t rows = min_of(kMixRows, x.batch);
  const int64_t wanted = min_of(round_up(parallel.threads, x.heads) / x.heads, x.batch);
  if (round_up(x.batch, rows) / rows < wanted) rows = round_up(x.batch, wanted) / wanted;
  const int64_t groups = round_up(x.batch, rows) / rows, units = x.heads * groups;
  const double per_step = 4.0 * static_cast<double>(x.size * x.size);
  const double cost = static_cast<double>(x.time * rows) * per_step;
  const int64_t parts = count_parts(units, cost, parallel.threads);
  auto part = [&](int64_t index) {
    T* scratch = static_cast<T*>(call.workspace) + index * slstm_scratch<T>(x.size);
    const Units mine = units_of(units, parts, index, x.lengths_size > 1);
    for (int64_t u = mine.begin; u < mine.end; u += mine.step) {
      const int64_t head = u / groups, first = u % groups * rows;
      slstm_rows(x, R + head * slstm_head_numbers<T, P>(x.size), head, first,
                 min_of(rows, x.batch - first), scratch);
    }
  };
  parallel_for(parallel, parts, part);
}

template <class TX>
Status slstm_run(const Call& call, const Parallel& parallel) {
  using T = Arithmetic<TX>;
  using namespace slstm;
  const int64_t* size = call.problem.sizes;
  const auto& attributes = *static_cast<const Attributes*>(call.attributes);
  const auto in = [&](int i) { return static_cast<const T*>(call.inputs[i]); };
  const auto out = [&](int o) { return static_cast<T*>(call.outputs[o]); };
  const SlstmOperands<TX> x = {
      size[size_B], size[size_T], size[size_N], size[size_H], in(in_gates), in(in_b),
      {in(in_y), in(in_c), in(in_n), in(in_m)},
      static_cast<const int32_t*>(call.inputs[in_lengths]), call.lengths_size,
      static_cast<TX*>(call.outputs[out_y_all]),
      {out(out_y), out(out_c), out(out_n), out(out_m)},
      static_cast<T>(attributes.n_floor), static_cast<T>(attributes.f_clamp),
      attributes.state_rounding == 1};
  const auto* head = static_cast<const PackedHead*>(call.packed);
  if constexpr (sizeof(T) == sizeof(float)) {
    if (head->is_paired) {
      slstm_units(x, reinterpret_cast<const BfloatPair*>(head + 1), call, parallel);
      return Status::kOk;
    }
  }
  slstm_units(x, reinterpret_cast<const T*>(head + 1), call, parallel);
  return Status::kOk;
}

template <class T>
size_t slstm_workspace(const Problem& problem, int threads) {
  const int64_t* size = problem.sizes;
  const int64_t parts = min_of(size[slstm::size_B] * size[slstm::size_N], threads);
  return static_cast<size_t>(parts * slstm_scratch<T>(size[slstm::size_H])) * sizeof(T);
}

}  // namespace xlstm::cpu::XLSTM_ISA
