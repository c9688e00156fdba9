// Bundles of xlstm-export in a C++ program: xlstm_session.h with owners, containers and exceptions.
//
//   xlstm::Session session("out/char_lm");
//   session.generate({3, 1, 4}, options, [](int64_t token) { ...; return true; });
//
// Headers only (C++17): the program's compiler and standard library need not be the library's.
// Every function throws xlstm::Error, whose message names the file, tensor or option, and the cure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "xlstm_session.h"

namespace xlstm {

class Error : public std::runtime_error {
 public:
  Error(xlstm_session_status status, const std::string& message)
      : std::runtime_error(message), status_(status) {}
  // Which kind of thing is wrong.
  xlstm_session_status status() const { return status_; }

 private:
  xlstm_session_status status_;
};

namespace detail {

inline void check(int32_t status) {
  if (status == XLSTM_OK) return;
  throw Error(static_cast<xlstm_session_status>(status), xlstm_session_error());
}

// What `handle` owns. Throws where it was moved from.
template <typename Handle>
auto* owned(const Handle& handle, const char* name) {
  if (handle == nullptr) {
    throw Error(XLSTM_INPUT_ERROR, std::string(name) + ": used after it was moved from");
  }
  return handle.get();
}

template <auto release>
struct Release {
  template <typename Handle>
  void operator()(Handle* handle) const {
    release(handle);
  }
};

template <typename Element>
constexpr xlstm_dtype dtype_of() {
  if constexpr (std::is_same_v<Element, float>) return XLSTM_FLOAT32;
  if constexpr (std::is_same_v<Element, int32_t>) return XLSTM_INT32;
  if constexpr (std::is_same_v<Element, int64_t>) return XLSTM_INT64;
}

}  // namespace detail

// A dense tensor in memory that someone else owns.
struct Tensor {
  std::string name;
  xlstm_dtype dtype = XLSTM_FLOAT32;
  std::vector<int64_t> shape;  // -1 where a size is free, of an input or output as it is described
  const void* data = nullptr;

  Tensor() = default;
  // What to feed: float, int32_t or int64_t, which is not copied.
  template <typename Element>
  Tensor(std::string name, const Element* data, std::vector<int64_t> shape)
      : name(std::move(name)),
        dtype(detail::dtype_of<Element>()),
        shape(std::move(shape)),
        data(data) {}
  explicit Tensor(const xlstm_tensor& c)
      : name(c.name),
        dtype(static_cast<xlstm_dtype>(c.dtype)),
        shape(c.shape, c.shape + c.rank),
        data(c.data) {}

  // Its elements. Throws where they are of another type.
  template <typename Element>
  const Element* as() const {
    if (dtype != detail::dtype_of<Element>()) {
      throw Error(XLSTM_INPUT_ERROR, name + ": holds elements of another type");
    }
    return static_cast<const Element*>(data);
  }
  int64_t size() const {
    int64_t count = 1;
    for (const int64_t dim : shape) count *= dim;
    return count;
  }
};

// Tensors that a call gave, with their memory.
class Outputs {
 public:
  explicit Outputs(xlstm_outputs* taken) : handle_(taken) {}

  size_t size() const { return xlstm_outputs_count(get()); }
  Tensor operator[](size_t index) const {
    xlstm_tensor tensor;
    detail::check(xlstm_outputs_tensor(get(), index, &tensor));
    return Tensor(tensor);
  }
  // The one of that name.
  Tensor at(const std::string& name) const {
    for (size_t i = 0; i < size(); ++i) {
      if (Tensor tensor = (*this)[i]; tensor.name == name) return tensor;
    }
    throw Error(XLSTM_INPUT_ERROR, name + ": no output of this bundle");
  }

 private:
  const xlstm_outputs* get() const { return detail::owned(handle_, "outputs"); }

  std::unique_ptr<xlstm_outputs, detail::Release<xlstm_outputs_free>> handle_;
};

// Every carried tensor of a batch, as a value: no call changes states that it is given.
class States {
 public:
  explicit States(xlstm_states* taken) : handle_(taken) {}
  States(const States& other) : handle_(other.copy().handle_.release()) {}
  States(States&&) = default;
  States& operator=(States other) {
    handle_ = std::move(other.handle_);
    return *this;
  }

