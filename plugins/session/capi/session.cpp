// xlstm_session.h: sessions, their calls, texts and forecasts.
#include <memory>

#include "../feeds.h"
#include "../forecast.h"
#include "../generate.h"
#include "handles.h"

using namespace xlstm::session;

namespace {

thread_local std::string last_error;

Feed feed_of(const xlstm_tensor& tensor) {
  demand(tensor.name, "a tensor's name");
  const std::string name = tensor.name;
  const DType* dtype = find_dtype(tensor.dtype);
  if (dtype == nullptr) {
    fail(XLSTM_INPUT_ERROR, name + ": " + std::to_string(tensor.dtype) + " is no element type");
  }
  if (tensor.rank < 0 || (tensor.rank > 0 && tensor.shape == nullptr)) {
    fail(XLSTM_INPUT_ERROR, name + ": has no shape");
  }
  Feed feed{name, dtype, Shape(tensor.shape, tensor.shape + tensor.rank), tensor.data};
  int64_t count = 1;
  for (const int64_t size : feed.shape) {
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) {
      fail(XLSTM_INPUT_ERROR, name + ": shape " + shape_text(feed.shape) + " is none");
    }
  }
  if (tensor.data == nullptr && count > 0) fail(XLSTM_INPUT_ERROR, name + ": its data is null");
  return feed;
}

void describe(const std::string& name, const DType* dtype, const Shape& shape, const void* data,
              xlstm_tensor* tensor) {
  *tensor = {name.c_str(), dtype->code, static_cast<int32_t>(shape.size()), shape.data(), data};
}

Options options_of(const xlstm_session_options* given) {
  if (given == nullptr) return {};
  return {given->runtime_library, given->kernel_library, given->engine, given->threads, given->gpu};
}

}  // namespace

int32_t xlstm::session::keep_error(xlstm_session_status status, const char* message) noexcept {
  try {
    last_error = message;
  } catch (const std::bad_alloc&) {
    last_error.clear();
  }
  return status;
}

const char* xlstm_session_version(void) { return XLSTM_VERSION; }

const char* xlstm_session_error(void) { return last_error.c_str(); }

int32_t xlstm_session_open(const char* bundle, const xlstm_session_options* options,
                           xlstm_session** session) {
  return guarded([=] {
    demand(session, "session");
    *session = nullptr;
    demand(bundle, "bundle");
    *session = new xlstm_session(bundle, options_of(options));
  });
}

void xlstm_session_close(xlstm_session* session) { delete session; }

const char* xlstm_session_describe(const xlstm_session* session) {
  return session->model.description().c_str();
}

size_t xlstm_session_count(const xlstm_session* session, xlstm_ends ends) {
  return session->model.ends(ends).size();
}

int32_t xlstm_session_tensor(const xlstm_session* session, xlstm_ends ends, size_t index,
                             xlstm_tensor* tensor) {
  return guarded([=] {
    demand(session, "session");
    demand(tensor, "tensor");
    const std::vector<Output>& tensors = session->model.ends(ends);
    if (index >= tensors.size()) {
      fail(XLSTM_INPUT_ERROR, "there is no tensor " + std::to_string(index) + " of " +
                                  std::to_string(tensors.size()));
    }
    describe(tensors[index].name, tensors[index].dtype, tensors[index].shape, nullptr, tensor);
  });
}

int64_t xlstm_session_vocabulary(const xlstm_session* session) {
  return session->model.manifest().vocabulary();
}

size_t xlstm_session_stop_ids(const xlstm_session* session, const int64_t** ids) {
  *ids = session->model.stop_ids().data();
  return session->model.stop_ids().size();
}

int32_t xlstm_session_run(xlstm_session* session, const xlstm_tensor* feeds, size_t count,
                          const xlstm_states* states, xlstm_outputs** outputs,
                          xlstm_states** next) {
  return guarded([=] {
    demand(session, "session");
    if (count > 0) demand(feeds, "feeds");
    std::vector<Feed> given;
    for (size_t i = 0; i < count; ++i) given.push_back(feed_of(feeds[i]));
    Step step = session->model.run(given, states == nullptr ? nullptr : &states->states);
    auto made = std::make_unique<xlstm_outputs>(xlstm_outputs{std::move(step.outputs)});
    if (next != nullptr) *next = hand_out(std::move(step.states));
    if (outputs != nullptr) *outputs = made.release();
  });
}

size_t xlstm_outputs_count(const xlstm_outputs* outputs) { return outputs->tensors.size(); }

int32_t xlstm_outputs_tensor(const xlstm_outputs* outputs, size_t index, xlstm_tensor* tensor) {
  return guarded([=] {
    demand(outputs, "outputs");
    demand(tensor, "tensor");
    if (index >= outputs->tensors.size()) {
      fail(XLSTM_INPUT_ERROR, "there is no output " + std::to_string(index) + " of " +
                                  std::to_string(outputs->tensors.size()));
    }
    const Output& output = outputs->tensors[index];
    describe(output.name, output.dtype, output.shape, output.data, tensor);
  });
}

void xlstm_outputs_free(xlstm_outputs* outputs) { delete outputs; }

int32_t xlstm_session_generate(xlstm_session* session, const int64_t* prompt, size_t count,
                               const xlstm_generation* options, xlstm_token_function on_token,
                               void* context, xlstm_states** states) {
  return guarded([=] {
    demand(session, "session");
    if (count > 0) demand(prompt, "prompt");
    demand(options, "options");
    if (options->stop_count > 0) demand(options->stop, "stop");
    const double top_p = options->top_p == 0 ? 1 : options->top_p;
    const Sampling sampling{options->temperature, options->top_k, top_p, options->seed};
    const Generation generation{options->max_new_tokens, sampling,
                                {options->stop, options->stop + options->stop_count}};
    const States* past = states == nullptr || *states == nullptr ? nullptr : &(*states)->states;
    States after = generate(
        &session->model, {prompt, prompt + count}, generation, past,
        [=](int64_t token) { return on_token == nullptr || on_token(context, token) == 0; });
    if (states == nullptr) return;
    xlstm_states* made = hand_out(std::move(after));
    delete *states;
    *states = made;
  });
}

size_t xlstm_session_levels(const xlstm_session* session, const double** levels) {
  const auto& info = session->model.manifest().forecast;
  *levels = info ? info->levels.data() : nullptr;
  return info ? info->levels.size() : 0;
}

int32_t xlstm_session_forecast(xlstm_session* session, const float* const* series,
                               const int64_t* lengths, size_t count, int64_t horizon,
                               xlstm_outputs** quantiles) {
  return guarded([=] {
    demand(session, "session");
    demand(quantiles, "quantiles");
    if (count > 0) demand(series, "series");
    if (count > 0) demand(lengths, "lengths");
    std::vector<std::vector<float>> rows;
    for (size_t i = 0; i < count; ++i) {
      if (lengths[i] < 1) fail(XLSTM_INPUT_ERROR, "series " + std::to_string(i) + ": has no steps");
      demand(series[i], "a series");
      rows.emplace_back(series[i], series[i] + lengths[i]);
    }
    *quantiles = new xlstm_outputs{{forecast(&session->model, rows, horizon)}};
  });
}
