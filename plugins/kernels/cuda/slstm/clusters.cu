// XlstmSLSTM in bfloat16 and float16 with H up to 768, on GPUs that have clusters (sm_90): R stays
// in the registers and the shared memory of a cluster's blocks for the whole sequence.
//
// A cluster has one head and some rows, a block some of the head's units; split.h says how it
// computes y R. Each step a block sends the y of its units to all blocks by distributed shared
// memory, and one barrier of the cluster parts the steps. All else that passes through memory is
// gates in and y out.
//
// Why these shapes: R of a head is 8 H^2 bytes, 0.5, 2 and 4.5 MiB at H = 256, 512 and 768, where
// a block has 256 KiB of registers and 227 KiB of shared memory. Of the registers R takes half,
// for a thread has 255. So 4 blocks of 128 KiB, 16 of 128 KiB and 16 of 288 KiB; and where no 16
// blocks are to be had at once, 8 of 256 KiB. What lies in shared memory costs 128 bytes a clock
// to read, each step: 0.6 us of 128 KiB, 0.75 us of the 168 KiB at H = 768.
// Not measured yet: benchmarks/gpu/model.py has what to expect.
#include <tuple>
#include <utility>

#include "cell.h"
#include "operands.h"
#include "split.h"
#include "variant.h"

namespace xlstm::cuda {
namespace {

using Shapes = std::tuple<ClusterShape<64, 4, 1, 8>, ClusterShape<32, 16, 2, 8>,
                          ClusterShape<64, 8, 1, 8>, ClusterShape<48, 16, 2, 5>>;
static_assert(std::tuple_size_v<Shapes> == kClusterShapes);
template <int kShape>
using ShapeOf = std::tuple_element_t<kShape, Shapes>;

// One head and `S::rows` rows from `first` on, for the whole sequence.
template <class TX, class S, bool kRounds>
struct SlstmCluster {
  const SlstmOperands<TX>& x;
  const int first, head, rank;  // rank: of this block in the cluster
  const Lane lane;

  __device__ int unit() const { return rank * S::units + S::first_unit(lane) + lane.row; }
  // From a gate, or a step's y, to the next: 32 bits, for registers are few.
  __device__ int width() const { return static_cast<int>(x.heads) * x.size; }
  __device__ int64_t row(int cell) const { return first + S::first_row(lane) + S::row_of(cell); }
  // Where in [B, steps, N, H] a cell is at step 0.
  __device__ int64_t place(int cell, int64_t steps) const {
    return (row(cell) * steps * x.heads + head) * x.size + unit();
  }
  __device__ int steps_of(int64_t row) const {
    return static_cast<int>(valid_steps(x.lengths, x.lengths_size, row, x.time));
  }
  __device__ int most_steps() const {
    int most = 0;
    for (int64_t r = first; r < min_of(first + S::rows, x.batch); ++r) {
      most = most > steps_of(r) ? most : steps_of(r);
    }
    return most;
  }

  __device__ void run() const {
    Arena arena(shared_memory);
    arena.take<char>(S::stored_bytes);  // first, as SplitWeights has it
    SplitWeights<S> weights(lane);
    char* const memory = arena.take<char>(S::memory_bytes);
    auto* const bias = arena.take<float4>(S::units) + S::first_unit(lane) + lane.row;
    weights.factor = load_weights<TX, S>(
        x, {head, rank * S::units}, lane, memory,
        [&](const TilePlace& at, const uint32_t(&tile)[4]) { weights.keep(at, tile); });

    const bool mine = S::has_cells(lane);
    bool has[S::cells];
    SlstmCell cells[S::cells];
    int steps[S::cells];
    float y[S::cells];
#pragma unroll
    for (int c = 0; c < S::cells; ++c) {
      has[c] = mine && row(c) < x.batch && unit() < x.size;
      cells[c] = {};
      steps[c] = 0;
      if (has[c]) {
        const int64_t at = place(c, 1);
        cells[c] = {x.y[at], x.c[at], x.n[at], x.m[at]};
        steps[c] = steps_of(row(c));
      }
      y[c] = cells[c].y;
    }
    if (S::turn(lane) == 0 && lane.pair == 0) *bias = unit() < x.size ? bias_of() : float4{};
    cluster_arrive();  // every block has begun, and is done with what R passed through
    cluster_wait();
    if (mine) send<S>(memory, lane, rank, y);
    cluster_arrive();
    cluster_wait();
    const int most = most_steps();
    advance(weights, memory, bias, most, has, steps, cells);
#pragma unroll
    for (int c = 0; c < S::cells; ++c) {
      if (!has[c]) continue;
      const int64_t at = place(c, 1);
      x.y_out[at] = cells[c].y;
      x.c_out[at] = cells[c].c;
      x.n_out[at] = cells[c].n;
      x.m_out[at] = cells[c].m;
      TX* y_all = x.y_all + place(c, x.time);
      for (int64_t t = most; t < x.time; ++t) y_all[t * x.heads * x.size] = narrow<TX>(0.f);
    }
  }

