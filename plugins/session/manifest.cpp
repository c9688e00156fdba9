#include "manifest.h"

#include <algorithm>

#include "error.h"
#include "file.h"
#include "json.h"

namespace xlstm::session {
namespace {

constexpr int64_t kFormatVersion = 1;
constexpr int64_t kMostSize = INT32_MAX;
constexpr char kModuleFamily[] = "module";  // of export_module

[[noreturn]] void damaged(const std::string& what) { throw std::runtime_error(what); }

const DType* read_dtype(const Json& entry, const std::string& name) {
  const std::string word = entry.at("dtype").get<std::string>();
  const DType* dtype = find_dtype(word);
  if (dtype == nullptr) damaged(name + ": dtype " + word);
  return dtype;
}

Dim read_dim(const Json& value, const std::string& name) {
  if (value.is_string()) return {-1, value.get<std::string>()};
  if (!value.is_number_integer() || value.get<int64_t>() < 0) damaged(name + ": a size is no size");
  return {value.get<int64_t>(), ""};
}

std::vector<TensorInfo> read_tensors(const Json& entries) {
  std::vector<TensorInfo> tensors;
  for (const Json& entry : entries) {
    const std::string name = entry.at("name").get<std::string>();
    TensorInfo tensor{name, read_dtype(entry, name), {}};
    for (const Json& dim : entry.at("shape")) tensor.shape.push_back(read_dim(dim, name));
    if (tensor.shape.empty()) damaged(name + ": no shape");
    tensors.push_back(std::move(tensor));
  }
  if (tensors.empty()) damaged("no inputs or no outputs");
  return tensors;
}

StateInfo read_state(const Json& entry) {
  StateInfo state;
  state.key = entry.at("key").get<std::string>();
  state.input = entry.at("input").get<std::string>();
  state.output = entry.at("output").get<std::string>();
  state.dtype = read_dtype(entry, state.key);
  const std::string init = entry.at("init").get<std::string>();
  if (init != "zeros") {
    fail(XLSTM_BUNDLE_ERROR, "state " + state.key + " starts as '" + init +
                                 "', which this version does not know; upgrade libxlstm_session");
  }
  const Json& shape = entry.at("shape");
  if (!shape.is_array() || shape.size() < 2 || !shape[0].is_string()) {
    damaged(state.key + ": its shape is not [batch, ...]");
  }
  int64_t size = 1;
  for (size_t i = 1; i < shape.size(); ++i) {
    const int64_t dim = read_dim(shape[i], state.key).size;
    if (dim < 1 || dim > kMostSize || size > kMostSize / dim) damaged(state.key + ": its shape");
    state.row.push_back(dim);
    size *= dim;
  }
  state.row_bytes = static_cast<size_t>(size) * state.dtype->bytes;
  return state;
}

ForecastInfo read_forecast(const Json& entry) {
  ForecastInfo info{entry.at("levels").get<std::vector<double>>(),
                    entry.at("context").get<int64_t>(), entry.at("patch").get<int64_t>(),
                    entry.at("horizon").get<int64_t>()};
  const auto [least, most] = std::minmax({info.context, info.patch, info.horizon});
  if (info.levels.empty() || least < 1 || most > kMostSize) {
    damaged("forecast: no levels, or a length that is none");
  }
  return info;
}

LowBit read_low_bit(const Json& entry) {
  const auto eight = entry.value("eight", std::vector<std::string>());
  return {entry.at("bits").get<int64_t>(), !eight.empty(), entry.value("matmul_nbits", false)};
}

bool has(const Json& root, const char* key) {
  const auto found = root.find(key);
  return found != root.end() && !found->is_null();
}

Manifest read(const Json& root) {
  Manifest manifest;
  manifest.family = root.at("family").get<std::string>();
  manifest.dtype = root.at("dtype").get<std::string>();
  manifest.sha256 = root.value("sha256", "");
  manifest.data_bytes = root.value("data_bytes", int64_t{0});
  manifest.is_ragged = root.value("ragged", false);
  manifest.begin = {kModelFile, read_tensors(root.at("inputs")), read_tensors(root.at("outputs"))};
  if (has(root, "continuation")) {
    const Json& entry = root["continuation"];
    manifest.continuation = {entry.at("file").get<std::string>(), read_tensors(entry.at("inputs")),
                             read_tensors(entry.at("outputs"))};
    const std::string& file = manifest.continuation->file;
    if (file.empty() || file.find('/') != std::string::npos) damaged("continuation: file " + file);
  }
  for (const Json& entry : root.at("states")) manifest.states.push_back(read_state(entry));
  manifest.runs_on = root.at("runs_on").get<std::vector<std::string>>();
  if (has(root, "forecast")) manifest.forecast = read_forecast(root["forecast"]);
  if (has(root, "low_bit")) manifest.low_bit = read_low_bit(root["low_bit"]);
  const auto& inputs = manifest.begin.inputs;
  const bool has_lengths = std::any_of(inputs.begin(), inputs.end(), [](const TensorInfo& tensor) {
    return tensor.name == kLengths;
  });
  if (has_lengths != manifest.is_ragged) {
    damaged("ragged and the input sequence_lengths do not go together");
  }
  return manifest;
}

void check_format(const Json& root, const std::string& path) {
  const int64_t version = root.at("format_version").get<int64_t>();
  if (version <= kFormatVersion) return;
  fail(XLSTM_BUNDLE_ERROR, path + ": format_version " + std::to_string(version) +
                               " is newer than " + std::to_string(kFormatVersion) +
                               ", the newest this version reads; upgrade libxlstm_session");
}

}  // namespace

std::string shape_text(const std::vector<Dim>& dims) {
  std::vector<std::string> words;
  for (const Dim& dim : dims) words.push_back(dim.size < 0 ? dim.name : std::to_string(dim.size));
  return shape_text(words);
}

bool Manifest::is_language_model() const {
  const TensorInfo& output = begin.outputs[0];
  return begin.inputs[0].name == "input_ids" && output.name == "logits" && output.shape.size() == 3;
}

int64_t Manifest::vocabulary() const {
  const int64_t size = begin.outputs[0].shape.back().size;
  return is_language_model() && family != kModuleFamily && size > 0 ? size : 0;
}

std::shared_ptr<const Manifest> read_manifest(const std::string& bundle) {
  const std::string path = join(bundle, kManifestFile);
  if (!is_folder(bundle)) {
    fail(XLSTM_BUNDLE_ERROR,
         bundle + ": no such folder; make a bundle with: xlstm-export export");
  }
  if (!is_file(path)) {
    fail(XLSTM_BUNDLE_ERROR, bundle + ": no " + kManifestFile +
                                 ", so it is not an xlstm-export bundle");
  }
  try {
    const Json root = Json::parse(read_file(path));
    check_format(root, path);
    return std::make_shared<Manifest>(read(root));
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    fail(XLSTM_BUNDLE_ERROR, path + ": damaged manifest (" + error.what() + "); export again");
  }
}

std::vector<int64_t> read_stop_ids(const std::string& bundle) {
  for (const char* name : {"generation_config.json", "config.json"}) {
    const std::string path = join(bundle, name);
    if (!is_file(path)) continue;
    const Json root = Json::parse(read_file(path), nullptr, false);
    if (root.is_discarded()) {
      fail(XLSTM_BUNDLE_ERROR, path + ": not readable as JSON");
    }
    if (!root.is_object() || !has(root, "eos_token_id")) continue;
    const Json& eos = root["eos_token_id"];
    if (eos.is_number_integer()) return {eos.get<int64_t>()};
    const auto is_id = [](const Json& id) { return id.is_number_integer(); };
    if (eos.is_array() && !eos.empty() && std::all_of(eos.begin(), eos.end(), is_id)) {
      return eos.get<std::vector<int64_t>>();
    }
  }
  return {};
}

}  // namespace xlstm::session
