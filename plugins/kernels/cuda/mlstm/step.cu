// Variant `step` of XlstmMLSTM: one launch that reads each element of C once and writes it once.
//
//   m' = max(log f + m, i), F = exp(log f + m - m'), I = exp(i - m')
//   C' = F C + I k v^T,  n' = F n + I k,  h = q^T C' / (max(|q^T n'|, exp(-m')) + eps)
//
// A block has all K rows of one head's tile of value columns, in registers over all steps. What it
// reads is asked for before anything waits, so that memory alone bounds it. Gates and n are a
// head's: each of its blocks computes them again (K of K V elements), rather than wait for another
// launch.
//
// Steps are taken one by one, so cuts in time change no bit.
#include "element.h"
#include "gates.h"
#include "variant.h"

namespace xlstm::cuda {
namespace {

constexpr int kRows = 16, kQuad = 4;  // of a thread: 16 rows of C, 16 bytes of each
constexpr unsigned kMostSums = 16;    // steps whose sums lie in shared memory at once

// Threads across a tile, so that all K rows are in one block: eight, which read a whole line of the
// caches, or four.
constexpr int kWide = 8, kNarrow = 4;
constexpr int most_threads(int lanes) { return lanes == kWide ? 128 : 256; }
constexpr int most_rows(int lanes) { return most_threads(lanes) / lanes * kRows; }

// One step is bound by memory: at 128 registers a thread 128 KB of C are under way on a processor.
// Several steps are bound by arithmetic and by waiting for q and k: those of the next kGroup steps
// are asked for while the steps before are computed, at up to 255 registers.
constexpr int least_blocks(int lanes, bool one) { return (one ? 512 : 256) / most_threads(lanes); }
template <int kLanes, bool kOne>
constexpr int kGroup = kOne ? 1 : kLanes / 2;

constexpr int64_t kMostUnits = int64_t{1} << 30, kMostColumns = int64_t{1} << 20;
constexpr int64_t kMostPlaces = int64_t{1} << 31;

template <class TX>
struct StepProblem {
  MlstmOperands<TX> given;
  unsigned T, N, K, V;
  unsigned tiles, units;  // of a head; of all
};

// --- C -----------------------------------------------------------------------------------------

// How many rows and columns of C are there for this thread.
struct Share {
  int rows, columns;
};

// C is touched once a call, and so passes by the caches of the processors. kVector: all rows and
// columns are there or none.
template <bool kVector>
__device__ void load_C(const float* from, unsigned V, const Share& share,
                       float (&C)[kRows][kQuad]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r, from += V) {
    float4 row = {0.f, 0.f, 0.f, 0.f};
    if (kVector) {
      if (share.rows > 0) row = __ldcg(reinterpret_cast<const float4*>(from));
    } else if (r < share.rows) {
      if (share.columns > 0) row.x = __ldcg(from);
      if (share.columns > 1) row.y = __ldcg(from + 1);
      if (share.columns > 2) row.z = __ldcg(from + 2);
      if (share.columns > 3) row.w = __ldcg(from + 3);
    }
    C[r][0] = row.x, C[r][1] = row.y, C[r][2] = row.z, C[r][3] = row.w;
  }
}

template <bool kVector>
__device__ void store_C(float* to, unsigned V, const Share& share,
                        const float (&C)[kRows][kQuad]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r, to += V) {
    if (kVector) {
      const float4 row = {C[r][0], C[r][1], C[r][2], C[r][3]};
      if (share.rows > 0) __stcg(reinterpret_cast<float4*>(to), row);
    } else {
#pragma unroll
      for (int c = 0; c < kQuad; ++c) {
        if (r < share.rows && c < share.columns) __stcg(to + c, C[r][c]);
      }
    }
  }
}

// --- gates -------------------------------------------------------------------------------------

// Of one step for each lane: i and f, then F, I and exp(-m').
struct GateInputs {
  float i, f;
};
struct Gates {
  float forget, write, floor;
};

// `place` is the first step's; lanes from `count` on have none.
template <class TX>
__device__ GateInputs load_gates(const StepProblem<TX>& x, unsigned place, unsigned count) {
  const unsigned lane = threadIdx.x % kWarp;
  if (lane >= count) return {0.f, 0.f};
  return {x.given.i[place + lane * x.N], x.given.f[place + lane * x.N]};
}