  __device__ float4 bias_of() const {
    const float* b = x.b + head * x.size + unit();
    return {b[0], b[width()], b[2 * width()], b[3 * width()]};
  }

  // Gates of the cells at a step, where `from` has the first cell's.
  __device__ void fetch(const float* from, const bool (&has)[S::cells],
                        float (&given)[S::cells][4]) const {
#pragma unroll
    for (int c = 0; c < S::cells; ++c) {
      if (!has[c]) continue;
#pragma unroll
      for (int g = 0; g < 4; ++g) {
        given[c][g] = from[(S::row_of(c) * x.time * 4 + g) * width()];
      }
    }
  }

  // `most` steps. The last barrier is passed when every block has all it was sent.
  __device__ void advance(const SplitWeights<S>& weights, char* buffer, const float4* bias,
                          int most, const bool (&has)[S::cells],
                          const int (&steps)[S::cells], SlstmCell (&cells)[S::cells]) const {
    const SlstmLimits limits = {x.f_clamp > 0 ? x.f_clamp : INFINITY,
                                x.n_floor > 0 ? x.n_floor : -INFINITY};
    float* const sums = reinterpret_cast<float*>(buffer + 2 * S::buffer_bytes);
    const float* gates = x.gates + (row(0) * x.time * 4 * x.heads + head) * x.size + unit();
    TX* y_all = x.y_all + place(0, x.time);
    float given[S::cells][4] = {};
    if (most > 0) fetch(gates, has, given);
    for (int t = 0; t < most; ++t) {
      float raw[S::cells][4], y[S::cells] = {};
      SplitSums<S> sum = {};
      add_products<S>(weights, buffer, lane, sum);
      sum_up<S>(sum, lane, sums, raw);
      buffer += t % 2 == 0 ? S::buffer_bytes : -S::buffer_bytes;
      const float4 b = *bias;  // not kept: registers are R's
      const float added[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (int c = 0; c < S::cells; ++c) {
#pragma unroll
        for (int g = 0; g < 4; ++g) {
          const float alone = as_state<kRounds>(given[c][g]) + added[g];
          raw[c][g] = kRounds ? alone + round_to_bfloat16(raw[c][g] * weights.factor)
                              : std::fma(raw[c][g], weights.factor, alone);
        }
      }
      gates += 4 * width();
      if (t + 1 < most) fetch(gates, has, given);  // most of a step before they are used
#pragma unroll
      for (int c = 0; c < S::cells; ++c) {
        const SlstmCell next = slstm_next<kRounds>(raw[c], cells[c], limits);
        if (has[c]) y[c] = next.y;  // past a row's length only its own columns read it
        if (t < steps[c]) cells[c] = next;
      }
      if (S::has_cells(lane)) send<S>(buffer, lane, rank, y);
      cluster_arrive();
#pragma unroll
      for (int c = 0; c < S::cells; ++c) {
        if (has[c]) y_all[S::row_of(c) * x.time * width()] = narrow<TX>(t < steps[c] ? y[c] : 0.f);
      }
      y_all += width();
      cluster_wait();
    }
  }
};

template <class TX, int kShape, int kTiles, bool kRounds>
__global__ void __launch_bounds__(ShapeOf<kShape>::threads, 1)
    slstm_clusters(SlstmOperands<TX> x) {
#if __CUDA_ARCH__ >= 900
  using S = Split<ShapeOf<kShape>, kTiles, kRounds ? 1 : 2>;
  const int heads = static_cast<int>(x.heads), block = static_cast<int>(blockIdx.x);
  const int units = heads * static_cast<int>(parts_of(x.batch, S::rows));
  for (int unit = block / S::blocks; unit < units; unit += gridDim.x / S::blocks) {
    const int first = unit / heads * S::rows;
    SlstmCluster<TX, S, kRounds>{x, first, unit % heads, block % S::blocks, {}}.run();
  }
#endif
}

// `body` with a kernel and its Split.
template <class TX, int kShape, int kTiles, bool kRounds, class Body>
Status with_split(Body body) {
  return body(slstm_clusters<TX, kShape, kTiles, kRounds>,
              Split<ShapeOf<kShape>, kTiles, kRounds ? 1 : 2>{});
}
template <class TX, int kShape, class Body>
Status with_rows(int tiles, bool rounds, Body body) {
  if (rounds) return with_split<TX, kShape, 1, true>(body);
  if (tiles == 1) return with_split<TX, kShape, 1, false>(body);
  return with_split<TX, kShape, 2, false>(body);
}
template <class TX, class Body>
Status with_kernel(int shape, int tiles, bool rounds, Body body) {
  switch (shape) {
    case 0: return with_rows<TX, 0>(tiles, rounds, body);
    case 1: return with_rows<TX, 1>(tiles, rounds, body);
    case 2: return with_rows<TX, 2>(tiles, rounds, body);
    default: return with_rows<TX, 3>(tiles, rounds, body);
  }
}

constexpr int kMostUnits[] = {ShapeOf<0>::inputs, ShapeOf<1>::inputs, ShapeOf<2>::inputs,
                              ShapeOf<3>::inputs};

// The shape for heads of H of which so many clusters have to run: the narrowest that the device
// has, of two as wide the first unless the other runs more of them at once. -1 where it has none.
int shape_of(int64_t H, int64_t clusters, const Device& device) {
  int chosen = -1;
  for (int shape = 0; shape < kClusterShapes; ++shape) {
    if (H > kMostUnits[shape] || device.clusters[shape] == 0) continue;
    if (chosen < 0) {
      chosen = shape;
    } else if (kMostUnits[shape] == kMostUnits[chosen] && device.clusters[chosen] < clusters &&
               device.clusters[chosen] < device.clusters[shape]) {
      chosen = shape;
    }
  }
  return chosen;
}

template <class TX>
Status launch_as(const Call& call, const Device& device, void* stream) {
  const SlstmOperands<TX> x = slstm_operands<TX>(call);
  const int64_t clusters = x.heads * parts_of(x.batch, x.rounds ? 8 : 4);
  const int shape = shape_of(x.size, clusters, device);
  // Twice the rows, of twice the products, where not all clusters run at once.
  const int tiles = x.rounds || clusters <= device.clusters[shape] ? 1 : 2;
  return with_kernel<TX>(shape, tiles, x.rounds, [&](auto kernel, auto split) {
    using S = decltype(split);
    return launch_kernel(kernel, x, S::blocks * x.heads * parts_of(x.batch, S::rows), S::threads,
                         S::shared_bytes, stream, S::blocks);
  });
}

bool fits(const Problem& problem, const void*, const Device& device) {
  const int64_t* size = problem.sizes;
  return is_half(problem.dtype) && size[slstm::size_T] <= INT32_MAX &&
         size[slstm::size_B] * size[slstm::size_N] <= INT32_MAX &&
         4 * size[slstm::size_N] * size[slstm::size_H] <= INT32_MAX &&
         shape_of(size[slstm::size_H], 1, device) >= 0;
}

size_t workspace_size(const Problem&) { return 0; }

// Load a kernel and learn how many of its clusters run at once, `most` if fewer.
template <class S, class Kernel>
Status prepare_kernel(Kernel kernel, const Device& device, int& most) {
  int at_once = 0;
  Status status = load_kernels(kernel);
  if (status == Status::kOk && static_cast<int64_t>(S::shared_bytes) <= device.shared_bytes) {
    status = allow_shared(kernel, S::shared_bytes);
    if (status == Status::kOk) {
      at_once = allow_clusters(kernel, S::blocks, S::threads, S::shared_bytes);
    }
  }
  if (at_once < most) most = at_once;
  return status;
}

template <class TX>
Status prepare_as(Device& device) {
  Status status = Status::kOk;
  for (int shape = 0; shape < kClusterShapes; ++shape) {
    for (const auto& [tiles, rounds] : {std::pair{1, false}, {2, false}, {1, true}}) {
      if (status != Status::kOk) return status;
      status = with_kernel<TX>(shape, tiles, rounds, [&](auto kernel, auto split) {
        return prepare_kernel<decltype(split)>(kernel, device, device.clusters[shape]);
      });
    }
  }
  return status;
}

Status prepare(Device& device) {
  if (!device.has_clusters) return Status::kOk;
  for (int& most : device.clusters) most = device.processors;
  return for_each_half([&](auto half) { return prepare_as<decltype(half)>(device); });
}

Status launch(const Call& call, const Device& device, void* stream) {
  return with_half(call.problem.dtype, [&](auto half) {
    return launch_as<decltype(half)>(call, device, stream);
  });
}

}  // namespace

extern const Variant kSlstmClusters = {"clusters", fits, workspace_size, prepare, launch};

}  // namespace xlstm::cuda
