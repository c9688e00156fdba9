// What stands behind the handles of xlstm_session.h, and how errors become statuses.
#pragma once

#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "../error.h"
#include "../model.h"

struct xlstm_session {
  xlstm_session(const char* bundle, const xlstm::session::Options& options)
      : model(bundle, options) {}

  xlstm::session::Model model;
};

struct xlstm_states {
  xlstm::session::States states;
};

struct xlstm_outputs {
  std::vector<xlstm::session::Output> tensors;
};

namespace xlstm::session {

// Keeps the message for xlstm_session_error and returns `status`.
int32_t keep_error(xlstm_session_status status, const char* message) noexcept;

// The status of what `body` does; it throws where it fails.
template <typename Body>
int32_t guarded(Body body) noexcept {
  try {
    body();
    return XLSTM_OK;
  } catch (const Error& error) {
    return keep_error(error.status(), error.what());
  } catch (const std::bad_alloc&) {
    return keep_error(XLSTM_OUT_OF_MEMORY, "out of memory");
  } catch (const std::length_error&) {  // more than a container can ever hold
    return keep_error(XLSTM_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return keep_error(XLSTM_INTERNAL_ERROR, error.what());
  } catch (...) {
    return keep_error(XLSTM_INTERNAL_ERROR, "an error that says nothing of itself");
  }
}

// Throws XLSTM_INPUT_ERROR where a pointer that must be given is null.
inline void demand(const void* pointer, const char* name) {
  if (pointer == nullptr) fail(XLSTM_INPUT_ERROR, std::string(name) + ": is null");
}

// The caller owns it.
inline xlstm_states* hand_out(States states) { return new xlstm_states{std::move(states)}; }

}  // namespace xlstm::session
