// A build without TensorRT's headers.
#include "../error.h"
#include "../options.h"

namespace xlstm::session {

std::unique_ptr<Backend> open_tensorrt(const std::filesystem::path&,
                                       std::shared_ptr<const Manifest>, const Options&) {
  fail(XLSTM_BACKEND_ERROR, "libxlstm_session was built without TensorRT: it opens no engines; "
                            "build it with XLSTM_TRT=ON");
}

}  // namespace xlstm::session
