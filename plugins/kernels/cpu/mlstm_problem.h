// What the parts of the mLSTM share: the units of work and the scratch memory of one part.
#pragma once

#include "element.h"
#include "gemm.h"
#include "parallel.h"

namespace xlstm::cpu::XLSTM_ISA {

// Longest chunk computed at once; a greater chunk_size is cut on.
inline constexpr int64_t kMostChunk = 64;

// One head of one row, and of its values the columns [column, column + columns).
struct MlstmUnit {
  int64_t row, head, column, columns;
};

// Division of a row by one number: by its reciprocal, unless that is infinite.
template <class T>
struct RowDivisor {
  T denominator;
  Vec<T> inverse;
  bool divides;

  explicit RowDivisor(T by) : denominator(by), inverse(broadcast(T(1) / by)) {
    divides = inverse[0] - inverse[0] != T(0);
  }
  Vec<T> divide(Vec<T> row) const { return divides ? row / broadcast(denominator) : row * inverse; }
};

// Memory of one part, sized for the whole head; rows are padded to whole tiles.
template <class T>
struct MlstmScratch {
  int64_t qk_rows;    // K in whole tiles of rows
  int64_t qk_stride;  // distance of rows of K elements
  int64_t row_stride; // chunk in whole tiles of columns
  T* input_gate;      // [kMostChunk] i after the soft cap
  T* log_forget;      // [kMostChunk]
  T* inter;           // [kMostChunk + tile] exp(sum of log f + m - m_t)
  T* floor;           // [kMostChunk + tile] exp(-m_t)
  T* denominator;     // [kMostChunk + tile]
  T* decay;           // [row_stride] sum of log f over s < r <= t
  T* weights;         // [rows][row_stride] exp(log_d - m_t), then (q k^T) of it
  T* write;           // [row_stride] weights of the last step, without q k^T
  T* q;               // [rows][qk_stride] scaled
  T* k_panels;        // [panels][K][kTileColumns] k^T
  T* k_written;       // [kMostChunk][qk_stride] k times write
  T* v_panel;         // [kMostChunk][kTileColumns], or v of one step [V]
  T* C_panels;        // [panels][qk_rows][kTileColumns]
  T* n;               // [qk_stride]
  T* numerator;       // [V] of one step

  MlstmScratch(Arena& arena, int64_t qk_dim, int64_t v_dim) {
    const int64_t rows = round_up(kMostChunk, kTileRows);
    const int64_t v_columns = round_up(v_dim, kTileColumns<T>);
    qk_rows = round_up(qk_dim, kTileRows);
    // one vector more: rows a power of two apart would share a few sets of the cache
    qk_stride = round_up(qk_rows, kLanes<T>) + kLanes<T>;
    row_stride = round_up(kMostChunk, kTileColumns<T>);
    input_gate = arena.take<T>(row_stride);
    log_forget = arena.take<T>(row_stride);
    inter = arena.take<T>(row_stride + kTileRows);
    floor = arena.take<T>(row_stride + kTileRows);
    denominator = arena.take<T>(row_stride + kTileRows);
    decay = arena.take<T>(row_stride);
    weights = arena.take<T>(rows * row_stride);
    write = arena.take<T>(row_stride);
    q = arena.take<T>(rows * qk_stride);
    k_panels = arena.take<T>(row_stride * qk_dim);
    k_written = arena.take<T>(kMostChunk * qk_stride);
    v_panel = arena.take<T>(max_of(kMostChunk * kTileColumns<T>, v_columns));
    C_panels = arena.take<T>(v_columns * qk_rows);
    n = arena.take<T>(qk_stride);
    numerator = arena.take<T>(v_columns);
  }
};

}  // namespace xlstm::cpu::XLSTM_ISA
