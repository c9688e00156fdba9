#include "variant.h"

namespace xlstm::cuda {

extern const Variant kSlstmPlain;

namespace {
constexpr const Variant* kVariants[] = {&kSlstmPlain};
}  // namespace

extern const Kernel kSlstmKernel = {"XLSTM_CUDA_SLSTM", kVariants, 1};

}  // namespace xlstm::cuda
