// What a block of outputs has in shared memory, and how it gets there.
#pragma once

#include "chunk.h"
#include "chunk_decay.h"

namespace xlstm::cuda {

inline constexpr int kOutputsThreads = 128;
inline constexpr int kOutputColumns = 128;
inline constexpr int kOutputsStages = 4;
inline constexpr int kPanel = 32;
inline constexpr int kPanelParts = kPanel / 16;           // of K
inline constexpr int kColumnParts = kOutputColumns / 16;  // of V

template <class TX>
struct OutputsPanel {
  TX q[kChunk * kPanel], k[kChunk * kPanel];
  Fragment C[kPanelParts * kColumnParts * kWarp];
  // After the last panel v takes its place, in two tiles.
  __device__ TX* v(int half) { return reinterpret_cast<TX*>(this) + half * kChunk * kTile; }
};
static_assert(sizeof(OutputsPanel<__nv_bfloat16>) == 2 * kChunk * kOutputColumns);

template <class TX>
struct OutputsShared {
  OutputsPanel<TX> stages[kOutputsStages];
  TX weights[kChunk * kTile];               // P, a tile
  ChunkDecay decay;
  float q_n[kChunk];      // of n before the chunk
  float sums[2][kChunk];  // of P, by half

  float largest_n[kOutputsThreads / kWarp];  // of n, by warp

  __device__ float n_unit() const {
    if (!kHasUnits<TX>) return 1.f;
    float largest = largest_n[0];
    for (const float other : largest_n) largest = std::fmax(largest, other);
    return power_of_two(largest) / 1024.f;
  }

  // Behind it: operands of n, [parts][lanes][2], and units of C, [2][parts], of the tile's halves;
  // parts of K, whole panels.
  __device__ uint32_t* n() { return reinterpret_cast<uint32_t*>(this + 1); }
  __device__ float* units(int parts, int half) {
    return reinterpret_cast<float*>(n() + parts * kWarp * 2) + half * parts;
  }
  static size_t bytes(int64_t qk_dim) {
    const int64_t parts = round_up(qk_dim, kPanel) / 16, registers = kWarp * 2 + 2 * kHasUnits<TX>;
    return sizeof(OutputsShared) + static_cast<size_t>(parts * registers * 4);
  }
};

// What a block makes: columns [begin, end) of a chunk's h.
struct OutputsPart {
  int64_t head, chunk;
  int64_t first;                 // of its steps among [B,T,N]
  int begin, end;
  int count;                     // steps of the chunk
  int lane;
  int steps_half, columns_half;  // of this warp
};

// For each tile of columns the panels of C and then v; with the first tile's, q and k.
template <class TX>
struct OutputsCopies {
  CopyPlace<kOutputsThreads, kPanel> place;
  CopyPlace<kOutputsThreads> v_place;
  int64_t q, v;      // this thread's first elements of q and k, and of the tile's v
  const Fragment* C; // this thread's of the tile's first panel
  int row, rows;     // of the next panel, and K; past the last panel comes v
  int parts;         // of V from this tile on
  int stage;
  bool has_k;

  __device__ OutputsCopies(const ChunkProblem<TX>& x, const OutputsPart& part)
      : row(0), rows(static_cast<int>(x.qk_dim)), parts((part.end - part.begin) / 16), stage(0),
        has_k(true) {
    q = (part.first + place.row * x.heads) * x.qk_dim + place.eighth * 8;
    v = (part.first + v_place.row * x.heads) * x.v_dim + part.begin + v_place.eighth * 8;
    C = x.snapshot(part.head, part.chunk) + part.begin / 16 * kWarp + threadIdx.x;
  }

  // Start what comes next, if anything, into the stage whose turn it is.
  __device__ void next(const ChunkProblem<TX>& x, const OutputsPart& part, OutputsShared<TX>& s) {
    OutputsPanel<TX>& to = s.stages[stage];
    if (parts > 0 && row < rows) {
      const bool is_inside = row + place.eighth * 8 < rows;
      const int64_t from = q + row, stride = x.heads * x.qk_dim;
      place.copy(to.q, x.q + from, stride, part.count, is_inside, x.is_aligned);
      if (has_k) place.copy(to.k, x.k + from, stride, part.count, is_inside, x.is_aligned);
      next_C(to.C, x.v_dim / 16 * kWarp);
      row += kPanel;
    } else if (parts > 0) {
      const int64_t stride = x.heads * x.v_dim;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        v_place.copy(to.v(half), x.v + v + half * kTile, stride, part.count,
                     half * 4 + v_place.eighth / 2 < parts, x.is_aligned);
      }
      v += kOutputColumns;
      C += kColumnParts * kWarp;
      parts -= kColumnParts;
      row = 0;
      has_k = false;
    }
    copy_async_commit();
    stage = (stage + 1) % kOutputsStages;
  }

 private:
  __device__ void next_C(Fragment* to, int64_t stride) const {
    constexpr int kWarps = kOutputsThreads / kWarp;
    const int warp = threadIdx.x / kWarp;
    const Fragment* from = C + row / 16 * stride;
    to += threadIdx.x;
#pragma unroll
    for (int down = 0; down < kPanelParts; ++down, from += stride) {
#pragma unroll
      for (int across = 0; across < kColumnParts; across += kWarps) {
        copy_async_16(to + (down * kColumnParts + across) * kWarp, from + across * kWarp,
                      row + down * 16 < rows && across + warp < parts);
      }
    }
  }
};

}  // namespace xlstm::cuda
