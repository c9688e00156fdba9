// xlstm_session.h: states.
#include "handles.h"

using namespace xlstm::session;

namespace {

std::vector<int64_t> indices(const int64_t* rows, size_t count) {
  if (count > 0) demand(rows, "rows");
  return {rows, rows + count};
}

}  // namespace

int32_t xlstm_states_zeros(const xlstm_session* session, int64_t batch, xlstm_states** states) {
  return guarded([=] {
    demand(session, "session");
    demand(states, "states");
    *states = hand_out(session->model.zeros(batch));
  });
}

int32_t xlstm_states_copy(const xlstm_states* states, xlstm_states** copy) {
  return guarded([=] {
    demand(states, "states");
    demand(copy, "copy");
    *copy = hand_out(states->states.copy());
  });
}

int32_t xlstm_states_rows(const xlstm_states* states, const int64_t* rows, size_t count,
                          xlstm_states** chosen) {
  return guarded([=] {
    demand(states, "states");
    demand(chosen, "chosen");
    *chosen = hand_out(states->states.rows(indices(rows, count)));
  });
}

int32_t xlstm_states_join(const xlstm_states* const* parts, size_t count, xlstm_states** joined) {
  return guarded([=] {
    demand(joined, "joined");
    if (count > 0) demand(parts, "parts");
    std::vector<const States*> given;
    for (size_t i = 0; i < count; ++i) {
      demand(parts[i], "a part");
      given.push_back(&parts[i]->states);
    }
    *joined = hand_out(States::join(given));
  });
}

int32_t xlstm_states_reset(const xlstm_states* states, const int64_t* rows, size_t count,
                           xlstm_states** begun) {
  return guarded([=] {
    demand(states, "states");
    demand(begun, "begun");
    *begun = hand_out(states->states.reset(indices(rows, count)));
  });
}

int32_t xlstm_states_save(const xlstm_states* states, const char* path) {
  return guarded([=] {
    demand(states, "states");
    demand(path, "path");
    states->states.save(path);
  });
}

int32_t xlstm_states_load(const xlstm_session* session, const char* path, xlstm_states** states) {
  return guarded([=] {
    demand(session, "session");
    demand(path, "path");
    demand(states, "states");
    *states = hand_out(session->model.load(path));
  });
}

int64_t xlstm_states_batch(const xlstm_states* states) { return states->states.batch(); }

size_t xlstm_states_nbytes(const xlstm_states* states) { return states->states.nbytes(); }

int32_t xlstm_states_read(const xlstm_states* states, xlstm_outputs** tensors) {
  return guarded([=] {
    demand(states, "states");
    demand(tensors, "tensors");
    std::vector<Output> read;
    const size_t count = states->states.manifest().states.size();
    for (size_t i = 0; i < count; ++i) read.push_back(states->states.host(i));
    *tensors = new xlstm_outputs{std::move(read)};
  });
}

void xlstm_states_free(xlstm_states* states) { delete states; }
