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
#include "element.h"
#include "math.h"
#include "table.h"

namespace xlstm::cuda {
namespace {

constexpr int kMostThreads = 512;
constexpr int kMostSlices = 8;    // parts of the sum over j
constexpr int kLeastSlice = 16;   // terms of a part
constexpr int kManyRows = 4;      // rows of a block where there are many
constexpr int64_t kManyUnits = 512;

template <class TX>
struct SlstmOperands {
  using T = Arithmetic<TX>;
  int64_t batch, time, heads, size;
  const T* gates;
  const TX* R;
  const T *b, *state[4];  // y, c, n, m
  const int32_t* lengths;
  int64_t lengths_size;
  TX* y_all;
  T* state_out[4];
  T n_floor, f_clamp;
  bool rounds;
  int64_t width, slices;  // threads are slices x width; a slice sums part of the j
  char* spill;            // scratch of each unit where shared memory is too small, else null
  size_t spill_bytes;     // of one unit
};

// How H is spread over the threads of a block: the same for every batch, and so are the sums.
struct SlstmLayout {
  int64_t width, slices;
  explicit SlstmLayout(int64_t H) : width(min_of(round_up(H, kWarp), kMostThreads)), slices(1) {
    while (slices < kMostSlices && 2 * slices * width <= kMostThreads &&
           H / (2 * slices) >= kLeastSlice) {
      slices *= 2;
    }
  }
};

template <class T>
struct SlstmScratch {
  T* state[4];  // [rows][H] y, c, n, m
  T* partial;   // [slices][rows][4][H] y R

