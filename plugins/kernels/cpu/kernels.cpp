// The kernels in one instruction set: compiled once for each, with XLSTM_ISA as its name.
#include "table.h"

#include "conv1d.h"
#include "mlstm.h"
#include "slstm.h"

namespace xlstm::cpu::XLSTM_ISA {
namespace {

// Calls `body` with a value of the type that stands for `dtype`.
template <class Body>
auto with_element(DType dtype, Body body) {
  switch (dtype) {
    case DType::kFloat16: return body(Float16{});
    case DType::kBfloat16: return body(Bfloat16{});
    case DType::kFloat64: return body(double{});
    default: return body(float{});
  }
}

Status run_mlstm(const Call& call, const Parallel& parallel) {
  return with_element(call.problem.dtype,
                      [&](auto element) { return mlstm_run<decltype(element)>(call, parallel); });
}
Status run_slstm(const Call& call, const Parallel& parallel) {
  return with_element(call.problem.dtype,
                      [&](auto element) { return slstm_run<decltype(element)>(call, parallel); });
}
Status run_conv1d(const Call& call, const Parallel& parallel) {
  return with_element(call.problem.dtype,
                      [&](auto element) { return conv1d_run<decltype(element)>(call, parallel); });
}

void pack_slstm(const Problem& problem, const void* R, void* packed) {
  with_element(problem.dtype,
               [&](auto element) { slstm_pack<decltype(element)>(problem, R, packed); });
}
void pack_conv1d(const Problem& problem, const void* w, void* packed) {
  with_element(problem.dtype,
               [&](auto element) { conv1d_pack<decltype(element)>(problem, w, packed); });
}

// Sizes depend on the arithmetic type alone.
template <class Narrow, class Wide>
size_t size_for(const Problem& problem, Narrow narrow, Wide wide) {
  return problem.dtype == DType::kFloat64 ? wide() : narrow();
}

size_t workspace_mlstm(const Problem& p, int threads) {
  return size_for(p, [&] { return mlstm_workspace<float>(p, threads); },
                  [&] { return mlstm_workspace<double>(p, threads); });
}
size_t workspace_slstm(const Problem& p, int threads) {
  return size_for(p, [&] { return slstm_workspace<float>(p, threads); },
                  [&] { return slstm_workspace<double>(p, threads); });
}
size_t packed_slstm(const Problem& p) {
  return size_for(p, [&] { return slstm_packed_size<float>(p); },
                  [&] { return slstm_packed_size<double>(p); });
}
size_t packed_conv1d(const Problem& p) {
  return size_for(p, [&] { return conv1d_packed_size<float>(p); },
                  [&] { return conv1d_packed_size<double>(p); });
}

constexpr Kernel kKernels[kOps] = {
    {run_mlstm, workspace_mlstm, nullptr, nullptr},
    {run_slstm, workspace_slstm, packed_slstm, pack_slstm},
    {run_conv1d, nullptr, packed_conv1d, pack_conv1d},
};
static_assert(static_cast<int>(Op::kMLSTM) == 0 && static_cast<int>(Op::kSLSTM) == 1 &&
              static_cast<int>(Op::kCausalConv1d) == 2);

}  // namespace

const Kernel* kernels() { return kKernels; }

}  // namespace xlstm::cpu::XLSTM_ISA
