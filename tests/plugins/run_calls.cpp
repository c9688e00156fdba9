// Runs calls of the C API that lie in a file, for processors that have no Python here.
//
// run_calls IN OUT: IN is a sequence of Header, then the inputs' bytes. OUT gets, for each, the
// status and the outputs' bytes. The name of the instruction set goes to standard output.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "xlstm_c.h"

namespace {

struct Header {
  xlstm_call call;  // its pointers mean nothing
  int64_t input_bytes[XLSTM_C_MAX_INPUTS];
  int64_t output_bytes[XLSTM_C_MAX_OUTPUTS];
  int64_t threads;
};

struct Free {
  void operator()(void* p) const { std::free(p); }
};
using Memory = std::unique_ptr<void, Free>;

Memory allocate(size_t bytes) {
  return Memory(std::aligned_alloc(64, (bytes + 64) / 64 * 64));
}

bool run_one(std::FILE* in, std::FILE* out) {
  Header header;
  if (std::fread(&header, sizeof header, 1, in) != 1) return false;
  xlstm_call& call = header.call;
  std::vector<Memory> memory;
  for (int i = 0; i < XLSTM_C_MAX_INPUTS; ++i) {
    memory.push_back(allocate(header.input_bytes[i]));
    call.inputs[i] = memory.back().get();
    if (std::fread(memory.back().get(), 1, header.input_bytes[i], in) !=
        static_cast<size_t>(header.input_bytes[i])) {
      return false;
    }
  }
  for (int o = 0; o < XLSTM_C_MAX_OUTPUTS; ++o) {
    memory.push_back(allocate(header.output_bytes[o]));
    call.outputs[o] = memory.back().get();
  }
  xlstm_pool* pool = xlstm_pool_create(static_cast<int32_t>(header.threads));
  int32_t status = xlstm_cpu_workspace_size(&call, static_cast<int32_t>(header.threads),
                                            &call.workspace_size);
  memory.push_back(allocate(call.workspace_size));
  call.workspace = memory.back().get();
  if (status == 0) status = xlstm_cpu_run(&call, pool);
  xlstm_pool_destroy(pool);
  std::fwrite(&status, sizeof status, 1, out);
  for (int o = 0; o < XLSTM_C_MAX_OUTPUTS; ++o) {
    std::fwrite(call.outputs[o], 1, header.output_bytes[o], out);
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  std::FILE* in = std::fopen(argv[1], "rb");
  std::FILE* out = std::fopen(argv[2], "wb");
  if (in == nullptr || out == nullptr) return 2;
  while (run_one(in, out)) {
  }
  const char* name = nullptr;
  const int32_t status = xlstm_cpu_isa(&name);
  std::printf("%s\n", name);
  std::fclose(in);
  return std::fclose(out) == 0 ? status : 2;
}
