// What ONNX Runtime is given of each operator.
#pragma once

#include <onnxruntime_c_api.h>

#include "xlstm/call.h"

namespace xlstm::ort {

// One operator at one activation type. Operators of one name share their inference function, so
// that function looks at no dtype.
struct CustomOp : OrtCustomOp {
  const OrtApi* api;
  const OpSchema* schema;
  DType dtype;
  int threads;  // parts that a call is worth cutting into
};

CustomOp make_custom_op(const OrtApi& api, const OpSchema& schema, DType dtype, int threads);

// Output shapes from input shapes as far as both are known before a run; contradictions fail.
// ONNX Runtime 1.20 to 1.31 drop that failure; creating the kernel then repeats it.
OrtStatus* infer_shapes(const OrtApi& api, const OpSchema& schema, OrtShapeInferContext* context);

}  // namespace xlstm::ort
