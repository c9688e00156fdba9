// What the package asks of the loaded library; the same functions as in xlstm_c.h.
#include "xlstm/cpu.h"

#define XLSTM_EXPORTED extern "C" __attribute__((visibility("default")))

XLSTM_EXPORTED const char* xlstm_version() { return XLSTM_VERSION; }

// Name of the instruction set in use; not 0 where XLSTM_CPU_ISA forces one that is not there.
XLSTM_EXPORTED int32_t xlstm_cpu_isa(const char** name) {
  xlstm::cpu::Isa isa;
  const bool had = xlstm::cpu::select_isa(&isa);
  if (name != nullptr) *name = xlstm::cpu::isa_name(isa);
  return static_cast<int32_t>(had ? xlstm::Status::kOk : xlstm::Status::kUnavailable);
}