// m goes on over `count` steps. Every warp does it for itself.
__device__ inline Gates stabilised(GateInputs given, float cap, unsigned count, float& m) {
  const unsigned lane = threadIdx.x % kWarp;
  const float input = soft_cap(given.i, cap), log_forget = log_sigmoid(soft_cap(given.f, cap));
  float before = m, after = m;
#pragma unroll 1
  for (unsigned t = 0; t < count; ++t) {
    const float next = at_least(__shfl_sync(kAllLanes, log_forget, t) + m,
                                __shfl_sync(kAllLanes, input, t));
    if (lane == t) before = m, after = next;
    m = next;
  }
  return {std::exp(log_forget + before - after), std::exp(input - after), std::exp(-after)};
}

// --- the recurrence ----------------------------------------------------------------------------

struct Scratch {
  float* n;    // [panel]
  float* q;    // [group][panel] scaled; rows past K are 0
  float* k;    // [group][panel] scaled, times I
  float* v;    // [group][tile]
  float* q_C;  // [kMostSums][warps][tile] sums over each warp's rows
  float* q_n;  // [kMostSums][warps]

  __host__ __device__ Scratch(Arena& arena, unsigned T, unsigned group, unsigned warps,
                              unsigned panel, unsigned tile) {
    const auto steps = static_cast<unsigned>(min_of(T, group));
    const auto sums = static_cast<unsigned>(min_of(T, kMostSums));
    n = arena.take<float>(panel);
    q = arena.take<float>(steps * panel);
    k = arena.take<float>(steps * panel);
    v = arena.take<float>(steps * tile);
    q_C = arena.take<float>(sums * warps * tile);
    q_n = arena.take<float>(sums * warps);
  }
};

// What this thread brings to a group of steps: q and k of some rows, every blockDim-th, which are
// also its rows of n; and v of one column, where it has one. Kept as they are until they are
// used, so that nothing waits for them before.
template <class TX, int kSteps, int kKeys>
struct GroupInputs {
  TX q[kSteps][kKeys], k[kSteps][kKeys], v[kSteps];
};

// `place` is the first of `count` steps, one or more.
template <unsigned kTile, class TX, int kSteps, int kKeys>
__device__ void load_group(const StepProblem<TX>& x, unsigned place, unsigned tile, unsigned count,
                           GroupInputs<TX, kSteps, kKeys>& inputs) {
  const unsigned thread = threadIdx.x, column = min(tile * kTile + thread, x.V - 1);
  const TX *q = x.given.q + uint64_t{place} * x.K + thread;
  const TX *k = x.given.k + uint64_t{place} * x.K + thread;
  const TX* v = x.given.v + uint64_t{place} * x.V + column;
  const uint64_t next_q = uint64_t{x.N} * x.K, next_v = uint64_t{x.N} * x.V;
#pragma unroll
  for (int g = 0; g < kSteps; ++g, q += next_q, k += next_q, v += next_v) {
    if (g > 0 && static_cast<unsigned>(g) >= count) break;
#pragma unroll
    for (int e = 0; e < kKeys; ++e) {
      const unsigned j = e * blockDim.x;
      if (thread + j < x.K) inputs.q[g][e] = q[j], inputs.k[g][e] = k[j];
    }
    inputs.v[g] = *v;
  }
}

// The `count` steps from `t` on go to shared memory and into n, with each warp's sums of q n.
template <unsigned kTile, class TX, int kSteps, int kKeys>
__device__ void take_group(const StepProblem<TX>& x, const GroupInputs<TX, kSteps, kKeys>& inputs,
                           unsigned tile, unsigned t, unsigned count, const Gates& gates,
                           const Scratch& s) {
  const unsigned thread = threadIdx.x, panel = blockDim.x * kKeys;
  float n[kKeys], sums[kSteps] = {};
#pragma unroll
  for (int e = 0; e < kKeys; ++e) n[e] = s.n[thread + e * blockDim.x];
#pragma unroll
  for (int g = 0; g < kSteps; ++g) {
    const float forget = __shfl_sync(kAllLanes, gates.forget, t + g);
    const float write = __shfl_sync(kAllLanes, gates.write, t + g);
    if (static_cast<unsigned>(g) >= count) continue;
#pragma unroll
    for (int e = 0; e < kKeys; ++e) {
      const unsigned j = thread + e * blockDim.x;
      const bool inside = j < x.K;
      const float query = inside ? widen(inputs.q[g][e]) * x.given.q_scale : 0.f;
      const float key = inside ? widen(inputs.k[g][e]) * x.given.k_scale * write : 0.f;
      s.q[g * panel + j] = query;
      s.k[g * panel + j] = key;
      n[e] = std::fma(forget, n[e], key);
      sums[g] = std::fma(query, n[e], sums[g]);
    }
    const bool has_column = tile * kTile + thread < x.V;
    if (thread < kTile) s.v[g * kTile + thread] = has_column ? widen(inputs.v[g]) : 0.f;
  }
#pragma unroll
  for (int e = 0; e < kKeys; ++e) s.n[thread + e * blockDim.x] = n[e];
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
#pragma unroll
    for (int g = 0; g < kSteps; ++g) sums[g] += __shfl_xor_sync(kAllLanes, sums[g], distance);
  }
  const unsigned warp = thread / kWarp, warps = blockDim.x / kWarp;
