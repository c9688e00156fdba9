// XlstmMLSTM in two launches, however many steps: the gates and n of each head, then C and h in
// tiles of value columns.
//
//   m' = max(log f + m, i), F = exp(log f + m - m'), I = exp(i - m')
//   C' = F C + I k v^T,  n' = F n + I k,  h = q^T C' / (max(|q^T n'|, exp(-m')) + eps)
//
// n and m are read and written by one block alone, and C by one thread per element: state outputs
// may be their inputs. Steps are taken one by one, so cuts in time change no bit; chunk_size has no
// effect. Source: ops/reference/mlstm.py.
#include "element.h"
#include "gates.h"
#include "variant.h"

namespace xlstm::cuda {
namespace {

constexpr int kGateThreads = 256;
constexpr int kGateSteps = 16;        // steps whose q n are summed together
constexpr int kMostWarps = 16;        // of a block of columns
constexpr int kMostSteps = 16;        // whose q, k, v lie in shared memory at once
constexpr size_t kColumnBytes = 32 * 1024;  // of them, so that several blocks fit one processor
constexpr int kFewRows = 8;           // of C in a thread's registers
template <class T>
constexpr int kManyRows = sizeof(T) == 4 ? 32 : 16;

// Operands of a call, and what its launches share.
template <class TX>
struct MlstmProblem : MlstmOperands<TX> {
  using T = Arithmetic<TX>;
  T *forget, *write, *denominator;  // [B,N,T] F, I and h's, from the first launch
  int block_steps;                  // steps of the second launch at once
};

// --- gates, n and m: a block per head ----------------------------------------------------------

template <class T>
struct GateScratch {
  T* input;       // [kGateSteps] i after the soft cap
  T* log_forget;  // [kGateSteps]
  T* stabiliser;  // [kGateSteps + 1] m before the first step, then m_t
  T* forget;      // [kGateSteps]
  T* write;       // [kGateSteps]
  T* partial;     // [kGateSteps][warps] sums of q n

