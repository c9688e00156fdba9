// Where TensorRT's classes have the virtual functions that are called here.
//
// One library meets TensorRT 10.10 and later, TensorRT 11 and TensorRT-RTX 1.7 and later, so it
// calls functions by their place, with no header of theirs. Within a major version places stay;
// TensorRT 11 and TensorRT-RTX have lost what 10 had deprecated. Read from NvInferImpl.h of the
// releases 10.10 to 10.16 and 11.0 and 11.1; tests/session compares those of 10.14 with a
// compiler's. Places count from 0; a destructor takes two.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xlstm::session::trt {

struct Places {
  // of apiv::VRuntime
  int deserialize, plugin_registry, allow_host_code;
  // of IPluginRegistry
  int load_library;
  // of apiv::VCudaEngine
  int create_context, profile_count, tensor_type, tensor_location, tensor_mode, profile_shape,
      tensor_count, tensor_name;
  // of apiv::VExecutionContext
  int set_profile, set_input_shape, tensor_shape, set_address, enqueue;
  // whether a logger is an IVersionedInterface
  bool is_versioned_logger;
};

inline constexpr Places kTensorRT10{3,  18, 21, 10, 5,  10, 20, 21, 23,
                                    29, 30, 31, 17, 21, 22, 24, 37, false};
inline constexpr Places kTensorRT11{3,  17, 20, 6, 5,  8,  16, 17, 19,
                                    25, 26, 27, 16, 20, 21, 23, 36, true};

// By getInferLibVersion: 101401 is TensorRT 10.14.1, 10701 is TensorRT-RTX 1.7.1. Null where the
// version is not known.
inline const Places* places_of(int32_t version) {
  const int32_t major = version / 10000, minor = version / 100 % 100;
  if (major == 10 && minor >= 10) return &kTensorRT10;
  if (major == 11 || (major == 1 && minor >= 7)) return &kTensorRT11;
  return nullptr;
}

// nvinfer1::Dims, and the enumerations' numbers; alike in all.
struct Dims {
  static constexpr int32_t kMost = 8;
  int32_t count;
  int64_t sizes[kMost];
};
enum class Type : int32_t { kFloat = 0, kHalf = 1, kInt32 = 3, kBfloat16 = 7, kInt64 = 8 };
enum class Mode : int32_t { kNone = 0, kInput = 1, kOutput = 2 };
enum class Location : int32_t { kDevice = 0, kHost = 1 };
enum class Select : int32_t { kMin = 0, kOptimum = 1, kMax = 2 };
enum class Severity : int32_t { kInternalError = 0, kError = 1 };
inline constexpr int32_t kOnProfileChange = 1;  // ExecutionContextAllocationStrategy

template <typename Result, typename... Arguments>
Result call_at(int place, void* object, Arguments... arguments) {
  using Function = Result (*)(void*, Arguments...);
  return (*static_cast<Function**>(object))[place](object, arguments...);
}

// The class that an interface such as IRuntime calls: the pointer behind its own table.
inline void* implementation(void* interface) { return static_cast<void**>(interface)[1]; }

// delete: the destructor that frees is the second function of the interface's own table.
inline void destroy(void* interface) {
  if (interface != nullptr) call_at<void>(1, interface);
}

}  // namespace xlstm::session::trt
