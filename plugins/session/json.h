// JSON by nlohmann/json, without its streams.
#pragma once

#define JSON_NO_IO 1
#include <nlohmann/json.hpp>

namespace xlstm::session {

using Json = nlohmann::json;

}  // namespace xlstm::session