  int64_t batch() const { return xlstm_states_batch(get()); }
  size_t nbytes() const { return xlstm_states_nbytes(get()); }
  States copy() const { return make(xlstm_states_copy); }
  // Those rows, in that order; one may come twice.
  States rows(const std::vector<int64_t>& indices) const {
    return make(xlstm_states_rows, indices.data(), indices.size());
  }
  // The same, but those rows begin again.
  States reset(const std::vector<int64_t>& indices) const {
    return make(xlstm_states_reset, indices.data(), indices.size());
  }
  // The batches one after another.
  static States join(const std::vector<const States*>& parts) {
    std::vector<const xlstm_states*> handles;
    for (const States* part : parts) handles.push_back(part->get());
    xlstm_states* joined = nullptr;
    detail::check(xlstm_states_join(handles.data(), handles.size(), &joined));
    return States(joined);
  }
  // A safetensors file, which Python's States.load reads; complete, or not there.
  void save(const std::string& path) const {
    detail::check(xlstm_states_save(get(), path.c_str()));
  }
  // Every state on the host, by its key.
  Outputs read() const {
    xlstm_outputs* tensors = nullptr;
    detail::check(xlstm_states_read(get(), &tensors));
    return Outputs(tensors);
  }
  // For functions of xlstm_session.h. Throws, as all above do, where they were moved from.
  const xlstm_states* get() const { return detail::owned(handle_, "states"); }
  xlstm_states* release() { return handle_.release(); }

 private:
  template <typename Function, typename... Arguments>
  States make(Function function, Arguments... arguments) const {
    xlstm_states* made = nullptr;
    detail::check(function(get(), arguments..., &made));
    return States(made);
  }

  std::unique_ptr<xlstm_states, detail::Release<xlstm_states_free>> handle_;
};

// How a bundle is opened; see xlstm_session_options.
struct Options {
  std::string runtime_library;  // "": the one that this process has, or that the loader finds
  std::string kernel_library;   // "": the one beside libxlstm_session, if it is there
  bool use_kernels = true;      // false: the definitions in the file compute the operators
  std::string engine;           // "": ONNX Runtime
  int threads = 0;              // 0: every processor that this process may use
  int gpu = 0;
};

struct Generation {
  int64_t max_new_tokens = 100;
  double temperature = 0;  // 0: the likeliest id
  int64_t top_k = 0;       // the k likeliest and those equal to the last of them; 0: all
  double top_p = 1;        // of these the fewest whose probability reaches it, one at least
  uint64_t seed = 0;
  std::vector<int64_t> stop;  // ids that end it
};

struct Step {
  Outputs outputs;
  States states;  // those to go on from
};

class Session {
 public:
  explicit Session(const std::string& bundle, const Options& options = {}) {
    const auto or_null = [](const std::string& text) {
      return text.empty() ? nullptr : text.c_str();
    };
    xlstm_session_options given{};
    given.runtime_library = or_null(options.runtime_library);
    given.kernel_library = options.use_kernels ? or_null(options.kernel_library) : "";
    given.engine = or_null(options.engine);
    given.threads = options.threads;
    given.gpu = options.gpu;
    xlstm_session* opened = nullptr;
    detail::check(xlstm_session_open(bundle.c_str(), &given, &opened));
    handle_.reset(opened);
  }

  // Who computes: runtime, version, device, precision; then the operators.
  std::string describe() const { return xlstm_session_describe(get()); }
  std::vector<Tensor> inputs() const { return tensors(XLSTM_INPUTS); }
  std::vector<Tensor> outputs() const { return tensors(XLSTM_OUTPUTS); }
  std::vector<Tensor> states() const { return tensors(XLSTM_STATES); }
  // Ids of a language model; 0 where there are none, or it is not known how many.
  int64_t vocabulary() const { return xlstm_session_vocabulary(get()); }
  // The ids that end a text, as the bundle's configuration has them.
  std::vector<int64_t> stop_ids() const {
    const int64_t* ids = nullptr;
    const size_t count = xlstm_session_stop_ids(get(), &ids);
    return {ids, ids + count};
  }
  // The levels of a forecaster's quantiles; none where the bundle is no forecaster.
  std::vector<double> levels() const {
    const double* levels = nullptr;
    const size_t count = xlstm_session_levels(get(), &levels);
    return {levels, levels + count};
  }

