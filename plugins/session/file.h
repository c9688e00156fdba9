// Paths, and whole files, read at once and written at once. Not by <filesystem>, which would ask
// for a newer libstdc++ than the systems have that a wheel is to load on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace xlstm::session {

std::string join(const std::string& folder, const std::string& name);
// Whether it is there and a folder, a file; its bytes, or -1 where it is no file that is there.
// Throw XLSTM_FILE_ERROR where the system does not tell.
bool is_folder(const std::string& path);
bool is_file(const std::string& path);
int64_t file_size(const std::string& path);
// Without links; the path itself where it leads nowhere.
std::string absolute(const std::string& path);
// Names in a folder, sorted; none where it is not there.
std::vector<std::string> list(const std::string& folder);

// Throws XLSTM_FILE_ERROR where the file cannot be read.
std::string read_file(const std::string& path);

struct Piece {
  const void* data;
  size_t bytes;
};

// The pieces one after another, under a temporary name beside `path` that is renamed at the end:
// what `path` was before stays where anything fails. Throws XLSTM_FILE_ERROR.
void write_file(const std::string& path, const std::vector<Piece>& pieces);

}  // namespace xlstm::session
