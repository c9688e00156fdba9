#include "logger.h"

#include <exception>

namespace xlstm::session::trt {

void Log::add(int32_t severity, const char* message) noexcept {
  if (severity > static_cast<int32_t>(Severity::kError)) return;
  try {
    const std::lock_guard<std::mutex> lock(mutex_);
    lines_.emplace_back(message);
    if (lines_.size() > kMostLines) lines_.pop_front();
  } catch (const std::exception&) {
    // no memory for a message: it is lost
  }
}

std::string Log::taken() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::string text;
  for (const std::string& line : lines_) text += "\n" + line;
  lines_.clear();
  return text;
}

}  // namespace xlstm::session::trt
