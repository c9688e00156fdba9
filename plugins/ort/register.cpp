// RegisterCustomOps, the library's one entry.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "custom_op.h"
#include "gpu.h"
#include "kernel.h"
#include "xlstm/threads.h"

namespace xlstm::ort {
namespace {

// Into how many parts calls are cut: as many as the session's pool has threads. Where kThreadsKey
// does not say how many, they are taken to be one per core, as by default, up to kMostParts: more
// parts than threads give the same result, but cost up to 2x where one thread runs them all.
constexpr int kMostParts = 16;

OrtStatus* read_threads(const OrtApi& api, const OrtSessionOptions* options, int* threads) {
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  *threads = std::clamp(cores, 1, kMostParts);
  int has = 0;
  if (OrtStatus* status = api.HasSessionConfigEntry(options, kThreadsKey, &has)) return status;
  if (has == 0) return nullptr;
  char text[16] = {};
  size_t size = sizeof text;
  OrtStatus* unread = api.GetSessionConfigEntry(options, kThreadsKey, text, &size);
  if (unread != nullptr) api.ReleaseStatus(unread);
  const char* end = text + std::strlen(text);
  const auto parsed = std::from_chars(text, end, *threads);
  const bool is_number = unread == nullptr && parsed.ec == std::errc{} && parsed.ptr == end;
  if (is_number && *threads >= 1 && *threads <= kMostThreads) return nullptr;
  const std::string message = std::string("xlstm: session configuration ") + kThreadsKey +
                              " is a number of threads from 1 to " + std::to_string(kMostThreads);
  return api.CreateStatus(ORT_INVALID_ARGUMENT, message.c_str());
}

// A session may have one library of a domain: where there are kernels for the GPU, those for the
// CPU come with them, for the nodes that ONNX Runtime keeps there.
constexpr Processor kProcessors[] = {Processor::kCpu, Processor::kGpu};
constexpr bool kHas[] = {kHasCpu, kHasGpu};

// Every operator at every type, as one ONNX Runtime knows them. Sessions keep pointers into it and
// never say when they are done: it lives as long as the library.
struct Registration {
  const OrtApi* api;
  int threads;
  std::vector<CustomOp> ops;
  OrtCustomOpDomain* domain = nullptr;
};

OrtStatus* make_registration(const OrtApi& api, Registration* made) {
  made->ops.reserve(kOps * kDTypes * std::size(kProcessors));
  if (OrtStatus* status = api.CreateCustomOpDomain(kDomain, &made->domain)) return status;
  for (const OpSchema& schema : kSchemas) {
    for (size_t each = 0; each < kDTypes * std::size(kProcessors); ++each) {
      const auto type = static_cast<DType>(each / std::size(kProcessors));
      const size_t processor = each % std::size(kProcessors);
      if (!kHas[processor]) continue;
      made->ops.push_back(make_custom_op(api, schema, type, kProcessors[processor], made->threads));
      if (OrtStatus* status = api.CustomOpDomain_Add(made->domain, &made->ops.back())) {
        api.ReleaseCustomOpDomain(made->domain);
        return status;
      }
    }
  }
  return nullptr;
}

// One registration per ONNX Runtime of the process and number of threads.
OrtStatus* domain_of(const OrtApi& api, int threads, OrtCustomOpDomain** domain) {
  static std::mutex mutex;
  static auto* const registrations = new std::vector<std::unique_ptr<Registration>>;
  const std::lock_guard<std::mutex> lock(mutex);
  for (const auto& registration : *registrations) {
    if (registration->api == &api && registration->threads == threads) {
      *domain = registration->domain;
      return nullptr;
    }
  }
  auto made = std::make_unique<Registration>();
  made->api = &api;
  made->threads = threads;
  if (OrtStatus* status = make_registration(api, made.get())) return status;
  *domain = made->domain;
  registrations->push_back(std::move(made));
  return nullptr;
}

// CreateStatus is in every version of the API, from the first.
OrtStatus* too_old(const OrtApiBase& base) {
  const OrtApi* first = base.GetApi(1);
  const std::string message = "xlstm: needs ONNX Runtime 1." + std::to_string(kApiVersion) +
                              " or later, this is " + base.GetVersionString();
  if (first != nullptr) return first->CreateStatus(ORT_NOT_IMPLEMENTED, message.c_str());
  static char no_api_at_all;  // nobody can read or release it, but it is not success
  return reinterpret_cast<OrtStatus*>(&no_api_at_all);
}

}  // namespace
}  // namespace xlstm::ort

extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL
RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) noexcept {
  const OrtApi* api = base->GetApi(xlstm::ort::kApiVersion);
  try {
    if (api == nullptr) return xlstm::ort::too_old(*base);
    int threads = 1;
    if (OrtStatus* status = xlstm::ort::read_threads(*api, options, &threads)) return status;
    OrtCustomOpDomain* domain = nullptr;
    if (OrtStatus* status = xlstm::ort::domain_of(*api, threads, &domain)) return status;
    return api->AddCustomOpDomain(options, domain);
  } catch (...) {
    return base->GetApi(1)->CreateStatus(ORT_RUNTIME_EXCEPTION, "xlstm: out of memory");
  }
}
