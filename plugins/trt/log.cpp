#include "log.h"

#include <atomic>
#include <cstdio>

namespace xlstm::trt {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> finder{nullptr};

nvinfer1::ILogger* find_logger() noexcept {
  nvinfer1::ILoggerFinder* known = finder.load(std::memory_order_acquire);
  if (known == nullptr) return nullptr;
  try {
    return known->findLogger();
  } catch (...) {
    return nullptr;
  }
}

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* given) noexcept {
  finder.store(given, std::memory_order_release);
}

void log_error(const std::string& message) noexcept {
  if (nvinfer1::ILogger* logger = find_logger()) {
    logger->log(nvinfer1::ILogger::Severity::kERROR, message.c_str());
  } else {
    std::fprintf(stderr, "%s\n", message.c_str());
  }
}

}  // namespace xlstm::trt
