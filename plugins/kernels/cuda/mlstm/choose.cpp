#include "variant.h"

namespace xlstm::cuda {

extern const Variant kMlstmChunk, kMlstmStep, kMlstmPlain;

namespace {
constexpr const Variant* kVariants[] = {&kMlstmChunk, &kMlstmStep, &kMlstmPlain};
}  // namespace

extern const Kernel kMlstmKernel = {"XLSTM_CUDA_MLSTM", kVariants, 3};

}  // namespace xlstm::cuda
