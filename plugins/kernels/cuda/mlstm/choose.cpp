#include "variant.h"

namespace xlstm::cuda {

extern const Variant kMlstmPlain;

namespace {
constexpr const Variant* kVariants[] = {&kMlstmPlain};
}  // namespace

extern const Kernel kMlstmKernel = {"XLSTM_CUDA_MLSTM", kVariants, 1};

}  // namespace xlstm::cuda
