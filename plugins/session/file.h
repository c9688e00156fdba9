// Whole files, read at once and written at once.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace xlstm::session {

// Throws XLSTM_FILE_ERROR where the file cannot be read.
std::string read_file(const std::filesystem::path& path);

struct Piece {
  const void* data;
  size_t bytes;
};

// The pieces one after another, under a temporary name beside `path` that is renamed at the end:
// what `path` was before stays where anything fails. Throws XLSTM_FILE_ERROR.
void write_file(const std::filesystem::path& path, const std::vector<Piece>& pieces);

}  // namespace xlstm::session
