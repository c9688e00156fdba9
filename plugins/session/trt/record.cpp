#include "record.h"

#include "../error.h"
#include "../file.h"
#include "../json.h"

namespace xlstm::session::trt {
namespace {

constexpr char kFolder[] = "engines", kSuffix[] = ".engine", kContinue[] = "continue";
constexpr int64_t kFormatVersion = 1;

bool is_engine(const std::string& path) {
  const size_t size = path.size(), suffix = sizeof kSuffix - 1;
  return size > suffix && path.compare(size - suffix, suffix, kSuffix) == 0 && is_file(path);
}

// Without the suffix that is_engine has found.
std::string stem(const std::string& engine) {
  return engine.substr(0, engine.size() - (sizeof kSuffix - 1));
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

std::string find_engine(const std::string& bundle, const std::string& engine) {
  const std::string folder = join(bundle, kFolder);
  for (const std::string& path : {engine, join(folder, engine), join(folder, engine + kSuffix)}) {
    if (is_engine(path)) return path;
  }
  std::string there;
  for (const std::string& name : list(folder)) {
    if (!is_engine(join(folder, name))) continue;
    there += (there.empty() ? "there are " : ", ") + stem(name);
  }
  if (there.empty()) there = "make one: xlstm-export build " + bundle;
  fail(XLSTM_ENGINE_ERROR, engine + ": no engine of " + bundle + "; " + there);
}

std::string continued_engine(const std::string& engine) {
  const size_t slash = engine.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : engine.substr(0, slash);
  const std::string name = slash == std::string::npos ? engine : engine.substr(slash + 1);
  return join(join(folder, kContinue), name);
}

EngineRecord read_record(const std::string& engine) {
  const std::string path = stem(engine) + ".json";
  if (!is_file(path)) {
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
