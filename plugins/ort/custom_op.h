// What ONNX Runtime is given of each operator.
#pragma once

#include <onnxruntime_c_api.h>

#include "kernel.h"
#include "xlstm/call.h"

namespace xlstm::ort {

// One operator at one activation type on one processor. Operators of one name share their inference
// function, so that function looks at neither.
struct CustomOp : OrtCustomOp {
  const OrtApi* api;
  const OpSchema* schema;
  DType dtype;
  Processor processor;
  int threads;  // parts that a call on the CPU is worth cutting into
};

CustomOp make_custom_op(const OrtApi& api, const OpSchema& schema, DType dtype,
                        Processor processor, int threads);

// Output shapes from input shapes as far as both are known before a run; contradictions fail.
// ONNX Runtime 1.20 to 1.31 drop that failure; creating the kernel then repeats it.
OrtStatus* infer_shapes(const OrtApi& api, const OpSchema& schema, OrtShapeInferContext* context);

}  // namespace xlstm::ort
