// Stand-ins for NVIDIA's driver (libcuda.so.1, -DSTAND_IN_DRIVER) and for TensorRT (libnvinfer.so,
// -DSTAND_IN_TENSORRT=101400), on host memory. The "engine" is a recurrence that Python can tell:
//   s[j] <- s[j] / 2 + (id + 1) (j + 1),   u <- u + 1,   logits[v] = s[v % 4] ((3 v) % 7 - 2)
// One of them takes no states and begins from zeros; another one forecasts, and its states stay:
//   quantiles[h, q] = the last step + 10 h + q
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

static int from_environment(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

#ifdef STAND_IN_DRIVER
using Address = unsigned long long;

static constexpr int kOutOfMemory = 2, kInvalidContext = 201;
static int primary, retained = 0;  // the context of the device, and how often it is held
static size_t used = 0;
static auto& blocks = *new std::map<Address, size_t>;         // to the end of the process
static thread_local std::vector<void*> contexts{nullptr};  // the current one is the last
static void* pointer(Address address) { return reinterpret_cast<void*>(address); }
// What `act` gives, where the context of the device is current.
template <typename Act>
static int in_context(Act act) {
  return contexts.back() == &primary ? act(), 0 : kInvalidContext;
}

EXPORT int cuInit(unsigned) { return from_environment("STAND_IN_CUINIT", 0); }
EXPORT int cuDeviceGet(int* device, int index) { return *device = index, 0; }
EXPORT int cuDeviceGetCount(int* count) { return *count = 1, 0; }
EXPORT int cuDeviceGetName(char* name, int size, int) {
  return std::snprintf(name, size, "Stand-in"), 0;
}
EXPORT int cuDeviceGetAttribute(int* value, int attribute, int) {
  return *value = attribute == 75 ? 8 : 9, 0;
}
EXPORT int cuDevicePrimaryCtxRetain(void** context, int) {
  return *context = &primary, ++retained, 0;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int) { return --retained, 0; }
EXPORT int stand_in_retained() { return retained; }
EXPORT int cuCtxGetCurrent(void** context) { return *context = contexts.back(), 0; }
EXPORT int cuCtxSetCurrent(void* context) { return contexts.back() = context, 0; }
EXPORT int cuCtxPushCurrent_v2(void* context) { return contexts.push_back(context), 0; }
EXPORT int cuCtxPopCurrent_v2(void** context) {
  return *context = contexts.back(), contexts.pop_back(), 0;
}
EXPORT int cuStreamCreate(void** stream, unsigned) {
  if (const int wrong = from_environment("STAND_IN_CUSTREAMCREATE", 0)) return wrong;
  return in_context([=] { *stream = std::malloc(1); });
}
EXPORT int cuStreamDestroy_v2(void* stream) { return in_context([=] { std::free(stream); }); }
EXPORT int cuStreamSynchronize(void*) { return in_context([] {}); }
EXPORT int cuMemAlloc_v2(Address* address, size_t bytes) {
  const int most = from_environment("STAND_IN_MEMORY", 1 << 30);
  if (used + bytes > static_cast<size_t>(most)) return kOutOfMemory;
  return in_context([=] {
    void* made = std::malloc(bytes);
    std::memset(made, 0x7f, bytes);
    *address = reinterpret_cast<Address>(made);
    used += blocks[*address] = bytes;
  });
}
EXPORT int cuMemFree_v2(Address address) {
  return in_context([=] {
    used -= blocks.at(address);
    blocks.erase(address);
    std::free(pointer(address));
  });
}
EXPORT int cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void*) {
  return in_context([=] { std::memset(pointer(to), value, bytes); });
}
EXPORT int cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, void*) {
  return in_context([=] { std::memcpy(pointer(to), from, bytes); });
}
EXPORT int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void*) {
  return in_context([=] { std::memcpy(to, pointer(from), bytes); });
}
EXPORT int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void*) {
  return in_context([=] { std::memcpy(pointer(to), pointer(from), bytes); });
}
EXPORT int cuPointerGetAttribute(void*, int, Address) { return 1; }
EXPORT int cuGetErrorName(int, const char** name) { return *name = "CUDA_ERROR_STAND_IN", 0; }
#endif

#ifdef STAND_IN_TENSORRT
#include "trt/places.h"

using namespace xlstm::session::trt;

