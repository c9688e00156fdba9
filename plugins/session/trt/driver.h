// A GPU's memory and one stream on it, through NVIDIA's driver (libcuda.so.1), loaded when needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "../memory.h"

namespace xlstm::session::trt {

class Gpu : public Memory {
 public:
  // Its primary context is made the calling thread's.
  virtual void activate() = 0;
  virtual void* stream() const = 0;
  virtual std::string name() const = 0;
  // Such as "8.9".
  virtual std::string compute_capability() const = 0;
};

// GPU number `index`. Throws XLSTM_BACKEND_ERROR with what is missing.
std::unique_ptr<Gpu> open_gpu(int index);

}  // namespace xlstm::session::trt
