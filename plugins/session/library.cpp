#include "library.h"

#include <dlfcn.h>

#include "error.h"

namespace xlstm::session {
namespace {

namespace fs = std::filesystem;

fs::path own_folder() {
  Dl_info here{};
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &here) == 0) return {};
  std::error_code ignored;
  return fs::weakly_canonical(here.dli_fname, ignored).parent_path();
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
                      const std::string& cure) {
  if (dlsym(RTLD_DEFAULT, mark) != nullptr) return {"this program", RTLD_DEFAULT};
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
  fs::path path = given == nullptr ? own_folder() / name : fs::path(given);
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) {
    if (given == nullptr) return std::nullopt;
    fail(XLSTM_BACKEND_ERROR, path.string() + ": no such library; \"\" does without one");
  }
  const Library library(fs::absolute(path).string(), "it is of another kind of machine, or none");
  check_version(library);
  return library;
}

}  // namespace xlstm::session