  __host__ __device__ GateScratch(Arena& arena, int64_t warps) {
    input = arena.take<T>(kGateSteps);
    log_forget = arena.take<T>(kGateSteps);
    stabiliser = arena.take<T>(kGateSteps + 1);
    forget = arena.take<T>(kGateSteps);
    write = arena.take<T>(kGateSteps);
    partial = arena.take<T>(kGateSteps * warps);
  }
};

// F and I of the steps [start, start + count), in shared memory and for the second launch.
template <class TX, class T = Arithmetic<TX>>
__device__ void mlstm_step_gates(const MlstmProblem<TX>& x, int64_t head, int64_t start,
                                 int count, GateScratch<T>& s) {
  const int t = static_cast<int>(threadIdx.x);
  const int64_t row = head / x.heads;
  if (t < count) {
    const int64_t place = (row * x.time + start + t) * x.heads + head % x.heads;
    s.input[t] = soft_cap(x.i[place], x.soft_cap);
    s.log_forget[t] = log_sigmoid(soft_cap(x.f[place], x.soft_cap));
  }
  __syncthreads();
  if (t == 0) {
    T m = s.stabiliser[0];
    for (int step = 0; step < count; ++step) {
      m = at_least(s.log_forget[step] + m, s.input[step]);
      s.stabiliser[step + 1] = m;
    }
  }
  __syncthreads();
  if (t < count) {
    const T now = s.stabiliser[t + 1];
    s.forget[t] = std::exp(s.log_forget[t] + s.stabiliser[t] - now);
    s.write[t] = std::exp(s.input[t] - now);
    x.forget[head * x.time + start + t] = s.forget[t];
    x.write[head * x.time + start + t] = s.write[t];
  }
  __syncthreads();
}

// n over the steps; sums[t] += q_t n_t over this thread's rows.
template <class TX, class T = Arithmetic<TX>>
__device__ void mlstm_carry_n(const MlstmProblem<TX>& x, int64_t head, int64_t start, int count,
                              const GateScratch<T>& s, T* sums) {
  const int64_t step = x.heads * x.qk_dim;
  const int64_t first =
      ((head / x.heads * x.time + start) * x.heads + head % x.heads) * x.qk_dim;
  const T* n_before = (start == 0 ? x.n : x.n_out) + head * x.qk_dim;
  for (int64_t j = threadIdx.x; j < x.qk_dim; j += blockDim.x) {
    TX q[kGateSteps], k[kGateSteps];
#pragma unroll
    for (int t = 0; t < kGateSteps; ++t) {  // all loads before their first use
      const int64_t place = first + (t < count ? t : count - 1) * step + j;
      q[t] = x.q[place];
      k[t] = x.k[place];
    }
    T n = n_before[j];
#pragma unroll
    for (int t = 0; t < kGateSteps; ++t) {
      if (t < count) {
        n = std::fma(s.forget[t], n, widen(k[t]) * x.k_scale * s.write[t]);
        sums[t] = std::fma(widen(q[t]) * x.q_scale, n, sums[t]);
      }
    }
    x.n_out[head * x.qk_dim + j] = n;
  }
}

template <class T>
__device__ T sum_lanes(T value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

template <class TX, class T = Arithmetic<TX>>
__device__ void mlstm_head_gates(const MlstmProblem<TX>& x, int64_t head, GateScratch<T>& s) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int64_t steps = valid_steps(x.lengths, x.lengths_size, head / x.heads, x.time);
  if (steps == 0) {
    for (int64_t j = threadIdx.x; j < x.qk_dim; j += blockDim.x) {
      x.n_out[head * x.qk_dim + j] = x.n[head * x.qk_dim + j];
    }
  }
  if (threadIdx.x == 0) s.stabiliser[0] = x.m[head];
  for (int64_t start = 0; start < steps; start += kGateSteps) {
    const int count = static_cast<int>(min_of(kGateSteps, steps - start));
    mlstm_step_gates(x, head, start, count, s);
    T sums[kGateSteps] = {};
    mlstm_carry_n(x, head, start, count, s, sums);
#pragma unroll
    for (int t = 0; t < kGateSteps; ++t) {
      const T sum = sum_lanes(sums[t]);
      if (lane == 0) s.partial[t * warps + warp] = sum;
    }
    __syncthreads();
    const int t = static_cast<int>(threadIdx.x);
    if (t < count) {
      T q_n = T(0);
      for (int w = 0; w < warps; ++w) q_n += s.partial[t * warps + w];
      const T size = at_least(std::fabs(q_n), std::exp(-s.stabiliser[t + 1]));
      x.denominator[head * x.time + start + t] = size + x.eps;
    }
    if (t == 0) s.stabiliser[0] = s.stabiliser[count];
  }
  if (threadIdx.x == 0) x.m_out[head] = s.stabiliser[0];
}

template <class TX>
__global__ void __launch_bounds__(kGateThreads, 1) mlstm_gates(MlstmProblem<TX> x) {
  Arena arena(shared_memory);
  GateScratch<Arithmetic<TX>> scratch(arena, blockDim.x / kWarp);
  for (int64_t head = blockIdx.x; head < x.batch * x.heads; head += gridDim.x) {
    mlstm_head_gates(x, head, scratch);
  }
}

// --- C and h: a block per head and tile of 32 value columns ------------------------------------
//
// Lanes are columns. Each warp keeps kRows rows of C in registers; the rows of all warps are a
// panel. One panel is loaded and stored once per call; where K is more, panels take turns.

template <class T>
struct ColumnScratch {
  T* q;        // [steps][panel] scaled
  T* k;        // [steps][panel] scaled, times I
  T* v;        // [steps][kWarp]
  T* forget;   // [steps]
  T* partial;  // [steps][warps][kWarp] numerators of each warp's rows

