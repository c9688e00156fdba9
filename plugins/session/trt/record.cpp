#include "record.h"

#include <algorithm>

#include "../error.h"
#include "../file.h"
#include "../json.h"

namespace xlstm::session::trt {
namespace {

namespace fs = std::filesystem;

constexpr char kFolder[] = "engines", kSuffix[] = ".engine";
constexpr int64_t kFormatVersion = 1;

bool is_engine(const fs::path& path) {
  std::error_code ignored;
  return path.extension() == kSuffix && fs::is_regular_file(path, ignored);
}

EngineRecord read(const Json& root) {
  EngineRecord record;
  record.backend = root.at("backend").get<std::string>();
  record.builder_version = root.at("builder_version").get<std::string>();
  record.bundle_sha256 = root.at("bundle_sha256").get<std::string>();
  record.compute_capability = root.at("compute_capability").get<std::vector<std::string>>();
  for (const Json& plugin : root.at("plugins")) {
    record.op_types.push_back(plugin.at("op_type").get<std::string>());
  }
  const Json& library = root.at("plugin_library");
  record.library = library.at("name").get<std::string>();
  record.library_version = library.at("version").get<std::string>();
  record.is_embedded = library.at("embedded").get<bool>();
  return record;
}

}  // namespace

fs::path find_engine(const fs::path& bundle, const std::string& engine) {
  const fs::path folder = bundle / kFolder;
  for (const fs::path& path : {fs::path(engine), folder / engine, folder / (engine + kSuffix)}) {
    if (is_engine(path)) return path;
  }
  std::vector<std::string> names;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    if (is_engine(entry.path())) names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  std::string there;
  for (const std::string& name : names) there += (there.empty() ? "there are " : ", ") + name;
  if (there.empty()) there = "make one: xlstm-export build " + bundle.string();
  fail(XLSTM_ENGINE_ERROR, engine + ": no engine of " + bundle.string() + "; " + there);
}

EngineRecord read_record(const fs::path& engine) {
  const std::string path = fs::path(engine).replace_extension(".json").string();
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) {
    fail(XLSTM_ENGINE_ERROR, path + ": no such file; make it with: xlstm-export build");
  }
  try {
    const Json root = Json::parse(read_file(path));
    const int64_t version = root.at("format_version").get<int64_t>();
    if (version > kFormatVersion) {
      fail(XLSTM_ENGINE_ERROR, path + ": format_version " + std::to_string(version) +
                                   " is newer than " + std::to_string(kFormatVersion) +
                                   ", the newest this version reads; upgrade libxlstm_session");
    }
    return read(root);
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    fail(XLSTM_ENGINE_ERROR, path + ": damaged engine record (" + error.what() + "); build again");
  }
}

}  // namespace xlstm::session::trt
