// How a bundle is opened.
#pragma once

#include <cstdint>
#include <memory>

#include "backend.h"
#include "manifest.h"

namespace xlstm::session {

// xlstm_session_options, checked.
struct Options {
  const char* runtime_library = nullptr;
  const char* kernel_library = nullptr;
  const char* engine = nullptr;
  int threads = 0;
  int gpu = 0;
};

std::unique_ptr<Backend> open_onnxruntime(const std::string& bundle,
                                          std::shared_ptr<const Manifest> manifest,
                                          const Options& options);
std::unique_ptr<Backend> open_tensorrt(const std::string& bundle,
                                       std::shared_ptr<const Manifest> manifest,
                                       const Options& options);

}  // namespace xlstm::session
