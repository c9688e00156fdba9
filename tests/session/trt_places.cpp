// The places of plugins/session/trt/places.h beside those that the compiler gives TensorRT's own
// classes, in NVIDIA's headers of 10.14.
#include <NvInferRuntime.h>

#include <cstdio>
#include <cstring>

#include "trt/logger.h"
#include "trt/places.h"

namespace api = nvinfer1::apiv;
using xlstm::session::trt::kTensorRT10;
namespace trt = xlstm::session::trt;

// A pointer to a virtual function holds its place in the table: 1 + bytes (Itanium C++ ABI, on
// x86-64).
template <typename Function>
int place(Function function) {
  ptrdiff_t words[2];
  static_assert(sizeof function == sizeof words);
  std::memcpy(words, &function, sizeof words);
  return static_cast<int>((words[0] - 1) / static_cast<ptrdiff_t>(sizeof(void*)));
}

static_assert(sizeof(nvinfer1::Dims) == sizeof(trt::Dims));
static_assert(offsetof(nvinfer1::Dims, d) == offsetof(trt::Dims, sizes));
static_assert(int(nvinfer1::DataType::kFLOAT) == int(trt::Type::kFloat));
static_assert(int(nvinfer1::DataType::kHALF) == int(trt::Type::kHalf));
static_assert(int(nvinfer1::DataType::kINT32) == int(trt::Type::kInt32));
static_assert(int(nvinfer1::DataType::kINT64) == int(trt::Type::kInt64));
static_assert(int(nvinfer1::DataType::kBF16) == int(trt::Type::kBfloat16));
static_assert(int(nvinfer1::TensorIOMode::kINPUT) == int(trt::Mode::kInput));
static_assert(int(nvinfer1::TensorIOMode::kOUTPUT) == int(trt::Mode::kOutput));
static_assert(int(nvinfer1::TensorLocation::kDEVICE) == int(trt::Location::kDevice));
static_assert(int(nvinfer1::OptProfileSelector::kMIN) == int(trt::Select::kMin));
static_assert(int(nvinfer1::OptProfileSelector::kMAX) == int(trt::Select::kMax));
static_assert(int(nvinfer1::ILogger::Severity::kERROR) == int(trt::Severity::kError));
static_assert(int(nvinfer1::ExecutionContextAllocationStrategy::kON_PROFILE_CHANGE) ==
              trt::kOnProfileChange);

int main() {
  using Deserialize = nvinfer1::ICudaEngine* (api::VRuntime::*)(const void*, size_t) noexcept;
  using Profile = bool (api::VExecutionContext::*)(int32_t, cudaStream_t) noexcept;
  const trt::Places found{
      place(static_cast<Deserialize>(&api::VRuntime::deserializeCudaEngine)),
      place(&api::VRuntime::getPluginRegistry),
      place(&api::VRuntime::setEngineHostCodeAllowed),
      place(&nvinfer1::IPluginRegistry::loadLibrary),
      place(&api::VCudaEngine::createExecutionContext),
      place(&api::VCudaEngine::getNbOptimizationProfiles),
      place(&api::VCudaEngine::getTensorDataType),
      place(&api::VCudaEngine::getTensorLocation),
      place(&api::VCudaEngine::getTensorIOMode),
      place(&api::VCudaEngine::getProfileShape),
      place(&api::VCudaEngine::getNbIOTensors),
      place(&api::VCudaEngine::getIOTensorName),
      place(static_cast<Profile>(&api::VExecutionContext::setOptimizationProfileAsync)),
      place(&api::VExecutionContext::setInputShape),
      place(&api::VExecutionContext::getTensorShape),
      place(&api::VExecutionContext::setTensorAddress),
      place(&api::VExecutionContext::enqueueV3),
      place(&nvinfer1::ILogger::log) != 0,
  };
  const int* ours = &kTensorRT10.deserialize;
  const int* theirs = &found.deserialize;
  for (int i = 0; i < 17; ++i) std::printf("%d %d\n", ours[i], theirs[i]);
  std::printf("%d %d\n", kTensorRT10.is_versioned_logger, found.is_versioned_logger);
  std::printf("%d %d\n", place(&trt::PlainLogger::log), place(&nvinfer1::ILogger::log));
}
