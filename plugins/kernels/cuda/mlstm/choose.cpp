#include "variant.h"

namespace xlstm::cuda {

extern const Variant kMlstmChunk, kMlstmPlain;

namespace {
constexpr const Variant* kVariants[] = {&kMlstmChunk, &kMlstmPlain};
}  // namespace

extern const Kernel kMlstmKernel = {"XLSTM_CUDA_MLSTM", kVariants, 2};

}  // namespace xlstm::cuda
