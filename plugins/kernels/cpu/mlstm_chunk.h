// One chunk of the mLSTM: quadratic within, linear across.
//
// With D[t,s] = sum of log f over s < r <= t and m_t = max(D_0t + m, D[t,s] + i_s for s <= t):
//   h_t = (exp(D_0t + m - m_t) q_t C + sum_{s<=t} W[t,s] v_s) / denominator_t
//   W[t,s] = (q_t k_s) exp(D[t,s] + i_s - m_t)
//   C' = exp(D_0L + m - m_L) C + sum_s exp(D[L,s] + i_s - m_L) k_s v_s^T, n' likewise
// D is cumulated per column s, never a difference of two sums. Source: ops/reference/mlstm.py.
#pragma once

#include "math.h"
#include "mlstm_problem.h"

namespace xlstm::cpu::XLSTM_ISA {

template <class T>
struct LaneIndices {
  IntVec<T> values;
  LaneIndices() {
    for (int i = 0; i < kLanes<T>; ++i) values[i] = i;
  }
};

// i and log f of the chunk's steps [start, start + length). In double: they are few, and what they
// are off by is exponentiated.
template <class TX, class T = Arithmetic<TX>>
XLSTM_INLINE void mlstm_gates(const MlstmOperands<TX>& x, const MlstmUnit& unit, int64_t start,
                              int64_t length, MlstmScratch<T>& s) {
  const int64_t first = (unit.row * x.time + start) * x.heads + unit.head;
  const double cap = x.soft_cap;
  for (int64_t t = 0; t < length; t += kLanes<double>) {
    const int64_t count = min_of(kLanes<double>, length - t);
    Vec<double> input = zero<double>(), forget = zero<double>();
    for (int64_t lane = 0; lane < count; ++lane) {
      input[lane] = x.i[first + (t + lane) * x.heads];
      forget[lane] = x.f[first + (t + lane) * x.heads];
    }
    input = soft_cap<double>(input, cap);
    forget = log_sigmoid<double>(soft_cap<double>(forget, cap));
    for (int64_t lane = 0; lane < kLanes<double>; ++lane) {
      s.input_gate[t + lane] = static_cast<T>(input[lane]);
      s.log_forget[t + lane] = static_cast<T>(forget[lane]);
    }
  }
}

// weights[t][s] = exp(D[t,s] + i_s - m_t), 0 for s > t; inter and floor. Returns the last m_t.
//
// m_t is the largest of the very sums that are exponentiated, so the largest weight is exactly 1;
// the recurrence's m_t, rounded in another order, would put its error into C and n.
template <class T>
XLSTM_INLINE T mlstm_decays(int64_t length, T m, MlstmScratch<T>& s) {
  const IntVec<T> lanes = LaneIndices<T>().values;
  const int64_t width = round_up(length, kTileColumns<T>);
  for (int64_t c = 0; c < width; ++c) s.decay[c] = T(0);
  for (int64_t c = length; c < width; ++c) s.input_gate[c] = T(0);
  T from_start = T(0), m_last = m;
  for (int64_t t = 0; t < length; ++t) {
    from_start += s.log_forget[t];
    const T carried = from_start + m;
    const Vec<T> forget = broadcast(s.log_forget[t]);
    const auto now = static_cast<typename Simd<T>::Integer>(t);
    T* row = s.weights + t * s.row_stride;
    Vec<T> best = broadcast(carried);
    for (int64_t c = 0; c <= t; c += kLanes<T>) {
      const IntVec<T> column = lanes + static_cast<typename Simd<T>::Integer>(c);
      const Vec<T> decay = load(s.decay + c) + (column < now ? forget : zero<T>());
      store(s.decay + c, decay);
      const Vec<T> reach = decay + load(s.input_gate + c);
      store(row + c, reach);
      best = column <= now && reach > best ? reach : best;
    }
    m_last = largest_lane<T>(best);
    s.inter[t] = carried - m_last;
    s.floor[t] = -m_last;
    const Vec<T> row_m = broadcast(m_last);
    for (int64_t c = 0; c < width; c += kLanes<T>) {
      const IntVec<T> column = lanes + static_cast<typename Simd<T>::Integer>(c);
      const Vec<T> weight = c > t ? zero<T>() : exp<T>(load(row + c) - row_m);
      store(row + c, column <= now ? weight : zero<T>());
    }
  }
  for (int64_t t = 0; t < length; t += kLanes<T>) {
    store(s.inter + t, exp<T>(load(s.inter + t)));
    store(s.floor + t, exp<T>(load(s.floor + t)));
  }
  for (int64_t t = 0; t < length; ++t) {  // comparisons above pass over NaN
    for (const T gate : {s.input_gate[t], s.log_forget[t]}) {
      if (gate != gate) m_last = gate;
    }
  }
  const T* last = s.weights + (length - 1) * s.row_stride;
  for (int64_t c = 0; c < width; c += kLanes<T>) store(s.write + c, load(last + c));
  return m_last;
}

// q scaled, in rows; rows past the chunk are 0.
template <class TX, class T = Arithmetic<TX>>
XLSTM_INLINE void mlstm_pack_q(const MlstmOperands<TX>& x, const TX* q, int64_t length,
                               MlstmScratch<T>& s) {
  const Vec<T> scale = broadcast(x.q_scale);
  for (int64_t t = 0; t < round_up(length, kTileRows); ++t) {
    for (int64_t j = 0; j < x.qk_dim; j += kLanes<T>) {
      const TX* source = q + t * x.heads * x.qk_dim + j;
      store(s.q + t * s.qk_stride + j,
            t < length ? load_wide_first(source, x.qk_dim - j) * scale : zero<T>());
    }
  }
}

// k^T in panels, and k times its write weight in rows; steps past the chunk are 0.
template <class TX, class T = Arithmetic<TX>>
XLSTM_INLINE void mlstm_pack_k(const MlstmOperands<TX>& x, const TX* k, int64_t length,
                               MlstmScratch<T>& s) {
  const Vec<T> scale = broadcast(x.k_scale);
  for (int64_t t = 0; t < round_up(length, kTileColumns<T>); t += kLanes<T>) {
    T* panel = s.k_panels + t / kTileColumns<T> * x.qk_dim * kTileColumns<T> + t % kTileColumns<T>;
    for (int64_t j = 0; j < s.qk_stride; j += kLanes<T>) {
      const int64_t left = max_of(0, x.qk_dim - j);
      Vec<T> square[kLanes<T>];
      for (int64_t r = 0; r < kLanes<T>; ++r) {
        square[r] = zero<T>();
        if (t + r >= length) continue;
        square[r] = load_wide_first(k + (t + r) * x.heads * x.qk_dim + j, left) * scale;
        store(s.k_written + (t + r) * s.qk_stride + j, square[r] * broadcast(s.write[t + r]));
      }
      transpose<T>(square);
      const int64_t columns = min_of(left, kLanes<T>);
      for (int64_t r = 0; r < columns; ++r) store(panel + (j + r) * kTileColumns<T>, square[r]);
    }
  }
}

// weights *= q k^T, and the denominator of every step.
template <class T>
XLSTM_INLINE void mlstm_scores(int64_t length, int64_t qk_dim, T eps, MlstmScratch<T>& s) {
  const IntVec<T> lanes = LaneIndices<T>().values;
  for (int64_t t = 0; t < length; t += kTileRows) {
    const int64_t rows = min_of(kTileRows, length - t);
    for (int64_t c = 0; c < t + rows; c += kTileColumns<T>) {
      Tile<T> tile = zero_tile<T>();
      multiply_add(tile, qk_dim, s.q + t * s.qk_stride, s.qk_stride, 1, s.k_panels + c * qk_dim);
      for (int64_t r = 0; r < kTileRows; ++r) {
        if (r >= rows) break;
        const auto now = static_cast<typename Simd<T>::Integer>(t + r);
        for (int v = 0; v < kTileVectors; ++v) {
          const int64_t first = c + v * kLanes<T>;
          const IntVec<T> column = lanes + static_cast<typename Simd<T>::Integer>(first);
          T* place = s.weights + (t + r) * s.row_stride + first;
          // chosen, not multiplied by 0: q k of a later step may be infinite
          store(place, column <= now ? load(place) * tile.at[r][v] : zero<T>());
        }
      }
    }
  }
  for (int64_t t = length; t < round_up(length, kTileRows); ++t) {
    for (int64_t c = 0; c < s.row_stride; c += kLanes<T>) {
      store(s.weights + t * s.row_stride + c, zero<T>());
    }
  }
  for (int64_t t = 0; t < length; ++t) {
    Vec<T> past = zero<T>(), within = zero<T>();
    for (int64_t j = 0; j < qk_dim; j += kLanes<T>) {
      past = fma(load(s.q + t * s.qk_stride + j), load(s.n + j), past);
    }
    for (int64_t c = 0; c <= t; c += kLanes<T>) within += load(s.weights + t * s.row_stride + c);
    const T q_n = sum_lanes<T>(fma(broadcast(s.inter[t]), past, within));
    const T size = q_n < T(0) ? -q_n : q_n;
    s.denominator[t] = (size < s.floor[t] ? s.floor[t] : size) + eps;
  }
}

// n' = keep n + sum_s k_s write_s
template <class T>
XLSTM_INLINE void mlstm_carry_n(int64_t length, T keep, MlstmScratch<T>& s) {
  for (int64_t j = 0; j < s.qk_stride; j += kLanes<T>) {
    Vec<T> sum = load(s.n + j) * broadcast(keep);
    for (int64_t t = 0; t < length; ++t) sum += load(s.k_written + t * s.qk_stride + j);
    store(s.n + j, sum);
  }
}

// h of one panel of columns, and its C carried over the chunk.
template <class TX, class T = Arithmetic<TX>>
XLSTM_INLINE void mlstm_panel(const MlstmOperands<TX>& x, TX* h, int64_t columns, int64_t length,
                              T* C, MlstmScratch<T>& s) {
  for (int64_t t = 0; t < length; t += kTileRows) {
    const int64_t rows = min_of(kTileRows, length - t);
    Tile<T> tile = zero_tile<T>();
    multiply_add(tile, x.qk_dim, s.q + t * s.qk_stride, s.qk_stride, 1, C);
    for (int r = 0; r < kTileRows; ++r) {
      for (auto& vector : tile.at[r]) vector *= broadcast(s.inter[t + r]);
    }
    multiply_add(tile, t + rows, s.weights + t * s.row_stride, s.row_stride, 1, s.v_panel);
    for (int64_t r = 0; r < kTileRows; ++r) {
      if (r >= rows) break;
      TX* out = h + (t + r) * x.heads * x.v_dim;
      const RowDivisor<T> divisor(s.denominator[t + r]);
      for (int v = 0; v < kTileVectors; ++v) {
        const int64_t left = columns - v * kLanes<T>;
        if (left > 0) store_narrow_first(out + v * kLanes<T>, divisor.divide(tile.at[r][v]), left);
      }
    }
  }
  const Vec<T> keep = broadcast(s.inter[length - 1]);
  for (int64_t j = 0; j < s.qk_rows; j += kTileRows) {
    Tile<T> tile;
    T* place = C + j * kTileColumns<T>;
    for (int r = 0; r < kTileRows; ++r) {
      for (int v = 0; v < kTileVectors; ++v) {
        tile.at[r][v] = load(place + r * kTileColumns<T> + v * kLanes<T>) * keep;
      }
    }
    multiply_add(tile, length, s.k_written + j, 1, s.qk_stride, s.v_panel);
    for (int r = 0; r < kTileRows; ++r) {
      for (int v = 0; v < kTileVectors; ++v) {
        store(place + r * kTileColumns<T> + v * kLanes<T>, tile.at[r][v]);
      }
    }
  }
}

// The chunk's h, C (in C_panels), n; returns m after it.
template <class TX, class T = Arithmetic<TX>>
T mlstm_chunk(const MlstmOperands<TX>& x, const MlstmUnit& unit, int64_t start, int64_t length,
              T m, MlstmScratch<T>& s) {
  mlstm_gates(x, unit, start, length, s);
  const T m_next = mlstm_decays(length, m, s);
  const int64_t head = (unit.row * x.time + start) * x.heads + unit.head;
  mlstm_pack_q(x, x.q + head * x.qk_dim, length, s);
  mlstm_pack_k(x, x.k + head * x.qk_dim, length, s);
  mlstm_scores(length, x.qk_dim, x.eps, s);
  mlstm_carry_n(length, s.inter[length - 1], s);
  const int64_t step = x.heads * x.v_dim;
  const int64_t first = head * x.v_dim + unit.column;
  for (int64_t c = 0; c < unit.columns; c += kTileColumns<T>) {
    const int64_t columns = min_of(kTileColumns<T>, unit.columns - c);
    for (int64_t t = 0; t < length; ++t) {
      for (int64_t v = 0; v < kTileColumns<T>; v += kLanes<T>) {
        const int64_t left = max_of(0, columns - v);
        store(s.v_panel + t * kTileColumns<T> + v,
              load_wide_first(x.v + first + t * step + c + v, left));
      }
    }
    mlstm_panel(x, x.h + first + c, columns, length, s.C_panels + c * s.qk_rows, s);
  }
  return m_next;
}

}  // namespace xlstm::cpu::XLSTM_ISA