#pragma unroll
  for (int g = 0; g < kSteps; ++g) {
    if (thread % kWarp == 0 && g < static_cast<int>(count)) s.q_n[(t + g) * warps + warp] = sums[g];
  }
}

// This thread's part of C over one step whose q, k and v begin at the addresses given; the sums of
// its warp go to `q_C`.
template <int kLanes>
__device__ void advance(const float* q, const float* k, const float* v, float forget,
                        float (&C)[kRows][kQuad], float* q_C) {
  const unsigned lane = threadIdx.x % kWarp;
  const float4 v4 = *reinterpret_cast<const float4*>(v + lane % kLanes * kQuad);
  const float value[kQuad] = {v4.x, v4.y, v4.z, v4.w};
  float sums[kQuad] = {};
#pragma unroll
  for (int r = 0; r < kRows; r += 4) {
    const float4 q4 = *reinterpret_cast<const float4*>(q + r);
    const float4 k4 = *reinterpret_cast<const float4*>(k + r);
    const float query[4] = {q4.x, q4.y, q4.z, q4.w}, key[4] = {k4.x, k4.y, k4.z, k4.w};
#pragma unroll
    for (int e = 0; e < 4; ++e) {
#pragma unroll
      for (int c = 0; c < kQuad; ++c) {
        float& element = C[r + e][c];
        element = std::fma(forget, element, key[e] * value[c]);
        sums[c] = std::fma(query[e], element, sums[c]);
      }
    }
  }
#pragma unroll
  for (int distance = kWarp / 2; distance >= kLanes; distance /= 2) {
#pragma unroll
    for (int c = 0; c < kQuad; ++c) sums[c] += __shfl_xor_sync(kAllLanes, sums[c], distance);
  }
  const float4 sum = {sums[0], sums[1], sums[2], sums[3]};
  if (lane < kLanes) *reinterpret_cast<float4*>(q_C + lane * kQuad) = sum;
}

// h of `count` steps from their sums; `place` is the first one's.
template <unsigned kTile, class TX>
__device__ void write_h(const StepProblem<TX>& x, unsigned place, unsigned tile, unsigned count,
                        const Gates& gates, const Scratch& s) {
  const unsigned lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
#pragma unroll 1
  for (unsigned t = threadIdx.x / kWarp; t < count; t += warps) {
    float q_n = 0.f;
#pragma unroll 1
    for (unsigned w = 0; w < warps; ++w) q_n += s.q_n[t * warps + w];
    const float floor = __shfl_sync(kAllLanes, gates.floor, t);
    const float denominator = at_least(std::fabs(q_n), floor) + x.given.eps;
#pragma unroll
    for (unsigned c = lane; c < kTile; c += kWarp) {
      float q_C = 0.f;
#pragma unroll 2
      for (unsigned w = 0; w < warps; ++w) q_C += s.q_C[(t * warps + w) * kTile + c];
      const unsigned column = tile * kTile + c;
      if (column < x.V) {
        x.given.h[uint64_t{place + t * x.N} * x.V + column] = narrow<TX>(q_C / denominator);
      }
    }
  }
}

// --- a block's work ----------------------------------------------------------------------------

