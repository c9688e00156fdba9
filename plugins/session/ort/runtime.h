// ONNX Runtime, loaded when the first session asks for it.
#pragma once

#include <string>

// its functions come from the library that is loaded, not from one that is linked
#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

#include "../tensor.h"

namespace xlstm::session::ort {

// The one of this process; `path` is as in xlstm_session_options. Throws XLSTM_BACKEND_ERROR where
// there is none, it is older than 1.20, or another one was asked for before.
const Ort::Env& load_runtime(const char* path);
std::string runtime_version();
// Whether it is of a version before that one.
bool runtime_is_before(int major, int minor);

ONNXTensorElementDataType element_type(const DType& dtype);

// The end of a message of ONNX Runtime's first line, for use in one of ours.
std::string last_words(const std::exception& error);

}  // namespace xlstm::session::ort
