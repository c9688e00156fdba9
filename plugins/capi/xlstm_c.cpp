#include "xlstm_c.h"

#include <cstring>
#include <new>

#include "pool.h"
#include "unpack.h"
#include "xlstm/cpu.h"
#include "xlstm/threads.h"

using xlstm::Status;

struct xlstm_pool {
  explicit xlstm_pool(int threads) : pool(threads) {}
  xlstm::Pool pool;
};

namespace {

int32_t code(Status status) { return static_cast<int32_t>(status); }

void run_in_pool(void* pool, void (*task)(void*, int64_t), void* context, int64_t count) {
  static_cast<xlstm_pool*>(pool)->pool.run(task, context, count);
}

}  // namespace

const char* xlstm_status_message(int32_t status) {
  return xlstm::status_message(static_cast<Status>(status));
}

int32_t xlstm_find_op(const char* name) {
  for (int op = 0; name != nullptr && op < xlstm::kOps; ++op) {
    if (std::strcmp(xlstm::kSchemas[op].name, name) == 0) return op;
  }
  return -1;
}

xlstm_pool* xlstm_pool_create(int32_t threads) {
  if (threads < 1 || threads > xlstm::kMostThreads) return nullptr;
  try {
    return new xlstm_pool(threads);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void xlstm_pool_destroy(xlstm_pool* pool) {
  if (pool != nullptr && !pool->pool.is_forked()) delete pool;  // a forked process leaves it
}

int32_t xlstm_cpu_workspace_size(const xlstm_call* call, int32_t threads, size_t* bytes) {
  if (call == nullptr || bytes == nullptr) return code(Status::kNullPointer);
  if (threads < 1 || threads > xlstm::kMostThreads) return code(Status::kBadSize);
  const xlstm::Problem problem = xlstm::problem_of(*call);
  const Status status = xlstm::check_problem(problem);
  if (status == Status::kOk) {
    *bytes = xlstm::cpu::workspace_size(problem, threads, call->packed != nullptr);
  }
  return code(status);
}

int32_t xlstm_cpu_packed_size(const xlstm_call* call, size_t* bytes) {
  if (call == nullptr || bytes == nullptr) return code(Status::kNullPointer);
  const xlstm::Problem problem = xlstm::problem_of(*call);
  const Status status = xlstm::check_problem(problem);
  if (status == Status::kOk) *bytes = xlstm::cpu::packed_size(problem);
  return code(status);
}

int32_t xlstm_cpu_pack(const xlstm_call* call, void* packed) {
  if (call == nullptr || packed == nullptr) return code(Status::kNullPointer);
  const xlstm::Problem problem = xlstm::problem_of(*call);
  if (const Status status = xlstm::check_problem(problem); status != Status::kOk) {
    return code(status);
  }
  const int input = xlstm::cpu::packed_input(problem.op);
  if (input < 0) return code(Status::kOk);
  return code(xlstm::cpu::pack(problem, call->inputs[input], packed));
}

int32_t xlstm_cpu_run(const xlstm_call* call, xlstm_pool* pool) {
  if (call == nullptr) return code(Status::kNullPointer);
  xlstm::UnpackedCall unpacked;
  if (const Status status = unpacked.unpack(*call); status != Status::kOk) return code(status);
  xlstm::cpu::Parallel parallel;
  if (pool != nullptr) {
    parallel.threads = pool->pool.threads();
    parallel.pool = pool;
    parallel.run = run_in_pool;
  }
  return code(xlstm::cpu::run(unpacked.call, parallel));
}
