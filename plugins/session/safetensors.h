// Files of named tensors: eight bytes of the header's size, the header in JSON, the tensors.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tensor.h"

namespace xlstm::session {

struct Safetensors {
  std::vector<Output> tensors;
  std::map<std::string, std::string> metadata;

  // Null where there is none of that name.
  const Output* find(const std::string& name) const;
};

// Throws XLSTM_FILE_ERROR where the file cannot be read, is cut short or is none.
Safetensors read_safetensors(const std::string& path);

// Complete, or not there. Throws XLSTM_FILE_ERROR.
void write_safetensors(const std::string& path, const std::vector<Output>& tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace xlstm::session
