#include "driver.h"

#include <mutex>

#include "../error.h"
#include "../library.h"

namespace xlstm::session::trt {
namespace {

// cuda.h, as far as it is called: the header is NVIDIA's, the library comes with the driver.
using Result = int;
using Address = unsigned long long;
constexpr Result kSuccess = 0, kOutOfMemory = 2, kNoDevice = 100, kInvalidDevice = 101;
constexpr int kMajor = 75, kMinor = 76;   // CUdevice_attribute
constexpr int kPointerMemoryType = 2;     // CUpointer_attribute
constexpr unsigned kStreamNonBlocking = 1;
constexpr int kMostName = 256;

const char* const kCure =
    "engines run on an NVIDIA GPU: install its driver, or run the bundle in ONNX Runtime (leave "
    "the engine out)";

struct Functions {
  Result (*init)(unsigned);
  Result (*device_get)(int*, int);
  Result (*device_count)(int*);
  Result (*device_name)(char*, int, int);
  Result (*device_attribute)(int*, int, int);
  Result (*context_retain)(void**, int);
  Result (*context_push)(void*);
  Result (*context_pop)(void**);
  Result (*stream_create)(void**, unsigned);
  Result (*stream_synchronize)(void*);
  Result (*stream_destroy)(void*);
  Result (*context_release)(int);
  Result (*allocate)(Address*, size_t);
  Result (*release)(Address);
  Result (*zero)(Address, unsigned char, size_t, void*);
  Result (*upload)(Address, const void*, size_t, void*);
  Result (*download)(void*, Address, size_t, void*);
  Result (*copy)(Address, Address, size_t, void*);
  Result (*pointer_attribute)(void*, int, Address);
  Result (*error_name)(Result, const char**);
};

template <typename Function>
void find(const Library& driver, const char* name, Function* function) {
  *function = driver.function<Function>(name);
  if (*function != nullptr) return;
  fail(XLSTM_BACKEND_ERROR, driver.path() + ": has no " + name + "; update the NVIDIA driver");
}

Functions load_driver() {
  const Library driver = Library::find("cuInit", {"libcuda.so.1"}, kCure);
  Functions found{};
  find(driver, "cuInit", &found.init);
  find(driver, "cuDeviceGet", &found.device_get);
  find(driver, "cuDeviceGetCount", &found.device_count);
  find(driver, "cuDeviceGetName", &found.device_name);
  find(driver, "cuDeviceGetAttribute", &found.device_attribute);
  find(driver, "cuDevicePrimaryCtxRetain", &found.context_retain);
  find(driver, "cuCtxPushCurrent_v2", &found.context_push);
  find(driver, "cuCtxPopCurrent_v2", &found.context_pop);
  find(driver, "cuStreamCreate", &found.stream_create);
  find(driver, "cuStreamSynchronize", &found.stream_synchronize);
  find(driver, "cuStreamDestroy_v2", &found.stream_destroy);
  find(driver, "cuDevicePrimaryCtxRelease_v2", &found.context_release);
  find(driver, "cuMemAlloc_v2", &found.allocate);
  find(driver, "cuMemFree_v2", &found.release);
  find(driver, "cuMemsetD8Async", &found.zero);
  find(driver, "cuMemcpyHtoDAsync_v2", &found.upload);
  find(driver, "cuMemcpyDtoHAsync_v2", &found.download);
  find(driver, "cuMemcpyDtoDAsync_v2", &found.copy);
  find(driver, "cuPointerGetAttribute", &found.pointer_attribute);
  find(driver, "cuGetErrorName", &found.error_name);
  return found;
}

Address address_of(const void* pointer) {
  return static_cast<Address>(reinterpret_cast<uintptr_t>(pointer));
}

class CudaGpu final : public Gpu {
 public:
  explicit CudaGpu(int index) : cuda_(load_driver()), index_(index) {
    const Result started = cuda_.init(0);
    int count = 0;
    if (started == kSuccess) check(cuda_.device_count(&count), "cuDeviceGetCount");
    const bool is_none = started == kNoDevice || started == kInvalidDevice;
    if (is_none || (started == kSuccess && index >= count)) {
      fail(XLSTM_BACKEND_ERROR, "GPU " + std::to_string(index) + " was asked for, and the driver " +
                                    "sees " + std::to_string(count) + ", numbered from 0: see " +
                                    "CUDA_VISIBLE_DEVICES and nvidia-smi");
    }
    check(started, "cuInit");
    check(cuda_.device_get(&device_, index), "cuDeviceGet");
    check(cuda_.context_retain(&context_, device_), "cuDevicePrimaryCtxRetain");
    try {
      const Current current(*this);
      // it waits for no other stream, nor do they for it: all that a session does is on it
      check(cuda_.stream_create(&stream_, kStreamNonBlocking), "cuStreamCreate");
    } catch (...) {
      cuda_.context_release(device_);
      throw;
    }
  }

