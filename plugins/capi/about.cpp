// What a library says of itself. Each library with CPU kernels has these two functions, so that a
// program can ask the very image whose kernels it runs.
#include "xlstm/cpu.h"
#include "xlstm_c.h"

const char* xlstm_version(void) { return XLSTM_VERSION; }

int32_t xlstm_cpu_isa(const char** name) {
  xlstm::cpu::Isa isa;
  const bool as_asked = xlstm::cpu::select_isa(&isa);
  if (name != nullptr) *name = xlstm::cpu::isa_name(isa);
  return static_cast<int32_t>(as_asked ? xlstm::Status::kOk : xlstm::Status::kUnavailable);
}
