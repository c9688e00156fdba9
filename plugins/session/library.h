// Shared libraries that are loaded when they are needed, and where this one lies.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace xlstm::session {

// A library of the process. It is never unloaded: runtimes leave threads and handlers behind.
class Library {
 public:
  // The file `path`; a name without a folder is one that the loader looks for. Throws
  // XLSTM_BACKEND_ERROR with its reason and `cure`.
  Library(const std::string& path, const std::string& cure);
  // The one the process has with the symbol `mark`, if it `fits`, else the first of `names` that
  // the loader finds. Throws XLSTM_BACKEND_ERROR with `cure`.
  static Library find(
      const char* mark, const std::vector<std::string>& names, const std::string& cure,
      const std::function<bool(const Library&)>& fits = [](const Library&) { return true; });

  // As it was asked for.
  const std::string& path() const { return path_; }
  // Null where it has none of that name.
  void* symbol(const char* name) const;
  template <typename Function>
  Function function(const char* name) const {
    return reinterpret_cast<Function>(symbol(name));
  }

 private:
  Library(std::string path, void* handle) : path_(std::move(path)), handle_(handle) {}

  std::string path_;
  void* handle_;
};

// A library of this package: as `given`, or where nothing was given the one of `name` beside this
// library. Nothing where none is there, or "" was given. Throws XLSTM_BACKEND_ERROR where what was
// given cannot be loaded or is of another version.
std::optional<Library> own_library(const char* given, const std::string& name);

}  // namespace xlstm::session