  ~CudaGpu() override {
    if (cuda_.context_push(context_) == kSuccess) {
      cuda_.stream_destroy(stream_);
      leave();
    }
    cuda_.context_release(device_);
  }

  void enter() override { check(cuda_.context_push(context_), "cuCtxPushCurrent"); }
  void leave() noexcept override {
    void* left = nullptr;
    cuda_.context_pop(&left);
  }
  void* stream() const override { return stream_; }
  bool is_host() const override { return false; }

  std::string name() const override {
    char name[kMostName] = {};
    check(cuda_.device_name(name, kMostName - 1, device_), "cuDeviceGetName");
    return name;
  }

  std::string compute_capability() const override {
    int major = 0, minor = 0;
    check(cuda_.device_attribute(&major, kMajor, device_), "cuDeviceGetAttribute");
    check(cuda_.device_attribute(&minor, kMinor, device_), "cuDeviceGetAttribute");
    return std::to_string(major) + "." + std::to_string(minor);
  }

  void* allocate(size_t bytes) override {
    const Current current(*this);
    Address address = 0;
    const Result result = cuda_.allocate(&address, bytes);
    if (result == kOutOfMemory) {
      fail(XLSTM_OUT_OF_MEMORY, "GPU " + std::to_string(index_) + ": no memory for " +
                                    std::to_string(bytes) +
                                    " bytes; use a smaller batch or shorter pieces");
    }
    check(result, "cuMemAlloc");
    return reinterpret_cast<void*>(static_cast<uintptr_t>(address));
  }

  void release(void* address) noexcept override {
    if (cuda_.context_push(context_) != kSuccess) return;  // the driver is gone
    cuda_.stream_synchronize(stream_);  // what was asked for may still use it
    cuda_.release(address_of(address));
    leave();
  }

  void zero(void* to, size_t bytes) override {
    const Current current(*this);
    check(cuda_.zero(address_of(to), 0, bytes, stream_), "cuMemsetD8Async");
  }

  void copy(void* to, const void* from, size_t bytes) override {
    const Current current(*this);
    check(cuda_.copy(address_of(to), address_of(from), bytes, stream_), "cuMemcpyDtoDAsync");
  }

  void upload(void* to, const void* from, size_t bytes) override {
    if (bytes == 0) return;
    const Current current(*this);
    check(cuda_.upload(address_of(to), from, bytes, stream_), "cuMemcpyHtoDAsync");
    unsigned kind = 0;
    // pageable memory has been read on return; pinned memory is read while the stream runs
    if (cuda_.pointer_attribute(&kind, kPointerMemoryType, address_of(from)) == kSuccess) {
      check(cuda_.stream_synchronize(stream_), "cuStreamSynchronize");
    }
  }

  void download(void* to, const void* from, size_t bytes) override {
    const Current current(*this);
    if (bytes > 0) {
      check(cuda_.download(to, address_of(from), bytes, stream_), "cuMemcpyDtoHAsync");
    }
    check(cuda_.stream_synchronize(stream_), "cuStreamSynchronize");
  }

 private:
  void check(Result result, const char* function) const {
    if (result == kSuccess) return;
    const char* name = nullptr;
    if (cuda_.error_name(result, &name) != kSuccess || name == nullptr) name = "CUDA error";
    fail(XLSTM_BACKEND_ERROR, "GPU " + std::to_string(index_) + ": " + function +
                                  " failed with " + name + " (" + std::to_string(result) + ")");
  }

  Functions cuda_;
  int index_;
  int device_ = 0;
  void* context_ = nullptr;
  void* stream_ = nullptr;
};

}  // namespace

std::unique_ptr<Gpu> open_gpu(int index) { return std::make_unique<CudaGpu>(index); }

}  // namespace xlstm::session::trt
