#include "safetensors.h"

#include <cstring>

#include "error.h"
#include "file.h"
#include "json.h"

namespace xlstm::session {
namespace {

constexpr size_t kSizeBytes = 8;  // of the header, little-endian, as every processor here is
constexpr size_t kAlignment = 8;  // of the first tensor

size_t bytes_of(const Output& tensor) {
  return static_cast<size_t>(elements(tensor.shape)) * tensor.dtype->bytes;
}

Output read_entry(const std::string& name, const Json& entry, const std::string& content,
                  size_t begin) {
  const DType* dtype = find_safetensors_dtype(entry.at("dtype").get<std::string>());
  Output tensor{name, dtype, {}, nullptr, nullptr};
  if (tensor.dtype == nullptr) throw std::runtime_error(name + ": its type");
  size_t count = 1;
  for (const Json& dim : entry.at("shape")) {
    if (!dim.is_number_unsigned()) throw std::runtime_error(name + ": its shape");
    tensor.shape.push_back(dim.get<int64_t>());
    if (__builtin_mul_overflow(count, dim.get<size_t>(), &count)) count = SIZE_MAX / 16;
  }
  const Json& offsets = entry.at("data_offsets");
  const size_t from = offsets.at(0).get<size_t>(), to = offsets.at(1).get<size_t>();
  if (from > to || to > content.size() - begin || to - from != count * tensor.dtype->bytes) {
    throw std::runtime_error(name + ": it is not whole");
  }
  tensor.data = content.data() + begin + from;
  return tensor;
}

Safetensors parse(const std::shared_ptr<const std::string>& content) {
  uint64_t size = 0;
  if (content->size() < kSizeBytes) throw std::runtime_error("no header");
  std::memcpy(&size, content->data(), kSizeBytes);
  if (size > content->size() - kSizeBytes) throw std::runtime_error("its header is not whole");
  const size_t begin = kSizeBytes + static_cast<size_t>(size);
  const Json header = Json::parse(content->begin() + kSizeBytes, content->begin() + begin);
  Safetensors file;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      file.metadata = entry.get<std::map<std::string, std::string>>();
      continue;
    }
    file.tensors.push_back(read_entry(name, entry, *content, begin));
    file.tensors.back().owner = std::const_pointer_cast<std::string>(content);
  }
  return file;
}

}  // namespace

const Output* Safetensors::find(const std::string& name) const {
  for (const Output& tensor : tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

Safetensors read_safetensors(const std::string& path) {
  const auto content = std::make_shared<const std::string>(read_file(path));
  try {
    return parse(content);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    fail(XLSTM_FILE_ERROR,
         path + ": not a readable safetensors file (" + error.what() + ")");
  }
}

void write_safetensors(const std::string& path, const std::vector<Output>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  header["__metadata__"] = metadata;
  std::vector<Piece> pieces(2);
  size_t offset = 0;
  for (const Output& tensor : tensors) {
    const size_t bytes = bytes_of(tensor);
    header[tensor.name] = {{"dtype", tensor.dtype->safetensors},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + bytes}}};
    pieces.push_back({tensor.data, bytes});
    offset += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  const uint64_t size = text.size();
  pieces[0] = {&size, kSizeBytes};
  pieces[1] = {text.data(), text.size()};
  write_file(path, pieces);
}

}  // namespace xlstm::session
