// A logger for either kind of TensorRT, which keeps the last errors for the one who throws.
#pragma once

#include <deque>
#include <mutex>
#include <string>

#include "places.h"

namespace xlstm::session::trt {

class Log {
 public:
  void add(int32_t severity, const char* message) noexcept;
  // What was kept, once: each message on a line of its own.
  std::string taken();

 private:
  static constexpr size_t kMostLines = 3;
  std::mutex mutex_;
  std::deque<std::string> lines_;
};

// nvinfer1::ILogger as TensorRT 10 has it: its functions in this order.
class PlainLogger {
 public:
  explicit PlainLogger(Log* log) : log_(log) {}
  virtual void log(int32_t severity, const char* message) noexcept { log_->add(severity, message); }
  virtual ~PlainLogger() = default;

 private:
  Log* log_;
};

struct InterfaceInfo {
  const char* kind;
  int32_t major, minor;
};

// The same as TensorRT 11 and TensorRT-RTX have it.
class VersionedLogger {
 public:
  explicit VersionedLogger(Log* log) : log_(log) {}
  virtual int32_t language() const noexcept { return 0; }  // C++
  virtual InterfaceInfo info() const noexcept { return {"ILogger", 1, 0}; }
  virtual ~VersionedLogger() = default;
  virtual void log(int32_t severity, const char* message) noexcept { log_->add(severity, message); }

 private:
  Log* log_;
};

}  // namespace xlstm::session::trt
