// XlstmSLSTM: rows and heads in parallel, steps in sequence within one launch.
//
//   raw = gates_t + y R + b, slots i, f, z, o
//   m' = i where n == 0, else max(i, m + log sigmoid(f))
//   I = min(1, exp(i - m')), F = min(1, exp(m + log sigmoid(f) - m'))
//   c' = F c + I tanh(z), n' = F n + I, y' = sigmoid(o) c' / n'
//
// A block has one head of one or several rows; they share the reading of R, which comes from the
// caches. The state stays in shared memory, or in the workspace where H is large.
// Source: ops/reference/slstm.py.
#include "gates.h"
#include "slstm/operands.h"
#include "variant.h"

namespace xlstm::cuda {
namespace {

constexpr int kMostThreads = 512;
constexpr int kMostSlices = 8;    // parts of the sum over j
constexpr int kLeastSlice = 16;   // terms of a part
constexpr int kManyRows = 4;      // rows of a block where there are many
constexpr int64_t kManyUnits = 512;

// Operands of a call, and what its launch lays out.
template <class TX>
struct SlstmProblem : SlstmOperands<TX> {
  int width, slices;      // threads are slices x width; a slice sums part of the j
  char* scratch;          // of each row and head, for slstm_large
  size_t scratch_bytes;   // of one row and head
};

// How H is spread over the threads of a block: the same for every batch, and so are the sums.
struct SlstmLayout {
  int width, slices = 1;
  explicit SlstmLayout(int64_t H)
      : width(static_cast<int>(min_of(round_up(H, kWarp), kMostThreads))) {
    while (slices < kMostSlices && 2 * slices * width <= kMostThreads &&
           H / (2 * slices) >= kLeastSlice) {
      slices *= 2;
    }
  }
};

template <class T>
struct SlstmScratch {
  T *y, *c, *n, *m;  // [rows][H]
  T* partial;        // [slices][rows][4][H] y R

  __host__ __device__ SlstmScratch(Arena& arena, int64_t rows, int64_t slices, int64_t H) {
    y = arena.take<T>(rows * H);
    c = arena.take<T>(rows * H);
    n = arena.take<T>(rows * H);
    m = arena.take<T>(rows * H);
    partial = arena.take<T>(slices * rows * 4 * H);
  }
};

// This slice's part of y R for all rows and columns.
template <class TX, int kRows, class T = Arithmetic<TX>>
__device__ void slstm_mix(const SlstmProblem<TX>& x, int64_t head, const SlstmScratch<T>& s) {
  const int H = x.size, thread = static_cast<int>(threadIdx.x);
  const int slice = thread / x.width, length = (H + x.slices - 1) / x.slices;
  const int begin = slice * length, end = begin + length < H ? begin + length : H;
  for (int e = thread - slice * x.width; e < H; e += x.width) {
    T sum[kRows][4] = {};
    const TX* R = x.R + (head * H + begin) * 4 * H + e;
#pragma unroll(kRows == 1 ? 8 : 4)  // loads of R under way at once
    for (int j = begin; j < end; ++j, R += 4 * H) {
#pragma unroll
      for (int g = 0; g < 4; ++g) {
        const T weight = widen(R[g * H]);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          sum[r][g] = std::fma(s.y[r * H + j], weight, sum[r][g]);
        }
      }
    }
    T* partial = s.partial + static_cast<int64_t>(slice) * kRows * 4 * H + e;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int g = 0; g < 4; ++g) partial[(r * 4 + g) * H] = sum[r][g];
    }
  }
}

// The new state of one element from its four pre-activations; returns y.
template <class TX, class T = Arithmetic<TX>>
__device__ T slstm_advance(const SlstmProblem<TX>& x, const T* raw, T& c, T& n, T& m) {
  const T input = raw[0], f = x.f_clamp > 0 ? at_most(raw[1], x.f_clamp) : raw[1];
  const T kept = m + log_sigmoid(f);
  m = n == T(0) ? input : at_least(input, kept);
  const T write = at_most(std::exp(input - m), T(1)), forget = at_most(std::exp(kept - m), T(1));
  c = std::fma(forget, c, write * std::tanh(raw[2]));
  n = std::fma(forget, n, write);
  if (x.n_floor > 0) n = at_least(n, x.n_floor);
  T y = c / n / (T(1) + std::exp(-raw[3]));  // the product of both may overflow
  if (x.rounds) {
    y = round_to_bfloat16(y);
    c = round_to_bfloat16(c);
    n = round_to_bfloat16(n);
    m = round_to_bfloat16(m);
  }
  return y;
}

