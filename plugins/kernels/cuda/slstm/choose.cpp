#include "variant.h"

namespace xlstm::cuda {

extern const Variant kSlstmRegisters, kSlstmPlain;

namespace {
constexpr const Variant* kVariants[] = {&kSlstmRegisters, &kSlstmPlain};
}  // namespace

extern const Kernel kSlstmKernel = {"XLSTM_CUDA_SLSTM", kVariants, 2};

}  // namespace xlstm::cuda