  States zeros(int64_t batch) const {
    xlstm_states* made = nullptr;
    detail::check(xlstm_states_zeros(get(), batch, &made));
    return States(made);
  }
  States load(const std::string& path) const {
    xlstm_states* made = nullptr;
    detail::check(xlstm_states_load(get(), path.c_str(), &made));
    return States(made);
  }

  // Continue from `states` (null: from the beginning) over `feeds`, every input by name.
  Step run(const std::vector<Tensor>& feeds, const States* states = nullptr) {
    std::vector<xlstm_tensor> given;
    for (const Tensor& feed : feeds) {
      given.push_back({feed.name.c_str(), feed.dtype, static_cast<int32_t>(feed.shape.size()),
                       feed.shape.data(), feed.data});
    }
    xlstm_outputs* outputs = nullptr;
    xlstm_states* next = nullptr;
    detail::check(xlstm_session_run(get(), given.data(), given.size(),
                                    states == nullptr ? nullptr : states->get(), &outputs, &next));
    return {Outputs(outputs), States(next)};
  }

  // Continue the ids `prompt`, from `past` (null: from the beginning). `on_token` is called with
  // each id as it is chosen, a stop id included; false ends it. Returns the states after all that
  // was read: the prompt, and the new ids but the last.
  States generate(const std::vector<int64_t>& prompt, const Generation& options,
                  const std::function<bool(int64_t)>& on_token, const States* past = nullptr) {
    // 0 is all of them in C, where zeroed options take every id
    const double top_p = options.top_p == 0 ? std::numeric_limits<double>::min() : options.top_p;
    const xlstm_generation given{options.max_new_tokens, options.temperature, options.top_k,
                                 top_p,                  options.seed,        options.stop.data(),
                                 options.stop.size()};
    Called called{on_token, nullptr};
    States carried = past == nullptr ? States(nullptr) : past->copy();
    xlstm_session* session = get();
    xlstm_states* states = carried.release();
    const int32_t status = xlstm_session_generate(session, prompt.data(), prompt.size(),
                                                  &given, call, &called, &states);
    carried = States(states);
    if (called.thrown) std::rethrow_exception(called.thrown);
    detail::check(status);
    return carried;
  }

  // Continue each series, NaN where a value is missing, by `horizon` steps. The one output is
  // "quantiles", float [series, horizon, levels].
  Outputs forecast(const std::vector<std::vector<float>>& series, int64_t horizon) {
    std::vector<const float*> rows;
    std::vector<int64_t> lengths;
    for (const auto& row : series) {
      rows.push_back(row.data());
      lengths.push_back(static_cast<int64_t>(row.size()));
    }
    xlstm_outputs* quantiles = nullptr;
    detail::check(xlstm_session_forecast(get(), rows.data(), lengths.data(), rows.size(),
                                         horizon, &quantiles));
    return Outputs(quantiles);
  }

 private:
  struct Called {
    const std::function<bool(int64_t)>& on_token;
    std::exception_ptr thrown;
  };

  // An exception does not pass through the library: it waits here.
  static int32_t call(void* context, int64_t token) {
    auto* called = static_cast<Called*>(context);
    try {
      return called->on_token(token) ? 0 : 1;
    } catch (...) {
      called->thrown = std::current_exception();
      return 1;
    }
  }

  xlstm_session* get() const { return detail::owned(handle_, "session"); }

  std::vector<Tensor> tensors(xlstm_ends ends) const {
    std::vector<Tensor> found;
    for (size_t i = 0; i < xlstm_session_count(get(), ends); ++i) {
      xlstm_tensor tensor;
      detail::check(xlstm_session_tensor(get(), ends, i, &tensor));
      found.emplace_back(tensor);
    }
    return found;
  }

  std::unique_ptr<xlstm_session, detail::Release<xlstm_session_close>> handle_;
};

}  // namespace xlstm