template <class TX, int kLanes, bool kVector, bool kOne>
__device__ void step_tile(const StepProblem<TX>& x, unsigned unit) {
  constexpr unsigned kTile = kLanes * kQuad;
  constexpr int kKeys = kRows / kLanes, kSteps = kGroup<kLanes, kOne>;
  constexpr unsigned kSums = kOne ? 1 : kMostSums;
  const unsigned thread = threadIdx.x, warp = thread / kWarp, warps = blockDim.x / kWarp;
  const unsigned head = unit / x.tiles, tile = unit - head * x.tiles;
  const unsigned first = thread / kLanes * kRows, panel = blockDim.x * kKeys;
  const unsigned column = tile * kTile + thread % kLanes * kQuad;
  const Share share = {column < x.V ? static_cast<int>(x.K - first) : 0,
                       static_cast<int>(x.V - column)};
  const uint64_t corner = uint64_t{head} * (x.K * x.V) + (first * x.V + column);
  float C[kRows][kQuad];
  load_C<kVector>(x.given.C + corner, x.V, share, C);

  // of q, k, v, i, f and h, in heads; the next step is N further
  const unsigned row = head / x.N;
  unsigned place = row * x.T * x.N + (head - row * x.N);
  // The first steps' operands are there, whether they count or not: nothing waits for the length.
  GroupInputs<TX, kSteps, kKeys> inputs;
  load_group<kTile>(x, place, tile, x.T, inputs);
  GateInputs given = load_gates(x, place, min(x.T, kSums));
  float m = x.given.m[head];
  Arena arena(shared_memory);
  const Scratch s(arena, x.T, kSteps, warps, panel, kTile);
#pragma unroll
  for (int e = 0; e < kKeys; ++e) {
    const unsigned j = thread + e * blockDim.x;
    s.n[j] = j < x.K ? x.given.n[uint64_t{head} * x.K + j] : 0.f;
  }
  const auto steps = static_cast<unsigned>(
      valid_steps(x.given.lengths, x.given.lengths_size, row, x.T));

  unsigned start = 0;
  do {  // once even where no step counts: the states are carried on
    const unsigned count = min(kSums, steps - start);
    const Gates gates = stabilised(given, x.given.soft_cap, count, m);
    if (!kOne && start + count < steps) {
      given = load_gates(x, place + count * x.N, min(kSums, steps - start - count));
    }
#pragma unroll 1
    for (unsigned t = 0; t < count; t += kSteps) {
      const unsigned members = min(static_cast<unsigned>(kSteps), count - t);
      if (!kOne && start + t > 0) __syncthreads();  // the group before is over for all
      take_group<kTile>(x, inputs, tile, t, members, gates, s);
      const unsigned done = start + t + members;
      if (!kOne && done < steps) {
        load_group<kTile>(x, place + (t + members) * x.N, tile, steps - done, inputs);
      }
      __syncthreads();
#pragma unroll 1
      for (unsigned g = 0; g < members; ++g) {
        advance<kLanes>(s.q + g * panel + first, s.k + g * panel + first, s.v + g * kTile,
                        __shfl_sync(kAllLanes, gates.forget, t + g), C,
                        s.q_C + ((t + g) * warps + warp) * kTile);
      }
    }
    start += count;
    if (start == steps) store_C<kVector>(x.given.C_out + corner, x.V, share, C);
    __syncthreads();
    write_h<kTile>(x, place, tile, count, gates, s);
    place += count * x.N;
    if (!kOne && start < steps) __syncthreads();  // the next sums go to the same place
  } while (!kOne && start < steps);

#pragma unroll 1
  for (; start < x.T; ++start, place += x.N) {
    const unsigned past = tile * kTile + thread;
    if (thread < kTile && past < x.V) x.given.h[uint64_t{place} * x.V + past] = narrow<TX>(0.f);
  }
  if (tile > 0) return;
#pragma unroll
  for (int e = 0; e < kKeys; ++e) {
    const unsigned j = thread + e * blockDim.x;
    if (j < x.K) x.given.n_out[uint64_t{head} * x.K + j] = s.n[j];
  }
  if (thread == 0) x.given.m_out[head] = m;
}

template <class TX, int kLanes, bool kVector, bool kOne>
__global__ void __launch_bounds__(most_threads(kLanes), least_blocks(kLanes, kOne))
    mlstm_step(StepProblem<TX> x) {
  for (unsigned unit = blockIdx.x; unit < x.units; unit += gridDim.x) {
    if (unit != blockIdx.x) __syncthreads();  // the sums of the unit before are read
    step_tile<TX, kLanes, kVector, kOne>(x, unit);
  }
}

// --- n and m where they are carried on in place -------------------------------------------------

// All blocks of a head read n and m and one writes: they read a copy where that is the same memory.
template <class TX>
struct CopyProblem {
  StepProblem<TX> x;
  float *n, *m;
};

constexpr int kCopyThreads = 256;

template <class TX>
__global__ void __launch_bounds__(kCopyThreads) mlstm_copy_n_and_m(CopyProblem<TX> to) {
  const MlstmOperands<TX>& given = to.x.given;
  const int64_t heads = given.batch * given.heads, stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t j = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; j < heads * given.qk_dim;
       j += stride) {
    to.n[j] = given.n[j];
    if (j < heads) to.m[j] = given.m[j];
  }
}

