// What to say of a launch that was refused.
#pragma once

#include <string>

#include "xlstm/cuda.h"

namespace xlstm::cuda {

// With CUDA's own words, where it was the device that refused it. Of the thread that launched.
inline std::string launch_message(Status status) {
  const std::string text = status_message(status);
  if (status != Status::kLaunchFailed) return text;
  return text + ": " + launch_error_name() + ", " + launch_error_text();
}

}  // namespace xlstm::cuda
