// What lies beside an engine: its JSON, which says what it was built for and by what.
#pragma once

#include <string>
#include <vector>

namespace xlstm::session::trt {

struct EngineRecord {
  std::string backend, builder_version, bundle_sha256;
  std::vector<std::string> compute_capability;  // such as 8.9; empty: the builder's default set
  std::vector<std::string> op_types;            // of the recurrences, each computed by a plugin
  std::string library, library_version;         // the plugins'
  bool is_embedded = false;                     // the engine carries them
};

// The engine that `engine` names: a file, or a target in the bundle's folder of engines. Throws
// XLSTM_ENGINE_ERROR that lists those there are.
std::string find_engine(const std::string& bundle, const std::string& engine);

// Where the engine of the calls that go on lies, `engine` being that of those that begin.
std::string continued_engine(const std::string& engine);

// Throws XLSTM_ENGINE_ERROR where it is missing, damaged, or of a newer format.
EngineRecord read_record(const std::string& engine);

}  // namespace xlstm::session::trt
