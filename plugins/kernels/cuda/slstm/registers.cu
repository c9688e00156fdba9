// XlstmSLSTM in bfloat16 and float16 with H up to 128: R stays in registers for the whole sequence.
//
// A block has one head and two or four rows; products.h says how it computes y R. Gates come by
// asynchronous copies through shared memory, steps ahead. One barrier a step.
//
// Measured on an H200, bfloat16, before the last rearrangement: 0.50 us a step at H = 128 with two
// rows and 0.65 with four, 0.30 and 0.36 at 64. At 128 the 256 products of 16 x 16 x 8 are 0.2 of
// it, the arithmetic of a cell 0.1, the rest loads, stores and barrier. Eight rows, two products
// each, took as long as four rows twice. A single step is 10 us, for R has to come first.
#include "cell.h"
#include "operands.h"
#include "products.h"
#include "variant.h"

namespace xlstm::cuda {
namespace {

constexpr int kMostUnits = 128;  // H for which R fits in the registers of one block

// A block's gates of some steps, which arrive while others are at work.
template <class S>
struct Ring {
  static constexpr int steps = 4;
  // floats from row to row; what a warp reads at once lies in different banks
  static constexpr int row = 4 * S::units + (S::rows == 2 ? 16 : 8);
  static constexpr int step = S::rows * row;
  static constexpr int bytes = steps * step * static_cast<int>(sizeof(float));
};

// One head and `S::rows` rows from `first` on, for the whole sequence.
template <class TX, class S, bool kRounds>
struct SlstmBlock {
  const SlstmOperands<TX>& x;
  const int head, first;
  const Lane lane;

  using Gates = Ring<S>;
  static constexpr int memory_bytes =
      static_cast<int>(max_of(Gates::bytes, S::parts_staged * S::part_bytes));
  static constexpr size_t shared_bytes = 2 * S::buffer_bytes + memory_bytes + (S::units + 1) * 16;

  // Where in [B, steps, N, H] a cell is at step 0.
  __device__ int64_t place(int64_t steps) const {
    const int64_t row = first + row_of<S>(lane);
    return (row * steps * x.heads + head) * x.size + unit_of<S>(lane);
  }
  __device__ int steps_of(int64_t row) const {
    return static_cast<int>(valid_steps(x.lengths, x.lengths_size, row, x.time));
  }

