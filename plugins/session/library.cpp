#include "library.h"

#include <dlfcn.h>

#include "error.h"
#include "file.h"

namespace xlstm::session {
namespace {

std::string own_folder() {
  Dl_info here{};
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &here) == 0) return {};
  const std::string path = absolute(here.dli_fname);
  return path.substr(0, path.rfind('/'));
}

void check_version(const Library& library) {
  const auto version = library.function<const char* (*)()>("xlstm_version");
  const std::string cure = "; take all libraries of one build";
  if (version == nullptr) {
    fail(XLSTM_BACKEND_ERROR, library.path() + ": no library of xlstm-export" + cure);
  }
  if (std::string(version()) == XLSTM_VERSION) return;
  fail(XLSTM_BACKEND_ERROR, library.path() + ": version " + version() +
                                ", where libxlstm_session is " XLSTM_VERSION + cure);
}

}  // namespace

Library::Library(const std::string& path, const std::string& cure)
    : path_(path), handle_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
  if (handle_ != nullptr) return;
  const char* reason = dlerror();
  fail(XLSTM_BACKEND_ERROR, path + ": cannot be loaded (" +
                                (reason == nullptr ? "no reason given" : reason) + "); " + cure);
}

Library Library::find(const char* mark, const std::vector<std::string>& names,
                      const std::string& cure,
                      const std::function<bool(const Library&)>& fits) {
  const Library process("this program", RTLD_DEFAULT);
  if (process.symbol(mark) != nullptr && fits(process)) return process;
  std::string tried;
  for (const std::string& name : names) {
    if (void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return {name, handle};
    tried += (tried.empty() ? "" : ", ") + name;
  }
  fail(XLSTM_BACKEND_ERROR, "none of " + tried + " is found; " + cure);
}

void* Library::symbol(const char* name) const { return dlsym(handle_, name); }

std::optional<Library> own_library(const char* given, const std::string& name) {
  if (given != nullptr && *given == '\0') return std::nullopt;
  const std::string path = given == nullptr ? join(own_folder(), name) : given;
  if (!is_file(path)) {
    if (given == nullptr) return std::nullopt;
    fail(XLSTM_BACKEND_ERROR, path + ": no such library; \"\" does without one");
  }
  const Library library(absolute(path), "it is of another kind of machine, or none");
  check_version(library);
  return library;
}

}  // namespace xlstm::session
