// One node of a session: its attributes, its packed constant, and a call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>

#include <onnxruntime_c_api.h>

#include "xlstm/attributes.h"
#include "xlstm/cpu.h"
#include "xlstm/sizes.h"

namespace xlstm::ort {

enum class Processor { kCpu, kGpu };

// The ORT API that this library is written against: ONNX Runtime 1.18 and later have it.
inline constexpr uint32_t kApiVersion = 18;

// A status that says "OPERATOR: message".
OrtStatus* failure(const OrtApi& api, const OpSchema& schema, const std::string& message);

// Rank and dimensions of `info`; an operand of higher rank than kMaxRank gets its first ones.
OrtStatus* read_shape(const OrtApi& api, const OrtTensorTypeAndShapeInfo* info, int64_t* dims,
                      size_t* rank);

// Nothing changes after create(): any number of threads may compute at once.
class Kernel {
 public:
  // Reads and checks the node's attributes and the shapes known before a run, and packs its
  // constant operand. The status is null, or says what is wrong; the caller owns the kernel. Calls
  // on the CPU are cut into up to `threads` parts.
  static OrtStatus* create(const OrtApi& api, const OrtKernelInfo* info, const OpSchema& schema,
                           DType dtype, Processor processor, int threads, Kernel** kernel);
  ~Kernel();
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  OrtStatus* compute(OrtKernelContext* context) const;
  const OrtApi& api() const { return api_; }

 private:
  struct FreeAligned {
    void operator()(void* memory) const {
      ::operator delete(memory, std::align_val_t{kWorkspaceAlignment});
    }
  };

  Kernel(const OrtApi& api, const OpSchema& schema, DType dtype, Processor processor, int threads);
  OrtStatus* read_attributes(const OrtKernelInfo* info);
  OrtStatus* check_static_shapes(const OrtKernelInfo* info) const;
  OrtStatus* pack_constant(const OrtKernelInfo* info);
  OrtStatus* read_inputs(OrtKernelContext* context, Sizes* sizes, Call* call) const;
  OrtStatus* make_outputs(OrtKernelContext* context, const Sizes& sizes, Call* call) const;
  OrtStatus* run_on_cpu(OrtKernelContext* context, Call* call) const;

  const OrtApi& api_;
  const OpSchema& schema_;
  const DType dtype_;
  const Processor processor_;
  const int threads_;
  OrtAllocator* allocator_ = nullptr;
  alignas(8) char attributes_[largest_attributes()] = {};
  std::unique_ptr<void, FreeAligned> packed_;
};

}  // namespace xlstm::ort
