#include "variant.h"

namespace xlstm::cuda {

extern const Variant kConv1dVector, kConv1dPlain;

namespace {
constexpr const Variant* kVariants[] = {&kConv1dVector, &kConv1dPlain};
}  // namespace

extern const Kernel kConv1dKernel = {"XLSTM_CUDA_CONV1D", kVariants, 2};

}  // namespace xlstm::cuda