template <class TX>
Status copy_n_and_m(StepProblem<TX>& x, void* workspace, void* stream) {
  const int64_t heads = x.given.batch * x.given.heads;
  Arena arena(workspace);
  CopyProblem<TX> to = {x, arena.take<float>(heads * x.K), arena.take<float>(heads)};
  x.given.n = to.n, x.given.m = to.m;
  return launch_kernel(mlstm_copy_n_and_m<TX>, to, parts_of(heads * x.K, kCopyThreads),
                       kCopyThreads, 0, stream);
}

// --- launching ---------------------------------------------------------------------------------

bool is_aligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % sizeof(float4) == 0;
}

template <class TX, int kLanes, bool kVector, bool kOne>
Status launch_shape(StepProblem<TX> x, void* stream) {
  constexpr unsigned kTile = kLanes * kQuad, kWarpRows = kWarp / kLanes * kRows;
  const auto warps = static_cast<unsigned>(parts_of(x.K, kWarpRows));
  Arena counter(nullptr);
  Scratch(counter, x.T, kGroup<kLanes, kOne>, warps, warps * kWarpRows, kTile);
  x.tiles = static_cast<unsigned>(parts_of(x.V, kTile));
  x.units = static_cast<unsigned>(x.given.batch) * x.N * x.tiles;
  return launch_kernel(mlstm_step<TX, kLanes, kVector, kOne>, x, x.units, warps * kWarp,
                       counter.used(), stream);
}

template <int kLanes, class TX>
Status launch_lanes(const StepProblem<TX>& x, void* stream) {
  const bool vector = x.K % kRows == 0 && x.V % kQuad == 0 && is_aligned(x.given.C) &&
                      is_aligned(x.given.C_out);
  if (!vector) return launch_shape<TX, kLanes, false, false>(x, stream);
  return x.T == 1 ? launch_shape<TX, kLanes, true, true>(x, stream)
                  : launch_shape<TX, kLanes, true, false>(x, stream);
}

template <class TX>
StepProblem<TX> step_problem(const Call& call) {
  const MlstmOperands<TX> given = mlstm_operands<TX>(call);
  const auto size = [](int64_t count) { return static_cast<unsigned>(count); };
  return {given, size(given.time), size(given.heads), size(given.qk_dim), size(given.v_dim), 0, 0};
}

template <class TX>
Status launch_step(const Call& call, void* stream) {
  StepProblem<TX> x = step_problem<TX>(call);
  if (x.given.n == x.given.n_out || x.given.m == x.given.m_out) {
    const Status status = copy_n_and_m(x, call.workspace, stream);
    if (status != Status::kOk) return status;
  }
  return x.K <= most_rows(kWide) ? launch_lanes<kWide>(x, stream)
                                 : launch_lanes<kNarrow>(x, stream);
}

bool fits(const Problem& problem, const void*, const Device&) {
  const int64_t* size = problem.sizes;
  const int64_t heads = size[mlstm::size_B] * size[mlstm::size_N];
  return problem.dtype != DType::kFloat64 && size[mlstm::size_K] <= most_rows(kNarrow) &&
         size[mlstm::size_V] <= kMostColumns && heads * size[mlstm::size_T] <= kMostPlaces &&
         heads * parts_of(size[mlstm::size_V], kNarrow * kQuad) <= kMostUnits;
}

size_t workspace_size(const Problem& problem) {
  const int64_t* size = problem.sizes;
  const int64_t heads = size[mlstm::size_B] * size[mlstm::size_N];
  Arena counter(nullptr);
  counter.take<float>(heads * size[mlstm::size_K]);
  counter.take<float>(heads);
  return counter.used();
}

Status launch(const Call& call, const Device&, void* stream) {
  switch (call.problem.dtype) {
    case DType::kFloat16: return launch_step<__half>(call, stream);
    case DType::kBfloat16: return launch_step<__nv_bfloat16>(call, stream);
    default: return launch_step<float>(call, stream);
  }
}

template <class TX, int kLanes>
Status prepare_lanes() {
  return load_kernels(mlstm_step<TX, kLanes, true, true>, mlstm_step<TX, kLanes, true, false>,
                      mlstm_step<TX, kLanes, false, false>);
}

Status prepare(Device&) {
  return for_each_single([](auto element) {
    using TX = decltype(element);
    Status status = load_kernels(mlstm_copy_n_and_m<TX>);
    if (status == Status::kOk) status = prepare_lanes<TX, kWide>();
    return status == Status::kOk ? prepare_lanes<TX, kNarrow>() : status;
  });
}

}  // namespace

extern const Variant kMlstmStep = {"step", fits, workspace_size, prepare, launch};

}  // namespace xlstm::cuda
