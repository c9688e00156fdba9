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
  // Its primary context becomes the calling thread's; `leave` brings back the one before.
  virtual void enter() = 0;
  virtual void leave() noexcept = 0;
  virtual void* stream() const = 0;
  virtual std::string name() const = 0;
  // Such as "8.9".
  virtual std::string compute_capability() const = 0;
};

// The GPU's context is the calling thread's while this lives.
class Current {
 public:
  explicit Current(Gpu& gpu) : gpu_(gpu) { gpu_.enter(); }
  ~Current() { gpu_.leave(); }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  Gpu& gpu_;
};

// GPU number `index`. Throws XLSTM_BACKEND_ERROR with what is missing.
std::unique_ptr<Gpu> open_gpu(int index);

}  // namespace xlstm::session::trt
