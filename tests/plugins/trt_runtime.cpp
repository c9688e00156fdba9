// A stand-in for the library of a TensorRT runtime: its version, its log and its registry, with the
// classes laid out as in TensorRT 10, whose headers these are, or with -DTENSORRT_11 as in TensorRT
// 11 and TensorRT-RTX. It prints what it is told.
//
// -DVERSION=101401 is TensorRT 10.14.1, 10701 is TensorRT-RTX 1.7.1.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <NvInferRuntime.h>

// TensorRT 10's registry has functions that are deprecated.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

namespace {

using namespace nvinfer1;

#ifdef TENSORRT_11
struct LoggerInterface : IVersionedInterface {
  InterfaceInfo getInterfaceInfo() const noexcept final { return {"ILogger", 1, 0}; }
  virtual void log(ILogger::Severity severity, const char* message) noexcept = 0;
};
struct FinderInterface : IVersionedInterface {
  InterfaceInfo getInterfaceInfo() const noexcept final { return {"ILoggerFinder", 1, 0}; }
  virtual LoggerInterface* findLogger() noexcept = 0;
};
struct Registry {
  virtual ~Registry() = default;
  virtual void setErrorRecorder(IErrorRecorder*) noexcept { std::abort(); }
  virtual IErrorRecorder* getErrorRecorder() const noexcept { std::abort(); }
  virtual bool isParentSearchEnabled() const { std::abort(); }
  virtual void setParentSearchEnabled(bool) { std::abort(); }
  virtual void* loadLibrary(const char* path) noexcept;
};
#else
using LoggerInterface = ILogger;
using FinderInterface = ILoggerFinder;
struct Registry : IPluginRegistry {
  bool registerCreator(IPluginCreator&, const char*) noexcept override { std::abort(); }
  IPluginCreator* const* getPluginCreatorList(int32_t*) const noexcept override { std::abort(); }
  IPluginCreator* getPluginCreator(const char*, const char*, const char*) noexcept override {
    std::abort();
  }
  void setErrorRecorder(IErrorRecorder*) noexcept override { std::abort(); }
  IErrorRecorder* getErrorRecorder() const noexcept override { std::abort(); }
  bool deregisterCreator(const IPluginCreator&) noexcept override { std::abort(); }
  bool isParentSearchEnabled() const override { std::abort(); }
  void setParentSearchEnabled(bool) override { std::abort(); }
  void* loadLibrary(const char* path) noexcept override;
  void deregisterLibrary(void*) noexcept override { std::abort(); }
  bool registerCreator(IPluginCreatorInterface&, const char*) noexcept override { std::abort(); }
  IPluginCreatorInterface* const* getAllCreators(int32_t*) const noexcept override { std::abort(); }
  IPluginCreatorInterface* getCreator(const char*, const char*, const char*) noexcept override {
    std::abort();
  }
  bool deregisterCreator(const IPluginCreatorInterface&) noexcept override { std::abort(); }
  IPluginResource* acquirePluginResource(const char*, IPluginResource*) noexcept override {
    std::abort();
  }
  int32_t releasePluginResource(const char*) noexcept override { std::abort(); }
  IPluginCreatorInterface* const* getAllCreatorsRecursive(int32_t*) noexcept override {
    std::abort();
  }
};
#endif

struct PrintingLogger final : LoggerInterface {
  void log(ILogger::Severity severity, const char* message) noexcept override {
    if (severity != ILogger::Severity::kERROR) std::abort();
    std::printf("log: %s\n", message);
  }
} logger;

struct Finder final : FinderInterface {
  LoggerInterface* findLogger() noexcept override { return &logger; }
} finder;

void* Registry::loadLibrary(const char* path) noexcept {
  std::printf("load: %s\n", path);
  std::fflush(stdout);
  return std::strstr(path, "refused") == nullptr ? this : nullptr;
}

Registry registry;

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))
EXPORT int32_t getInferLibVersion() noexcept { return VERSION; }
EXPORT nvinfer1::IPluginRegistry* getPluginRegistry() noexcept {
  return reinterpret_cast<nvinfer1::IPluginRegistry*>(&registry);
}
EXPORT void* logger_finder() noexcept { return &finder; }