// Rows [first, first + rows) of one head.
struct SlstmUnit {
  int64_t head, first;
  int rows;
  int64_t most;  // steps of the row that has most
};

template <class TX>
__device__ int64_t slstm_steps(const SlstmProblem<TX>& x, int64_t row) {
  return valid_steps(x.lengths, x.lengths_size, row, x.time);
}

// Pre-activations of element e of a row at step t, without y R.
template <class TX, class T = Arithmetic<TX>>
__device__ void slstm_load_gates(const SlstmProblem<TX>& x, int64_t row, int64_t t, int64_t head,
                                 int e, T* raw) {
  const int64_t slot = x.heads * x.size;
  const T* gates = x.gates + (row * x.time + t) * 4 * slot + head * x.size + e;
#pragma unroll
  for (int g = 0; g < 4; ++g, gates += slot) raw[g] = *gates;
}

// One cell of one step: element e of the unit's row r. `raw` are its gates.
template <class TX, int kRows, class T = Arithmetic<TX>>
__device__ void slstm_cell(const SlstmProblem<TX>& x, int64_t head, int r, int e, TX* y_all,
                           T* raw, const SlstmScratch<T>& s) {
  const int H = x.size, cell = r * H + e;
  const T* bias = x.b + head * H + e;
#pragma unroll
  for (int g = 0; g < 4; ++g, bias += x.heads * H) {
    T sum = T(0);
    const T* partial = s.partial + (r * 4 + g) * H + e;
    for (int slice = 0; slice < x.slices; ++slice, partial += kRows * 4 * H) sum += *partial;
    if (x.rounds) {
      raw[g] = round_to_bfloat16(raw[g]);
      sum = round_to_bfloat16(sum);
    }
    raw[g] = raw[g] + sum + *bias;
  }
  const T y = slstm_advance(x, raw, s.c[cell], s.n[cell], s.m[cell]);
  s.y[cell] = y;
  *y_all = narrow<TX>(y);
}

template <class TX, int kRows, class T = Arithmetic<TX>>
__device__ void slstm_step(const SlstmProblem<TX>& x, const SlstmUnit& u, int64_t t,
                           const SlstmScratch<T>& s) {
  const int H = x.size, cells = u.rows * H, thread = static_cast<int>(threadIdx.x);
  T raw[4] = {};
  if (thread < cells) {  // asked for before y R, needed after it
    const int64_t row = u.first + thread / H;
    if (t < slstm_steps(x, row)) slstm_load_gates(x, row, t, u.head, thread % H, raw);
  }
  slstm_mix<TX, kRows>(x, u.head, s);
  __syncthreads();
  for (int cell = thread; cell < cells; cell += blockDim.x) {
    const int r = cell / H, e = cell % H;
    const int64_t row = u.first + r;
    TX* y_all = x.y_all + ((row * x.time + t) * x.heads + u.head) * H + e;
    if (t < slstm_steps(x, row)) {
      if (cell != thread) slstm_load_gates(x, row, t, u.head, e, raw);
      slstm_cell<TX, kRows>(x, u.head, r, e, y_all, raw, s);
    } else {
      *y_all = narrow<TX>(T(0));
    }
  }
  __syncthreads();
}

template <class TX, int kRows, class T = Arithmetic<TX>>
__device__ void slstm_run(const SlstmProblem<TX>& x, const SlstmUnit& u,
                          const SlstmScratch<T>& s) {
  const int H = x.size;
  const auto place = [&](int cell) {  // in the states [B,N,H]
    return ((u.first + cell / H) * x.heads + u.head) * H + cell % H;
  };
  for (int cell = threadIdx.x; cell < kRows * H; cell += blockDim.x) {
    const bool inside = cell < u.rows * H;
    s.y[cell] = inside ? x.y[place(cell)] : T(0);
    s.c[cell] = inside ? x.c[place(cell)] : T(0);
    s.n[cell] = inside ? x.n[place(cell)] : T(0);
    s.m[cell] = inside ? x.m[place(cell)] : T(0);
  }
  __syncthreads();
  for (int64_t t = 0; t < u.most; ++t) slstm_step<TX, kRows>(x, u, t, s);
  for (int cell = threadIdx.x; cell < u.rows * H; cell += blockDim.x) {
    x.y_out[place(cell)] = s.y[cell];
    x.c_out[place(cell)] = s.c[cell];
    x.n_out[place(cell)] = s.n[cell];
    x.m_out[place(cell)] = s.m[cell];
    TX* y_all = x.y_all + ((u.first + cell / H) * x.time * x.heads + u.head) * H + cell % H;
    for (int64_t t = u.most; t < x.time; ++t) y_all[t * x.heads * H] = narrow<TX>(T(0));
  }
}

