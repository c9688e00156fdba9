// xlstm_export.json: what a bundle takes, gives and carries.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tensor.h"

namespace xlstm::session {

inline constexpr char kManifestFile[] = "xlstm_export.json";
inline constexpr char kModelFile[] = "model.onnx";
inline constexpr char kDataFile[] = "model.onnx.data";
inline constexpr char kLengths[] = "sequence_lengths";

// A dimension: a size, or a name (and size -1) where it is free.
struct Dim {
  int64_t size;
  std::string name;
};

struct TensorInfo {
  std::string name;
  const DType* dtype;
  std::vector<Dim> shape;
};

std::string shape_text(const std::vector<Dim>& dims);

// One carried tensor: the input it enters by, the output it leaves by. Its shape begins with the
// batch; `row` is the rest. It starts as zeros.
struct StateInfo {
  std::string key, input, output;
  const DType* dtype;
  Shape row;
  size_t row_bytes;
};

// What calls of one graph take and give, states left out.
struct Ends {
  std::string file;
  std::vector<TensorInfo> inputs, outputs;
};

// Of matrices in 8 or 4 bits.
struct LowBit {
  int64_t bits;
  bool has_eight;     // some take 8 bits where the others take 4
  bool matmul_nbits;  // products are com.microsoft::MatMulNBits
};

// All in steps of the series, but the levels of the quantiles.
struct ForecastInfo {
  std::vector<double> levels;
  int64_t context, patch, horizon;
};

struct Manifest {
  std::string family, dtype, sha256;
  int64_t data_bytes = 0;
  bool is_ragged = false;
  Ends begin;
  // Where a call that begins takes no states: the graph of those that go on.
  std::optional<Ends> continuation;
  std::vector<StateInfo> states;
  std::vector<std::string> runs_on;
  std::optional<ForecastInfo> forecast;
  std::optional<LowBit> low_bit;

  bool takes_states() const { return !continuation; }
  const Ends& continued() const { return continuation ? *continuation : begin; }
  // Whether ids become logits, a row for each.
  bool is_language_model() const;
  // Ids that a language model knows; 0 where it is not known, as of one's own network.
  int64_t vocabulary() const;
};

// Throws XLSTM_BUNDLE_ERROR where it is missing, damaged or of a newer format.
std::shared_ptr<const Manifest> read_manifest(const std::string& bundle);

// The ids that end a text, of generation_config.json, else of config.json; empty where none say.
std::vector<int64_t> read_stop_ids(const std::string& bundle);

}  // namespace xlstm::session