  __device__ void run() const {
    Arena arena(shared_memory);
    char* buffer = arena.take<char>(2 * S::buffer_bytes);
    char* const memory = arena.take<char>(memory_bytes);
    // neither is kept: registers are R's
    auto* const factor = arena.take<float>(1);
    auto* const bias = arena.take<float4>(S::units) + unit_of<S>(lane);
    // From a gate, or a step's y, to the next: 32 bits, for registers are few.
    const int width = static_cast<int>(x.heads) * x.size;
    Weights<S> weights;
    const float back = load_weights<TX, S>(
        x, {head, 0}, lane, memory, [&](const TilePlace& at, const uint32_t(&tile)[4]) {
          auto& place = weights[at.group][at.half][2 * at.part + at.parity];
#pragma unroll
          for (int r = 0; r < 4; ++r) place[r] = tile[r];
        });
    if (threadIdx.x == 0) *factor = back;

    int most = 0;  // steps of the row that has most
    for (int r = first; r < min_of(first + S::rows, x.batch); ++r) {
      most = most > steps_of(r) ? most : steps_of(r);
    }
    // A thread's piece of each step's gates: four units of a gate of a row.
    const int thread = static_cast<int>(threadIdx.x), gate = thread % S::units / (S::units / 4);
    const int piece = thread % (S::units / 4) * 4, row = thread / S::units;
    const int count = first + row < x.batch ? static_cast<int>(min_of(4, x.size - piece)) : 0;
    const bool whole = x.size % 4 == 0 && reinterpret_cast<uintptr_t>(x.gates) % 16 == 0;
    float* const ring = reinterpret_cast<float*>(memory);
    float* const to = ring + row * Gates::row + gate * S::units + piece;
    const float* gates =
        x.gates + head * x.size + gate * width + piece + (first + row) * x.time * 4 * width;
    const auto fetch = [&](int t) {
      float* const slot = to + t % Gates::steps * Gates::step;
      if (whole) {
        if (t < most && count > 0) copy_async_16(slot, gates);
      } else if (t < most) {
#pragma unroll 1
        for (int e = 0; e < count; ++e) copy_async_4(slot + e, gates + e);
      }
      gates += 4 * width;
      copy_async_commit();
    };
#pragma unroll 1
    for (int t = 0; t < Gates::steps - 1; ++t) fetch(t);

    const int unit = unit_of<S>(lane);
    const bool has = first + row_of<S>(lane) < x.batch && unit < x.size;
    SlstmCell cell = {};
    int steps = 0;
    if (has) {
      const int64_t at = place(1);
      cell = {x.y[at], x.c[at], x.n[at], x.m[at]};
      steps = steps_of(first + row_of<S>(lane));
    }
    if (row_of<S>(lane) == 0) {
      const float* b = x.b + head * x.size + unit;
      *bias = unit < x.size ? float4{b[0], b[width], b[2 * width], b[3 * width]} : float4{};
    }
    put_terms<S>(buffer, lane, cell.y);
    put_terms<S>(buffer + S::buffer_bytes, lane, 0.f);  // what no unit has stays 0
    const SlstmLimits limits = {x.f_clamp > 0 ? x.f_clamp : INFINITY,
                                x.n_floor > 0 ? x.n_floor : -INFINITY};
    TX* y_all = x.y_all + place(x.time);
    copy_async_wait<Gates::steps - 2>();
    __syncthreads();

    for (int t = 0; t < most; ++t) {
      Sums<S> sum = {};
      add_products<S>(weights, buffer, lane, sum);
      // while products are under way
      fetch(t + Gates::steps - 1);
      const float* const given = ring + t % Gates::steps * Gates::step +
                                 row_of<S>(lane) * Gates::row + unit;
      const float4 b = *bias;
      const float scale = *factor;
      float raw[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (int g = 0; g < 4; ++g) raw[g] += as_state<kRounds>(given[g * S::units]);
      buffer += t % 2 == 0 ? S::buffer_bytes : -S::buffer_bytes;

#pragma unroll
      for (int g = 0; g < 4; ++g) {
        const float product = mixed<S>(sum, lane, g);
        raw[g] = kRounds ? raw[g] + round_to_bfloat16(product * scale)
                         : std::fma(product, scale, raw[g]);
      }
      const SlstmCell next = slstm_next<kRounds>(raw, cell, limits);
      const bool counts = t < steps;
      if (has) {
        put_terms<S>(buffer, lane, next.y);  // past a row's length only its own columns read it
        *y_all = narrow<TX>(counts ? next.y : 0.f);
      }
      if (counts) cell = next;
      y_all += width;
      copy_async_wait<Gates::steps - 2>();
      __syncthreads();
    }
    copy_async_wait<0>();

    if (!has) return;
    const int64_t at = place(1);
    x.y_out[at] = cell.y;
    x.c_out[at] = cell.c;
    x.n_out[at] = cell.n;
    x.m_out[at] = cell.m;
    for (int64_t t = most; t < x.time; ++t, y_all += width) *y_all = narrow<TX>(0.f);
  }
};

template <class TX, int kUnits, int kRows, bool kRounds>
__global__ void __launch_bounds__(kUnits * kRows, kMostUnits / kUnits)
    slstm_registers(SlstmOperands<TX> x) {
#if __CUDA_ARCH__ >= 800
  const int heads = static_cast<int>(x.heads);
  const int units = heads * static_cast<int>(parts_of(x.batch, kRows));
  for (int unit = static_cast<int>(blockIdx.x); unit < units; unit += gridDim.x) {
    using Block = SlstmBlock<TX, Spread<kUnits, kRows>, kRounds>;
    Block{x, unit % heads, unit / heads * kRows, {}}.run();
  }
#endif
}

// `body` with a kernel, and a block's threads and shared memory.
template <class TX, int kUnits, int kRows, bool kRounds, class Body>
Status with_units(Body body) {
  using S = Spread<kUnits, kRows>;
  return body(slstm_registers<TX, kUnits, kRows, kRounds>, S::threads,
              SlstmBlock<TX, S, kRounds>::shared_bytes);
}
template <class TX, int kRows, bool kRounds, class Body>
Status with_size(int64_t H, Body body) {
  if (H <= 32) return with_units<TX, 32, kRows, kRounds>(body);
  if (H <= 64) return with_units<TX, 64, kRows, kRounds>(body);
  return with_units<TX, 128, kRows, kRounds>(body);
}
template <class TX, bool kRounds, class Body>
Status with_rows(int64_t H, int rows, Body body) {
  if (rows == 2) return with_size<TX, 2, kRounds>(H, body);
  return with_size<TX, 4, kRounds>(H, body);
}
template <class TX, class Body>
Status with_kernel(int64_t H, int rows, bool rounds, Body body) {
  return rounds ? with_rows<TX, true>(H, rows, body) : with_rows<TX, false>(H, rows, body);
}

template <class TX>
Status launch_as(const Call& call, const Device& device, void* stream) {
  const SlstmOperands<TX> x = slstm_operands<TX>(call);
  // Two rows where all blocks run at once: a block of four takes a third longer.
  const int64_t at_once = device.processors * (kMostUnits / round_up(x.size, 32));
  const int rows = x.heads * parts_of(x.batch, 2) <= at_once ? 2 : 4;
  return with_kernel<TX>(x.size, rows, x.rounds, [&](auto kernel, int threads, size_t bytes) {
    return launch_kernel(kernel, x, x.heads * parts_of(x.batch, rows), threads, bytes, stream);
  });
}

bool fits(const Problem& problem, const void*, const Device& device) {
  const int64_t* size = problem.sizes;
  return is_half(problem.dtype) && device.sm >= 80 && size[slstm::size_H] <= kMostUnits &&
         size[slstm::size_T] <= INT32_MAX &&
         size[slstm::size_B] * size[slstm::size_N] <= INT32_MAX &&
         4 * size[slstm::size_N] * size[slstm::size_H] <= INT32_MAX;
}

size_t workspace_size(const Problem&) { return 0; }

template <class TX>
Status prepare_as() {
  for (const int64_t H : {32, 64, 128}) {
    for (const int rows : {2, 4}) {
      for (const bool rounds : {false, true}) {
        const Status status = with_kernel<TX>(H, rows, rounds, [](auto kernel, int, size_t bytes) {
          return allow_shared(kernel, bytes);
        });
        if (status != Status::kOk) return status;
      }
    }
  }
  return Status::kOk;
}

Status prepare(Device& device) {
  if (device.sm < 80) return Status::kOk;
  return for_each_half([](auto half) { return prepare_as<decltype(half)>(); });
}

Status launch(const Call& call, const Device& device, void* stream) {
  return with_half(call.problem.dtype, [&](auto half) {
    return launch_as<decltype(half)>(call, device, stream);
  });
}

}  // namespace

extern const Variant kSlstmRegisters = {"registers", fits, workspace_size, prepare, launch};

}  // namespace xlstm::cuda