  __host__ __device__ ColumnScratch(Arena& arena, int64_t steps, int64_t panel, int64_t warps) {
    q = arena.take<T>(steps * panel);
    k = arena.take<T>(steps * panel);
    v = arena.take<T>(steps * kWarp);
    forget = arena.take<T>(steps);
    partial = arena.take<T>(steps * warps * kWarp);
  }
};

// One tile of the block at work.
template <class T>
struct ColumnTile {
  int64_t row, head;  // head counts over all rows
  int64_t column;     // of this lane
  bool owns;          // the column is there
  int lane, warp, warps, panel;
};

// What every step needs of rows [first, first + panel), and once per block of steps the rest.
template <class TX, int kRows, class T = Arithmetic<TX>>
__device__ void mlstm_load_steps(const MlstmProblem<TX>& x, const ColumnTile<T>& tile,
                                 int64_t start, int count, int64_t first, ColumnScratch<T>& s) {
  constexpr int kStepsAtOnce = kWarp / kRows;  // a panel of rows per this part of the block
  const int thread = static_cast<int>(threadIdx.x);
  const int j = thread % tile.panel, begin = thread / tile.panel;
  const int64_t step = (tile.row * x.time + start) * x.heads + tile.head % x.heads;
  const int64_t place = (step + begin * x.heads) * x.qk_dim + first + j;
  const int64_t stride = kStepsAtOnce * x.heads * x.qk_dim;
  const TX *q = x.q + place, *k = x.k + place;
  const T* write = x.write + tile.head * x.time + start;
  const bool inside = first + j < x.qk_dim;
#pragma unroll 4
  for (int t = begin; t < count; t += kStepsAtOnce, q += stride, k += stride) {
    s.q[t * tile.panel + j] = inside ? widen(*q) * x.q_scale : T(0);
    s.k[t * tile.panel + j] = inside ? widen(*k) * x.k_scale * write[t] : T(0);
  }
  if (first > 0) return;
  const TX* v = x.v + (step + tile.warp * x.heads) * x.v_dim + tile.column;
  for (int t = tile.warp; t < count; t += tile.warps, v += tile.warps * x.heads * x.v_dim) {
    s.v[t * kWarp + tile.lane] = tile.owns ? widen(*v) : T(0);
  }
  if (thread < count) s.forget[thread] = x.forget[tile.head * x.time + start + thread];
}

// This thread's elements of C; rows past K are 0 and are not written.
template <int kRows, class T>
__device__ void mlstm_load_C(const T* from, int64_t stride, int rows, T* C) {
#pragma unroll
  for (int r = 0; r < kRows; ++r, from += stride) C[r] = r < rows ? *from : T(0);
}
template <int kRows, class T>
__device__ void mlstm_store_C(T* to, int64_t stride, int rows, const T* C) {
#pragma unroll
  for (int r = 0; r < kRows; ++r, to += stride) {
    if (r < rows) *to = C[r];
  }
}

// Elements that one load from shared memory brings.
template <class T>
struct alignas(16) Quad {
  static constexpr int kCount = 16 / sizeof(T);
  T at[kCount];
};

// C over the steps, and each step's share of the numerator.
template <int kRows, class T>
__device__ void mlstm_steps(const ColumnTile<T>& tile, int count, bool adds, ColumnScratch<T>& s,
                            T* C) {
  constexpr int kCount = Quad<T>::kCount;
  for (int t = 0; t < count; ++t) {
    const int place = t * tile.panel + tile.warp * kRows;
    const auto* q = reinterpret_cast<const Quad<T>*>(s.q + place);
    const auto* k = reinterpret_cast<const Quad<T>*>(s.k + place);
    const T value = s.v[t * kWarp + tile.lane], forget = s.forget[t];
    T sums[kCount] = {};
#pragma unroll
    for (int quad = 0; quad < kRows / kCount; ++quad) {
      const Quad<T> query = q[quad], key = k[quad];
#pragma unroll
      for (int e = 0; e < kCount; ++e) {
        T& element = C[quad * kCount + e];
        element = std::fma(forget, element, key.at[e] * value);
        sums[e] = std::fma(query.at[e], element, sums[e]);
      }
    }
    T sum = sums[0];
#pragma unroll
    for (int e = 1; e < kCount; ++e) sum += sums[e];
    T& share = s.partial[(t * tile.warps + tile.warp) * kWarp + tile.lane];
    share = adds ? share + sum : sum;
  }
}

template <class TX, class T = Arithmetic<TX>>
__device__ void mlstm_write_h(const MlstmProblem<TX>& x, const ColumnTile<T>& tile,
                              int64_t start, int count, const ColumnScratch<T>& s) {
  for (int t = tile.warp; t < count && tile.owns; t += tile.warps) {
    T sum = T(0);
    for (int w = 0; w < tile.warps; ++w) {
      sum += s.partial[(t * tile.warps + w) * kWarp + tile.lane];
    }
    const int64_t step = (tile.row * x.time + start + t) * x.heads + tile.head % x.heads;
    x.h[step * x.v_dim + tile.column] =
        narrow<TX>(sum / x.denominator[tile.head * x.time + start + t]);
  }
}

template <class TX, int kRows, class T = Arithmetic<TX>>
__device__ void mlstm_tile(const MlstmProblem<TX>& x, const ColumnTile<T>& tile,
                           ColumnScratch<T>& s) {
  const int64_t steps = valid_steps(x.lengths, x.lengths_size, tile.row, x.time);
  const bool in_turns = x.qk_dim > tile.panel;
  T C[kRows];
  // once even where no step counts: C is carried on
  for (int64_t start = 0; start == 0 || start < steps; start += x.block_steps) {
    const int count = static_cast<int>(min_of(x.block_steps, steps - start));
    for (int64_t first = 0; first < x.qk_dim; first += tile.panel) {
      const int64_t row = first + tile.warp * kRows;
      const int rows = tile.owns ? static_cast<int>(min_of(x.qk_dim - row, kRows)) : 0;
      const int64_t place = (tile.head * x.qk_dim + row) * x.v_dim + tile.column;
      mlstm_load_steps<TX, kRows>(x, tile, start, count, first, s);
      if (start == 0 || in_turns) {
        mlstm_load_C<kRows>((start == 0 ? x.C : x.C_out) + place, x.v_dim, rows, C);
      }
      __syncthreads();
      mlstm_steps<kRows>(tile, count, first > 0, s, C);
      if (start + count >= steps || in_turns) {
        mlstm_store_C<kRows>(x.C_out + place, x.v_dim, rows, C);
      }
      __syncthreads();
    }
    mlstm_write_h(x, tile, start, count, s);
  }
  for (int64_t t = steps + tile.warp; t < x.time && tile.owns; t += tile.warps) {
    const int64_t step = (tile.row * x.time + t) * x.heads + tile.head % x.heads;
    x.h[step * x.v_dim + tile.column] = narrow<TX>(T(0));
  }
}

template <class TX, int kRows>
__global__ void __launch_bounds__(kMostWarps* kWarp, 1) mlstm_columns(MlstmProblem<TX> x) {
  using T = Arithmetic<TX>;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  Arena arena(shared_memory);
  ColumnScratch<T> scratch(arena, x.block_steps, warps * kRows, warps);
  const int64_t tiles = parts_of(x.v_dim, kWarp), units = x.batch * x.heads * tiles;
  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const int64_t head = unit / tiles, column = unit % tiles * kWarp + lane;
    const ColumnTile<T> tile = {head / x.heads, head, column, column < x.v_dim,
                                lane, warp, warps, warps * kRows};
    mlstm_tile<TX, kRows>(x, tile, scratch);
  }
}

// --- launching ---------------------------------------------------------------------------------

template <class TX, int kRows, class T = Arithmetic<TX>>
Status mlstm_launch_columns(MlstmProblem<TX> x, void* stream) {
  const int64_t warps = min_of(parts_of(x.qk_dim, kRows), kMostWarps);
  const auto bytes = [&](int64_t steps) {
    Arena counter(nullptr);
    ColumnScratch<T>(counter, steps, warps * kRows, warps);
    return counter.used();
  };
  int64_t steps = min_of(kMostSteps, x.time);
  while (steps > 1 && bytes(steps) > kColumnBytes) --steps;
  x.block_steps = static_cast<int>(steps);
  const int64_t units = x.batch * x.heads * parts_of(x.v_dim, kWarp);
  return launch_kernel(mlstm_columns<TX, kRows>, x, units, warps * kWarp, bytes(steps), stream);
}

template <class TX>
Status mlstm_launch(const Call& call, void* stream) {
  using T = Arithmetic<TX>;
  MlstmProblem<TX> x{mlstm_operands<TX>(call), nullptr, nullptr, nullptr, 0};
  const int64_t heads = x.batch * x.heads;
  Arena workspace(call.workspace);
  x.forget = workspace.take<T>(heads * x.time);
  x.write = workspace.take<T>(heads * x.time);
  x.denominator = workspace.take<T>(heads * x.time);
  const int64_t threads = min_of(round_up(x.qk_dim, kWarp), kGateThreads);
  Arena counter(nullptr);
  GateScratch<T>(counter, threads / kWarp);
  const Status status =
      launch_kernel(mlstm_gates<TX>, x, heads, threads, counter.used(), stream);
  if (status != Status::kOk) return status;
  return x.qk_dim <= 64 ? mlstm_launch_columns<TX, kFewRows>(x, stream)
                        : mlstm_launch_columns<TX, kManyRows<T>>(x, stream);
}

bool fits(const Problem&, const void*, const Device&) { return true; }

template <class TX>
Status mlstm_prepare() {
  return load_kernels(mlstm_gates<TX>, mlstm_columns<TX, kFewRows>,
                      mlstm_columns<TX, kManyRows<Arithmetic<TX>>>);
}

Status prepare(Device&) {
  return for_each_element([](auto element) { return mlstm_prepare<decltype(element)>(); });
}

Status launch(const Call& call, const Device&, void* stream) {
  return with_element(call.problem.dtype, [&](auto element) {
    return mlstm_launch<decltype(element)>(call, stream);
  });
}

size_t workspace_size(const Problem& problem) {
  const int64_t* size = problem.sizes;
  const int64_t elements = size[mlstm::size_B] * size[mlstm::size_N] * size[mlstm::size_T];
  Arena counter(nullptr);
  for (int array = 0; array < 3; ++array) {
    if (problem.dtype == DType::kFloat64) {
      counter.take<double>(elements);
    } else {
      counter.take<float>(elements);
    }
  }
  return counter.used();
}

}  // namespace

extern const Variant kMlstmPlain = {"plain", fits, workspace_size, prepare, launch};

}  // namespace xlstm::cuda