  __host__ __device__ SlstmScratch(Arena& arena, int64_t rows, int64_t slices, int64_t H) {
    for (T*& each : state) each = arena.take<T>(rows * H);
    partial = arena.take<T>(slices * rows * 4 * H);
  }
};

// This slice's part of y R for all rows and columns.
template <class TX, int kRows, class T = Arithmetic<TX>>
__device__ void slstm_mix(const SlstmOperands<TX>& x, int64_t head, const SlstmScratch<T>& s) {
  const int64_t H = x.size, slice = threadIdx.x / x.width;
  const int64_t length = parts_of(H, x.slices);
  const int64_t begin = min_of(slice * length, H), end = min_of(begin + length, H);
  for (int64_t e = threadIdx.x % x.width; e < H; e += x.width) {
    T sum[kRows][4] = {};
    const TX* R = x.R + (head * H + begin) * 4 * H + e;
#pragma unroll 4
    for (int64_t j = begin; j < end; ++j, R += 4 * H) {
#pragma unroll
      for (int g = 0; g < 4; ++g) {
        const T weight = widen(R[g * H]);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          sum[r][g] = std::fma(s.state[0][r * H + j], weight, sum[r][g]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int g = 0; g < 4; ++g) s.partial[((slice * kRows + r) * 4 + g) * H + e] = sum[r][g];
    }
  }
}

// The new state of one element from its four pre-activations; returns y.
template <class TX, class T = Arithmetic<TX>>
__device__ T slstm_cell(const SlstmOperands<TX>& x, const T* raw, T& c, T& n, T& m) {
  const T input = raw[0], f = x.f_clamp > 0 ? at_most(raw[1], x.f_clamp) : raw[1];
  const T kept = m + log_sigmoid(f);
  m = n == T(0) ? input : at_least(input, kept);
  const T write = at_most(std::exp(input - m), T(1)), forget = at_most(std::exp(kept - m), T(1));
  c = std::fma(forget, c, write * std::tanh(raw[2]));
  n = std::fma(forget, n, write);
  if (x.n_floor > 0) n = at_least(n, x.n_floor);
  T y = c / (n * (T(1) + std::exp(-raw[3])));
  if (x.rounds) {
    y = round_to_bfloat16(y);
    c = round_to_bfloat16(c);
    n = round_to_bfloat16(n);
    m = round_to_bfloat16(m);
  }
  return y;
}

// Rows [first, first + rows) of one head, and how far each goes.
template <int kRows>
struct SlstmRows {
  int64_t head, first, rows, most;
  int64_t steps[kRows];
};

template <int kRows, class TX>
__device__ SlstmRows<kRows> slstm_rows(const SlstmOperands<TX>& x, int64_t unit) {
  SlstmRows<kRows> u;
  u.head = unit % x.heads;
  u.first = unit / x.heads * kRows;
  u.rows = min_of(kRows, x.batch - u.first);
  u.most = 0;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    u.steps[r] =
        r < u.rows ? valid_steps(x.lengths, x.lengths_size, u.first + r, x.time) : int64_t{0};
    u.most = max_of(u.most, u.steps[r]);
  }
  return u;
}

// Pre-activations of element e of a row at step t, without y R.
template <class TX, class T = Arithmetic<TX>>
__device__ void slstm_load_gates(const SlstmOperands<TX>& x, int64_t row, int64_t t, int64_t head,
                                 int64_t e, T* raw) {
  const int64_t slot = x.heads * x.size, place = head * x.size + e;
#pragma unroll
  for (int g = 0; g < 4; ++g) {
    raw[g] = x.gates[((row * x.time + t) * 4 + g) * slot + place];
  }
}

// The cells of one step; `ahead` are the gates of this thread's first cell.
template <class TX, int kRows, class T = Arithmetic<TX>>
__device__ void slstm_cells(const SlstmOperands<TX>& x, const SlstmRows<kRows>& u, int64_t t,
                            const T* ahead, const SlstmScratch<T>& s) {
  const int64_t H = x.size, slot = x.heads * H;
  for (int64_t cell = threadIdx.x; cell < u.rows * H; cell += blockDim.x) {
    const int64_t r = cell / H, e = cell % H, row = u.first + r;
    TX* y_all = x.y_all + (row * x.time + t) * slot + u.head * H + e;
    if (t >= u.steps[r]) {
      *y_all = narrow<TX>(T(0));
      continue;
    }
    T raw[4];
    if (cell == threadIdx.x) {
      for (int g = 0; g < 4; ++g) raw[g] = ahead[g];
    } else {
      slstm_load_gates(x, row, t, u.head, e, raw);
    }
    for (int g = 0; g < 4; ++g) {
      T sum = T(0);
      for (int64_t slice = 0; slice < x.slices; ++slice) {
        sum += s.partial[((slice * kRows + r) * 4 + g) * H + e];
      }
      raw[g] = raw[g] + sum + x.b[g * slot + u.head * H + e];
    }
    const T y = slstm_cell(x, raw, s.state[1][cell], s.state[2][cell], s.state[3][cell]);
    s.state[0][cell] = y;
    *y_all = narrow<TX>(y);
  }
}

template <class TX, int kRows, class T = Arithmetic<TX>>
__device__ void slstm_unit(const SlstmOperands<TX>& x, int64_t unit, const SlstmScratch<T>& s) {
  const SlstmRows<kRows> u = slstm_rows<kRows>(x, unit);
  const int64_t H = x.size, first_row = threadIdx.x / H;
  const int64_t slot = x.heads * H, place = u.first * slot + u.head * H;
  for (int64_t cell = threadIdx.x; cell < kRows * H; cell += blockDim.x) {
    const int64_t from = place + cell / H * slot + cell % H;
    for (int i = 0; i < 4; ++i) s.state[i][cell] = cell < u.rows * H ? x.state[i][from] : T(0);
  }
  __syncthreads();
  for (int64_t t = 0; t < u.most; ++t) {
    T ahead[4] = {};
    if (threadIdx.x < u.rows * H && t < u.steps[first_row]) {
      slstm_load_gates(x, u.first + first_row, t, u.head, threadIdx.x % H, ahead);
    }
    slstm_mix<TX, kRows>(x, u.head, s);
    __syncthreads();
    slstm_cells<TX, kRows>(x, u, t, ahead, s);
    __syncthreads();
  }
  for (int64_t cell = threadIdx.x; cell < u.rows * H; cell += blockDim.x) {
    const int64_t to = place + cell / H * slot + cell % H;
    for (int i = 0; i < 4; ++i) x.state_out[i][to] = s.state[i][cell];
    for (int64_t t = u.most; t < x.time; ++t) {
      x.y_all[((u.first + cell / H) * x.time + t) * slot + u.head * H + cell % H] =
          narrow<TX>(T(0));
    }
  }
}

template <class TX, int kRows>
__global__ void __launch_bounds__(kMostThreads) slstm_sequence(SlstmOperands<TX> x) {
  const int64_t units = x.heads * parts_of(x.batch, kRows);
  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    Arena arena(x.spill == nullptr ? static_cast<void*>(shared_memory)
                                   : static_cast<void*>(x.spill + unit * x.spill_bytes));
    const SlstmScratch<Arithmetic<TX>> scratch(arena, kRows, x.slices, x.size);
    slstm_unit<TX, kRows>(x, unit, scratch);
  }
}

template <class T>
size_t slstm_scratch_bytes(int64_t rows, int64_t H) {
  Arena counter(nullptr);
  SlstmScratch<T>(counter, rows, SlstmLayout(H).slices, H);
  return counter.used();
}

template <class TX, int kRows, class T = Arithmetic<TX>>
Status slstm_launch_rows(const SlstmOperands<TX>& x, void* stream) {
  const size_t shared = x.spill == nullptr ? slstm_scratch_bytes<T>(kRows, x.size) : 0;
  return launch_kernel(slstm_sequence<TX, kRows>, x, x.heads * parts_of(x.batch, kRows),
                       x.width * x.slices, shared, stream);
}

template <class TX>
Status slstm_launch(const Call& call, void* stream) {
  using T = Arithmetic<TX>;
  using namespace slstm;
  const int64_t* size = call.problem.sizes;
  const auto& attributes = *static_cast<const Attributes*>(call.attributes);
  const auto in = [&](int i) { return static_cast<const T*>(call.inputs[i]); };
  const auto out = [&](int o) { return static_cast<T*>(call.outputs[o]); };
  const SlstmLayout layout(size[size_H]);
  const size_t one = slstm_scratch_bytes<T>(1, size[size_H]);
  const bool spills = one > kSharedBytes;
  const SlstmOperands<TX> x = {
      size[size_B], size[size_T], size[size_N], size[size_H],
      in(in_gates), static_cast<const TX*>(call.inputs[in_R]), in(in_b),
      {in(in_y), in(in_c), in(in_n), in(in_m)},
      static_cast<const int32_t*>(call.inputs[in_lengths]), call.lengths_size,
      static_cast<TX*>(call.outputs[out_y_all]),
      {out(out_y), out(out_c), out(out_n), out(out_m)},
      static_cast<T>(attributes.n_floor), static_cast<T>(attributes.f_clamp),
      attributes.state_rounding == 1, layout.width, layout.slices,
      spills ? static_cast<char*>(call.workspace) : nullptr, one};
  const bool many = x.batch * x.heads >= kManyUnits && x.batch >= kManyRows &&
                    slstm_scratch_bytes<T>(kManyRows, x.size) <= kSharedBytes;
  return many ? slstm_launch_rows<TX, kManyRows>(x, stream)
              : slstm_launch_rows<TX, 1>(x, stream);
}

Status launch(const Call& call, void* stream) {
  return with_element(call.problem.dtype, [&](auto element) {
    return slstm_launch<decltype(element)>(call, stream);
  });
}

// The scratch of every row and head, where it is too large for shared memory.
size_t workspace(const Problem& problem) {
  const int64_t* size = problem.sizes;
  const size_t one = problem.dtype == DType::kFloat64
                         ? slstm_scratch_bytes<double>(1, size[slstm::size_H])
                         : slstm_scratch_bytes<float>(1, size[slstm::size_H]);
  const auto units = static_cast<size_t>(size[slstm::size_B] * size[slstm::size_N]);
  return one > kSharedBytes ? units * one : 0;
}

}  // namespace

const Kernel kSlstmKernel = {launch, workspace};

}  // namespace xlstm::cuda