// One unit, its scratch in `memory`.
template <class TX, int kRows>
__device__ void slstm_unit(const SlstmProblem<TX>& x, int64_t unit, void* memory) {
  Arena arena(memory);
  const SlstmScratch<Arithmetic<TX>> scratch(arena, kRows, x.slices, x.size);
  SlstmUnit u = {unit % x.heads, unit / x.heads * kRows, 0, 0};
  u.rows = static_cast<int>(min_of(kRows, x.batch - u.first));
  for (int r = 0; r < u.rows; ++r) u.most = max_of(u.most, slstm_steps(x, u.first + r));
  slstm_run<TX, kRows>(x, u, scratch);
}

template <class TX, int kRows>
__global__ void __launch_bounds__(kMostThreads, 1) slstm_sequence(SlstmProblem<TX> x) {
  const int64_t units = x.heads * parts_of(x.batch, kRows);
  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    slstm_unit<TX, kRows>(x, unit, shared_memory);
  }
}

// Where shared memory is too small for the state of one row.
template <class TX>
__global__ void __launch_bounds__(kMostThreads, 1) slstm_large(SlstmProblem<TX> x) {
  for (int64_t unit = blockIdx.x; unit < x.heads * x.batch; unit += gridDim.x) {
    slstm_unit<TX, 1>(x, unit, x.scratch + unit * x.scratch_bytes);
  }
}

template <class T>
size_t slstm_scratch_bytes(int64_t rows, int64_t H) {
  Arena counter(nullptr);
  SlstmScratch<T>(counter, rows, SlstmLayout(H).slices, H);
  return counter.used();
}

template <class TX>
Status slstm_launch(const Call& call, void* stream) {
  using T = Arithmetic<TX>;
  const SlstmOperands<TX> operands = slstm_operands<TX>(call);
  const SlstmLayout layout(operands.size);
  const size_t one = slstm_scratch_bytes<T>(1, operands.size);
  const SlstmProblem<TX> x = {operands, layout.width, layout.slices,
                              static_cast<char*>(call.workspace), one};
  const int64_t threads = x.width * x.slices, units = x.batch * x.heads;
  if (one > kSharedBytes) return launch_kernel(slstm_large<TX>, x, units, threads, 0, stream);
  const size_t many = slstm_scratch_bytes<T>(kManyRows, x.size);
  if (units < kManyUnits || x.batch < kManyRows || many > kSharedBytes) {
    return launch_kernel(slstm_sequence<TX, 1>, x, units, threads, one, stream);
  }
  return launch_kernel(slstm_sequence<TX, kManyRows>, x,
                       x.heads * parts_of(x.batch, kManyRows), threads, many, stream);
}

bool fits(const Problem&, const void*, const Device&) { return true; }

Status prepare(Device&) {
  return for_each_element([](auto element) {
    using TX = decltype(element);
    return load_kernels(slstm_sequence<TX, 1>, slstm_sequence<TX, kManyRows>, slstm_large<TX>);
  });
}

Status launch(const Call& call, const Device&, void* stream) {
  return with_element(call.problem.dtype, [&](auto element) {
    return slstm_launch<decltype(element)>(call, stream);
  });
}

// The scratch of every row and head, where it is too large for shared memory.
size_t workspace_size(const Problem& problem) {
  const int64_t* size = problem.sizes;
  const size_t one = problem.dtype == DType::kFloat64
                         ? slstm_scratch_bytes<double>(1, size[slstm::size_H])
                         : slstm_scratch_bytes<float>(1, size[slstm::size_H]);
  const auto units = static_cast<size_t>(size[slstm::size_B] * size[slstm::size_N]);
  return one > kSharedBytes ? units * one : 0;
}

}  // namespace

extern const Variant kSlstmPlain = {"plain", fits, workspace_size, prepare, launch};

}  // namespace xlstm::cuda
