// XlstmMLSTM over time in chunks, on tensor cores; chunk.h has the equations.
#include "chunk.h"

#include "chunk_gates.h"
#include "chunk_outputs.h"
#include "chunk_states.h"
#include "variant.h"

namespace xlstm::cuda {

namespace {

constexpr int64_t kLeastSteps = 17;  // below, one step after the other is less work
constexpr int64_t kLeastChunks = 16;  // of a slice, however large the heads are
#ifdef XLSTM_SMALL_SLICES  // tests: small problems are cut as large ones are
constexpr int64_t kFullStates = 8, kFullOutputs = 6, kSliceBytes = 1 << 14;
#else
constexpr int64_t kFullStates = 512, kFullOutputs = 256;  // blocks that fill a device
constexpr int64_t kSliceBytes = 192 << 20;  // of C before its chunks, where that is more
#endif

struct Sizes {
  int64_t heads, chunks, parts, units, qk_dim;

  explicit Sizes(const Problem& problem) {
    const int64_t* size = problem.sizes;
    heads = size[mlstm::size_B] * size[mlstm::size_N];
    chunks = parts_of(size[mlstm::size_T], kChunk);
    qk_dim = size[mlstm::size_K];
    parts = qk_dim / 16 * (size[mlstm::size_V] / 16);
    units = qk_dim / 16 * parts_of(size[mlstm::size_V], kTile);
  }
  // Heads and chunks together whose C a slice leaves in the workspace: no more are ever there.
  int64_t snapshots() const {
    const int64_t bytes = max_of(parts, 1) * kWarp * static_cast<int64_t>(sizeof(Fragment));
    return min_of(heads * chunks, max_of(kSliceBytes / bytes, kLeastChunks));
  }
};

template <class TX>
void take_workspace(const Sizes& size, Arena& arena, ChunkProblem<TX>& x) {
  x.chunks = size.chunks;
  x.input = arena.take<float>(size.heads * size.chunks * kChunk);
  x.log_forget = arena.take<float>(size.heads * size.chunks * kChunk);
  x.to_end = arena.take<float>(size.heads * size.chunks * kToEnd);
  x.stabiliser = arena.take<float>(size.heads * (size.chunks + 1));
  x.C_before = arena.take<Fragment>(size.snapshots() * size.parts * kWarp);
  x.n_before = arena.take<float>(size.snapshots() * size.qk_dim);
  x.units = arena.take<float>(kHasUnits<TX> ? size.snapshots() * size.units : 0);
}

// Whether some device takes it.
bool takes(const Problem& problem) {
  const int64_t* size = problem.sizes;
  return is_half(problem.dtype) && size[mlstm::size_K] % 16 == 0 &&
         size[mlstm::size_V] % 16 == 0 && size[mlstm::size_T] >= kLeastSteps;
}

bool fits(const Problem& problem, const void*, const Device& device) {
  const size_t bytes = OutputsShared<__half>::bytes(problem.sizes[mlstm::size_K]);
  return takes(problem) && device.sm >= 80 && static_cast<int64_t>(bytes) <= device.shared_bytes;
}

template <class TX>
Status chunk_prepare(const Device& device) {
  Status status = load_kernels(chunk_gates<TX>);
  if (status == Status::kOk) status = allow_shared(chunk_states<TX>, sizeof(StatesShared<TX>));
  if (status == Status::kOk) {
    status = allow_shared(chunk_outputs<TX>, static_cast<size_t>(device.shared_bytes));
  }
  return status;
}

Status prepare(Device& device) {
  if (device.sm < 80) return Status::kOk;
  return for_each_half([&](auto half) { return chunk_prepare<decltype(half)>(device); });
}

// Slices of some heads and some chunks. Heads fill the device first, since a block of states takes
// its chunks one by one; what the workspace holds beyond are chunks, then more heads.
template <class TX>
Status launch_slices(ChunkProblem<TX> x, const Sizes& size, void* stream) {
  const int64_t tiles = parts_of(x.qk_dim, kTile) * parts_of(x.v_dim, kTile);
  const int64_t columns = parts_of(x.v_dim, kOutputColumns);
  const int64_t least_heads =
      min_of(min_of(parts_of(kFullStates, tiles), size.heads), size.snapshots());
  const int64_t slices = parts_of(x.chunks, min_of(x.chunks, size.snapshots() / least_heads));
  const int64_t most_chunks = parts_of(x.chunks, slices);
  const int64_t groups = parts_of(size.heads, size.snapshots() / most_chunks);
  const int64_t most_heads = parts_of(size.heads, groups);
  for (x.first_head = 0; x.first_head < size.heads; x.first_head += most_heads) {
    x.heads_here = min_of(most_heads, size.heads - x.first_head);
    for (x.first_chunk = 0; x.first_chunk < x.chunks; x.first_chunk += most_chunks) {
      x.chunks_here = min_of(most_chunks, x.chunks - x.first_chunk);
      Status status = launch_kernel(chunk_states<TX>, x, x.heads_here * tiles, kStatesThreads,
                                    sizeof(StatesShared<TX>), stream);
      if (status != Status::kOk) return status;
      const int64_t chunks = x.heads_here * x.chunks_here;
      // q^T k is made once for all columns of a block: as many as leave the device full
      const int64_t least_blocks = min_of(columns, parts_of(kFullOutputs, chunks));
      x.tiles_here = static_cast<int>(parts_of(columns, least_blocks));
      status = launch_kernel(chunk_outputs<TX>, x, chunks * parts_of(columns, x.tiles_here),
                             kOutputsThreads, OutputsShared<TX>::bytes(x.qk_dim), stream);
      if (status != Status::kOk) return status;
    }
  }
  return Status::kOk;
}

bool is_aligned(const void* place) { return reinterpret_cast<uintptr_t>(place) % 16 == 0; }

template <class TX>
Status chunk_launch(const Call& call, void* stream) {
  ChunkProblem<TX> x{};
  static_cast<MlstmOperands<TX>&>(x) = mlstm_operands<TX>(call);
  x.is_aligned = is_aligned(x.q) && is_aligned(x.k) && is_aligned(x.v) && is_aligned(x.h);
  const Sizes size(call.problem);
  Arena workspace(call.workspace);
  take_workspace(size, workspace, x);
  const int64_t gates = parts_of(size.heads * size.chunks, kGatesThreads / kWarp);
  const Status status = launch_kernel(chunk_gates<TX>, x, gates, kGatesThreads, 0, stream);
  return status == Status::kOk ? launch_slices(x, size, stream) : status;
}

Status launch(const Call& call, const Device&, void* stream) {
  return with_half(call.problem.dtype, [&](auto half) {
    return chunk_launch<decltype(half)>(call, stream);
  });
}

size_t workspace_size(const Problem& problem) {
  if (!takes(problem)) return 0;
  return with_half(problem.dtype, [&](auto half) {
    Arena counter(nullptr);
    ChunkProblem<decltype(half)> ignored;
    take_workspace(Sizes(problem), counter, ignored);
    return counter.used();
  });
}

}  // namespace

extern const Variant kMlstmChunk = {"chunk", fits, workspace_size, prepare, launch};

}  // namespace xlstm::cuda
