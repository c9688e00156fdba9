// RegisterCustomOps, the library's one entry.
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "custom_op.h"
#include "kernel.h"

namespace xlstm::ort {
namespace {

// Every operator at every type, as one ONNX Runtime knows them. Sessions keep pointers into it and
// never say when they are done: it lives as long as the library.
struct Registration {
  const OrtApi* api;
  std::vector<CustomOp> ops;
  OrtCustomOpDomain* domain = nullptr;
};

OrtStatus* make_registration(const OrtApi& api, Registration* made) {
  made->api = &api;
  made->ops.reserve(kOps * kDTypes);
  if (OrtStatus* status = api.CreateCustomOpDomain(kDomain, &made->domain)) return status;
  for (const OpSchema& schema : kSchemas) {
    for (int dtype = 0; dtype < kDTypes; ++dtype) {
      made->ops.push_back(make_custom_op(api, schema, static_cast<DType>(dtype)));
      if (OrtStatus* status = api.CustomOpDomain_Add(made->domain, &made->ops.back())) {
        api.ReleaseCustomOpDomain(made->domain);
        return status;
      }
    }
  }
  return nullptr;
}

// One registration per ONNX Runtime of the process.
OrtStatus* domain_of(const OrtApi& api, OrtCustomOpDomain** domain) {
  static std::mutex mutex;
  static auto* const registrations = new std::vector<std::unique_ptr<Registration>>;
  const std::lock_guard<std::mutex> lock(mutex);
  for (const auto& registration : *registrations) {
    if (registration->api == &api) {
      *domain = registration->domain;
      return nullptr;
    }
  }
  auto made = std::make_unique<Registration>();
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
    OrtCustomOpDomain* domain = nullptr;
    if (OrtStatus* status = xlstm::ort::domain_of(*api, &domain)) return status;
    return api->AddCustomOpDomain(options, domain);
  } catch (...) {
    return base->GetApi(1)->CreateStatus(ORT_RUNTIME_EXCEPTION, "xlstm: out of memory");
  }
}
