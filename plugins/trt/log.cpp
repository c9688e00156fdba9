#include "log.h"

#include <atomic>
#include <cstdio>

#include "layout.h"

namespace xlstm::trt {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> finder{nullptr};

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* given) noexcept {
  finder.store(given, std::memory_order_release);
}

void log_error(const std::string& message) noexcept {
  void* known = finder.load(std::memory_order_acquire);
  const Layout* layout = known == nullptr ? nullptr : layout_of(known);
  void* logger = layout == nullptr ? nullptr : call_at<void*>(layout->find_logger, known);
  if (logger == nullptr) {
    std::fprintf(stderr, "%s\n", message.c_str());
  } else {
    call_at<void>(layout->log, logger, nvinfer1::ILogger::Severity::kERROR, message.c_str());
  }
}

}  // namespace xlstm::trt
