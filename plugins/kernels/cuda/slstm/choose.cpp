#include "variant.h"

namespace xlstm::cuda {

extern const Variant kSlstmRegisters, kSlstmClusters, kSlstmPlain;

namespace {
constexpr const Variant* kVariants[] = {&kSlstmRegisters, &kSlstmClusters, &kSlstmPlain};
}  // namespace

extern const Kernel kSlstmKernel = {"XLSTM_CUDA_SLSTM", kVariants, 3};

}  // namespace xlstm::cuda
