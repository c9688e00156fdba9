// What goes wrong, as one exception; its message names the file, tensor or option, and the cure.
#pragma once

#include <stdexcept>
#include <string>

#include "xlstm_session.h"

namespace xlstm::session {

class Error : public std::runtime_error {
 public:
  Error(xlstm_session_status status, const std::string& message)
      : std::runtime_error(message), status_(status) {}

  xlstm_session_status status() const { return status_; }

 private:
  xlstm_session_status status_;
};

[[noreturn]] inline void fail(xlstm_session_status status, const std::string& message) {
  throw Error(status, message);
}

}  // namespace xlstm::session