namespace {

constexpr const Places& kPlaces = STAND_IN_TENSORRT / 10000 == 10 ? kTensorRT10 : kTensorRT11;
constexpr int kMostPlaces = 64, kVocabulary = 7, kBatch = 8, kSteps = 16, kHorizon = 4, kLevels = 2;

[[noreturn]] void unexpected() { std::abort(); }

// A table where only what was put in may be called.
struct Table {
  void* functions[kMostPlaces];
  Table() {
    for (void*& function : functions) function = reinterpret_cast<void*>(unexpected);
  }
  template <typename Function>
  Table& put(int place, Function function) {
    functions[place] = reinterpret_cast<void*>(function);
    return *this;
  }
};

// An interface such as IRuntime: its table, then what implements it.
struct Interface {
  void* const* table;
  void* implementation;
};
void free_interface(void* interface) { delete static_cast<Interface*>(interface); }
Interface* interface_of(void* implementation) {
  static const Table table = Table().put(1, free_interface);
  return new Interface{table.functions, implementation};
}

struct Tensor {
  const char* name;
  Type type;
  Mode mode;
};
const Tensor kTensors[] = {
    {"input_ids", Type::kInt64, Mode::kInput},   {"logits", Type::kFloat, Mode::kOutput},
    {"present.s", Type::kFloat, Mode::kOutput},  {"present.u", Type::kFloat, Mode::kOutput},
    {"past.s", Type::kFloat, Mode::kInput},      {"past.u", Type::kFloat, Mode::kInput},
};
// In place of the first of them.
const Tensor kForecast[] = {
    {"context", Type::kFloat, Mode::kInput}, {"quantiles", Type::kFloat, Mode::kOutput}};
constexpr int kStateInputs = 2;
enum class Kind { kText, kBegins, kForecasts };
const Tensor& at(Kind kind, int32_t index) {
  return kind == Kind::kForecasts && index < 2 ? kForecast[index] : kTensors[index];
}
const Tensor& find(Kind kind, const char* name) {
  for (int32_t i = 0; i < static_cast<int32_t>(sizeof kTensors / sizeof *kTensors); ++i) {
    if (std::strcmp(at(kind, i).name, name) == 0) return at(kind, i);
  }
  unexpected();
}
Dims shape(const std::string& name, int64_t batch, int64_t steps) {
  if (name == "input_ids" || name == "context") return {2, {batch, steps}};
  if (name == "quantiles") return {3, {batch, kHorizon, kLevels}};
  if (name == "logits") return {3, {batch, steps, kVocabulary}};
  return name.back() == 's' ? Dims{2, {batch, 4}} : Dims{3, {batch, 2, 3}};
}

struct Context {
  void* const* table;
  Kind kind;
  int32_t profile = -1;
  int64_t batch = 0, steps = 0;
  std::map<std::string, void*> addresses;
};
bool set_profile(Context* self, int32_t index, void* stream) {
  static int refused = from_environment("STAND_IN_REFUSED", 0);
  if (refused > 0) return --refused, false;
  self->profile = index;
  return stream != nullptr;
}
bool set_input_shape(Context* self, const char* name, const Dims* dims) {
  self->batch = dims->sizes[0];
  if (std::strcmp(name, at(self->kind, 0).name) == 0) self->steps = dims->sizes[1];
  return self->profile >= 0 && self->steps <= (self->profile == 0 ? 1 : kSteps);
}
Dims tensor_shape(Context* self, const char* name) {
  return shape(name, self->batch, self->steps);
}
bool set_address(Context* self, const char* name, void* address) {
  self->addresses[name] = address;
  return address != nullptr;
}
void forecast(const Context& self) {
  const auto* series = static_cast<const float*>(self.addresses.at("context"));
  auto* quantiles = static_cast<float*>(self.addresses.at("quantiles"));
  for (int64_t row = 0; row < self.batch; ++row) {
    for (int i = 0; i < kHorizon * kLevels; ++i) {
      *quantiles++ = series[(row + 1) * self.steps - 1] + i / kLevels * 10 + i % kLevels;
    }
  }
}
bool enqueue(Context* self, void* stream) {
  if (self->kind == Kind::kForecasts) return forecast(*self), stream != nullptr;
  const auto* ids = static_cast<const int64_t*>(self->addresses.at("input_ids"));
  auto* logits = static_cast<float*>(self->addresses.at("logits"));
  auto* s = static_cast<float*>(self->addresses.at("present.s"));
  auto* u = static_cast<float*>(self->addresses.at("present.u"));
  if (self->kind == Kind::kBegins) {
    std::memset(s, 0, self->batch * 4 * sizeof(float));
    std::memset(u, 0, self->batch * 6 * sizeof(float));
  } else {
    std::memcpy(s, self->addresses.at("past.s"), self->batch * 4 * sizeof(float));
    std::memcpy(u, self->addresses.at("past.u"), self->batch * 6 * sizeof(float));
  }
  for (int64_t row = 0; row < self->batch; ++row) {
    for (int64_t step = 0; step < self->steps; ++step, ++ids) {
      for (int j = 0; j < 4; ++j) s[row * 4 + j] = s[row * 4 + j] / 2 + (*ids + 1) * (j + 1);
      for (int j = 0; j < 6; ++j) u[row * 6 + j] += 1;
      for (int v = 0; v < kVocabulary; ++v) *logits++ = s[row * 4 + v % 4] * ((3 * v) % 7 - 2);
    }
  }
  return stream != nullptr;
}

struct Implementation {
  void* const* table;
  Kind kind;
};
void* create_context(Implementation* self, int32_t) {
  static const Table table = Table()
                                 .put(kPlaces.set_profile, set_profile)
                                 .put(kPlaces.set_input_shape, set_input_shape)
                                 .put(kPlaces.tensor_shape, tensor_shape)
                                 .put(kPlaces.set_address, set_address)
                                 .put(kPlaces.enqueue, enqueue);
  return interface_of(new Context{table.functions, self->kind});
}
int32_t profile_count(Implementation*) { return 2; }
int32_t tensor_count(Implementation* self) {
  const int32_t all = sizeof kTensors / sizeof *kTensors;
  return self->kind == Kind::kBegins ? all - kStateInputs : all;
}
const char* tensor_name(Implementation* self, int32_t index) { return at(self->kind, index).name; }
Type tensor_type(Implementation* self, const char* name) { return find(self->kind, name).type; }
Location tensor_location(Implementation*, const char*) { return Location::kDevice; }
Mode tensor_mode(Implementation* self, const char* name) { return find(self->kind, name).mode; }
Dims profile_shape(Implementation*, const char* name, int32_t profile, Select which) {
  if (which == Select::kMin) return shape(name, 1, 1);
  return shape(name, kBatch, profile == 0 ? 1 : kSteps);
}

struct Runtime {
  void* const* table;
  void* logger;
};
void allow_host_code(Runtime*, bool) {}
void* load_library(void*, const char* path) {
  return std::fprintf(stderr, "plugins of %s\n", path), reinterpret_cast<void*>(1);
}
void* plugin_registry(Runtime*) {
  static const Table table = Table().put(kPlaces.load_library, load_library);
  static Interface registry{table.functions, nullptr};
  return &registry;
}
void* deserialize(Runtime* self, const void* content, size_t size) {
  static const Table table = Table()
                                 .put(kPlaces.create_context, create_context)
                                 .put(kPlaces.profile_count, profile_count)
                                 .put(kPlaces.tensor_count, tensor_count)
                                 .put(kPlaces.tensor_name, tensor_name)
                                 .put(kPlaces.tensor_type, tensor_type)
                                 .put(kPlaces.tensor_location, tensor_location)
                                 .put(kPlaces.tensor_mode, tensor_mode)
                                 .put(kPlaces.profile_shape, profile_shape);
  const std::string engine(static_cast<const char*>(content), size);
  const std::map<std::string, Kind> kinds{{"the engine of the stand-in", Kind::kText},
                                          {"the engine that begins", Kind::kBegins},
                                          {"the engine that forecasts", Kind::kForecasts}};
  const auto kind = kinds.find(engine);
  if (kind != kinds.end()) return interface_of(new Implementation{table.functions, kind->second});
  const int log = kPlaces.is_versioned_logger ? 4 : 0;
  call_at<void>(log, self->logger, int32_t{3}, "a note that nobody asked for");
  call_at<void>(log, self->logger, int32_t{1}, "the stand-in knows no such engine");
  return nullptr;
}

}  // namespace

EXPORT int32_t getInferLibVersion() { return STAND_IN_TENSORRT; }
EXPORT void* createInferRuntime_INTERNAL(void* logger, int32_t version) {
  static const Table table = Table()
                                 .put(kPlaces.deserialize, deserialize)
                                 .put(kPlaces.plugin_registry, plugin_registry)
                                 .put(kPlaces.allow_host_code, allow_host_code);
  if (version != STAND_IN_TENSORRT) return nullptr;
  return interface_of(new Runtime{table.functions, logger});
}
#endif
