// What the library has to say, through the logger of whichever runtime loaded it.
#pragma once

#include <string>

#include <NvInferRuntime.h>

namespace xlstm::trt {

// The runtime's finder; null (or none that answers) prints to stderr instead.
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;

void log_error(const std::string& message) noexcept;

}  // namespace xlstm::trt
