// XlstmMLSTM: heads and blocks of value columns in parallel, chunks of time in sequence.
#pragma once

#include <cmath>

#include "mlstm_step.h"

namespace xlstm::cpu::XLSTM_ISA {

// Whether a chunk goes step by step: packing C and whole tiles cost as much as some seven steps,
// and a few more where C is too large for the cache nearest a core. Measured from 16x16 to 256x512.
XLSTM_INLINE bool mlstm_goes_by_steps(int64_t length, int64_t qk_dim, int64_t v_dim) {
  constexpr int64_t kFew = 7, kMore = 9, kLargeHead = 128 * 1024;
  return length <= (qk_dim * v_dim >= kLargeHead ? kMore : kFew);
}

template <class TX, class T = Arithmetic<TX>>
XLSTM_INLINE void mlstm_read_panels(const MlstmOperands<TX>& x, const MlstmUnit& unit, const T* C,
                                    MlstmScratch<T>& s) {
  for (int64_t c = 0; c < unit.columns; c += kTileColumns<T>) {
    T* panel = s.C_panels + c * s.qk_rows;
    for (int64_t j = 0; j < s.qk_rows; ++j) {
      for (int64_t v = 0; v < kTileColumns<T>; v += kLanes<T>) {
        const int64_t left = j < x.qk_dim ? max_of(0, unit.columns - c - v) : 0;
        store(panel + j * kTileColumns<T> + v,
              left > 0 ? load_first(C + j * x.v_dim + c + v, left) : zero<T>());
      }
    }
  }
}

template <class TX, class T = Arithmetic<TX>>
XLSTM_INLINE void mlstm_write_panels(const MlstmOperands<TX>& x, const MlstmUnit& unit, T* C,
                                     const MlstmScratch<T>& s) {
  for (int64_t c = 0; c < unit.columns; c += kTileColumns<T>) {
    const T* panel = s.C_panels + c * s.qk_rows;
    for (int64_t j = 0; j < x.qk_dim; ++j) {
      for (int64_t v = 0; v < kTileColumns<T>; v += kLanes<T>) {
        const int64_t left = unit.columns - c - v;
        if (left > 0) {
          store_first(C + j * x.v_dim + c + v, load(panel + j * kTileColumns<T> + v), left);
        }
      }
    }
  }
}

// All steps of one unit. n and m go to `n_out` and `m_out`, which no unit reads: blocks of one
// head share their inputs, and these may be the outputs' memory.
template <class TX, class T = Arithmetic<TX>>
void mlstm_unit(const MlstmOperands<TX>& x, const MlstmUnit& unit, T* n_out, T* m_out,
                MlstmScratch<T>& s) {
  const int64_t head = unit.row * x.heads + unit.head;
  const int64_t steps = valid_steps(x.lengths, x.lengths_size, unit.row, x.time);
  const T* C = x.C + head * x.qk_dim * x.v_dim + unit.column;
  T* const C_out = x.C_out + head * x.qk_dim * x.v_dim + unit.column;
  T m = x.m[head];
  if (steps == 0) {
    for (int64_t j = 0; j < x.qk_dim && C != C_out; ++j) {
      std::memcpy(C_out + j * x.v_dim, C + j * x.v_dim, unit.columns * sizeof(T));
    }
    std::memcpy(s.n, x.n + head * x.qk_dim, x.qk_dim * sizeof(T));
  } else {
    for (int64_t j = 0; j < s.qk_stride; j += kLanes<T>) {
      store(s.n + j, load_first(x.n + head * x.qk_dim + j, max_of(0, x.qk_dim - j)));
    }
  }
  bool in_panels = false;
  for (int64_t start = 0; start < steps;) {
    const int64_t within = x.chunk_size - start % x.chunk_size;
    const int64_t length = min_of(min_of(within, kMostChunk), steps - start);
    const bool by_steps = mlstm_goes_by_steps(length, x.qk_dim, x.v_dim);
    if (by_steps && in_panels) {
      mlstm_write_panels(x, unit, C_out, s);
      C = C_out;
      in_panels = false;
    }
    if (!by_steps && !in_panels) {
      mlstm_read_panels(x, unit, C, s);
      in_panels = true;
    }
    if (by_steps) {
      m = mlstm_steps(x, unit, start, length, m, C, C_out, s);
      C = C_out;
    } else {
      m = mlstm_chunk(x, unit, start, length, m, s);
    }
    start += length;
  }
  if (in_panels) mlstm_write_panels(x, unit, C_out, s);
  for (int64_t t = steps; t < x.time; ++t) {
    TX* h = x.h + ((unit.row * x.time + t) * x.heads + unit.head) * x.v_dim + unit.column;
    std::memset(h, 0, unit.columns * sizeof(TX));
  }
  if (unit.column == 0) {
    std::memcpy(n_out + head * x.qk_dim, s.n, x.qk_dim * sizeof(T));
    m_out[head] = m;
  }
}

// Blocks that each head's columns are cut into, so that `threads` parts are even.
template <class T>
XLSTM_INLINE int64_t mlstm_blocks(int64_t heads, int64_t v_dim, int64_t threads) {
  constexpr double kUneven = 1.15;
  const int64_t panels = round_up(v_dim, kTileColumns<T>) / kTileColumns<T>;
  int64_t blocks = 1;
  while (blocks * 2 <= panels) {
    const int64_t units = heads * blocks;
    const int64_t largest = round_up(units, threads) / threads;
    if (static_cast<double>(largest * threads) <= kUneven * static_cast<double>(units)) break;
    blocks *= 2;
  }
  return blocks;
}

template <class TX>
Status mlstm_run(const Call& call, const Parallel& parallel) {
  using T = Arithmetic<TX>;
  const MlstmOperands<TX> x = mlstm_operands<TX>(call);
  const int64_t heads = x.batch * x.heads;
  const double cost = static_cast<double>(x.time) * static_cast<double>(x.qk_dim) *
                      static_cast<double>(x.v_dim) * 2;
  const int64_t most = count_parts(heads * x.v_dim, cost / static_cast<double>(x.v_dim),
                                   parallel.threads);
  const int64_t blocks = mlstm_blocks<T>(heads, x.v_dim, most), units = heads * blocks;
  const int64_t parts = min_of(most, units);
  const int64_t panels = round_up(x.v_dim, kTileColumns<T>) / kTileColumns<T>;

  Arena arena(call.workspace);
  T* const n_out = arena.take<T>(heads * x.qk_dim);
  T* const m_out = arena.take<T>(heads);
  char* const scratch = static_cast<char*>(call.workspace) + arena.used();
  Arena counter(nullptr);
  MlstmScratch<T>(counter, x.qk_dim, x.v_dim);
  auto part = [&](int64_t index) {
    Arena own(scratch + index * counter.used());
    MlstmScratch<T> s(own, x.qk_dim, x.v_dim);
    const Units mine = units_of(units, parts, index, x.lengths_size > 1);
    for (int64_t u = mine.begin; u < mine.end; u += mine.step) {
      const int64_t head = u / blocks;
      const Share columns = share_of(panels, blocks, u % blocks);
      const int64_t begin = columns.begin * kTileColumns<T>;
      const int64_t end = min_of(columns.end * kTileColumns<T>, x.v_dim);
      mlstm_unit(x, {head / x.heads, head % x.heads, begin, end - begin}, n_out, m_out, s);
    }
  };
  parallel_for(parallel, parts, part);
  std::memcpy(x.n_out, n_out, heads * x.qk_dim * sizeof(T));
  std::memcpy(x.m_out, m_out, heads * sizeof(T));
  return Status::kOk;
}

template <class T>
size_t mlstm_workspace(const Problem& problem, int threads) {
  const int64_t* size = problem.sizes;
  const int64_t heads = size[mlstm::size_B] * size[mlstm::size_N];
  Arena shared(nullptr), own(nullptr);
  shared.take<T>(heads * size[mlstm::size_K]);
  shared.take<T>(heads);
  MlstmScratch<T>(own, size[mlstm::size_K], size[mlstm::size_V]);
  const int64_t parts = min_of(heads * size[mlstm::size_V], threads);
  return static_cast<size_t>(shared.used() + parts * own.used());
}

}  // namespace xlstm::cpu::XLSTM_ISA
