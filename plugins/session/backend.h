// Who computes: ONNX Runtime, or TensorRT with an engine.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "memory.h"
#include "states.h"

namespace xlstm::session {

// What a caller wants of outputs over time: all of them, or of one row the last step alone, where a
// backend saves by it.
enum class Wanted { kAll, kLastStep };

class Backend {
 public:
  virtual ~Backend() = default;
  // Runtime, version, device, precision; then who computes the operators.
  virtual std::string describe() const = 0;
  // Where states lie.
  virtual const std::shared_ptr<Pool>& pool() const = 0;
  // Steps a call at most, where a caller cuts a long input.
  virtual int64_t most_steps() const = 0;
  // Rows a call at most, where a caller has many.
  virtual int64_t most_rows() const = 0;
  // Outputs on the host for `feeds`, the prepared inputs of `ends`, in their order. `past` is null
  // where the graph takes no states; the states after are written to `present`.
  virtual std::vector<Output> run(const Ends& ends, const std::vector<Feed>& feeds,
                                  const States* past, const States& present,
                                  Wanted wanted) = 0;
};

}  // namespace xlstm::session
