// Every operation of xlstm/session.hpp once, on a language model and a forecaster; prints what
// test_header.py compares with Python.
#include <xlstm/session.hpp>

#include <cstdio>

namespace {

void print(const char* name, const xlstm::Tensor& tensor) {
  std::printf("%s", name);
  const float* data = tensor.as<float>();
  for (int64_t i = 0; i < tensor.size(); ++i) std::printf(" %.9g", data[i]);
  std::printf("\n");
}

// What `act` throws.
template <typename Act>
void refused(Act act) {
  try {
    act();
    std::printf("error none\n");
  } catch (const xlstm::Error& error) {
    std::printf("error %d %s\n", error.status(), error.what());
  } catch (const std::exception& error) {
    std::printf("error own %s\n", error.what());
  }
}

void use_states(xlstm::Session& session, const xlstm::States& states, const std::string& path) {
  const xlstm::States a = states.rows({0}), b = states.rows({1});
  xlstm::States batch = xlstm::States::join({&b, &a});
  batch = batch.reset({1});
  batch.save(path);
  const xlstm::States again = session.load(path);
  const xlstm::States same = again;
  const std::vector<int64_t> ids{1, 2};
  print("joined", session.run({{"input_ids", ids.data(), {2, 1}}}, &same).outputs.at("logits"));
  std::printf("states %lld %zu %zu %s\n", static_cast<long long>(same.batch()), same.nbytes(),
              same.read().size(), same.read()[0].name.c_str());
  const xlstm::Tensor feed{"input_ids", ids.data(), {2, 1}};
  refused([&] { session.run({feed}, &a); });
  refused([&] { session.run({feed, feed}, &same); });
}

// Each operation of what was moved from.
void use_moved(xlstm::Session& session) {
  const std::vector<int64_t> ids{1};
  const xlstm::Tensor feed{"input_ids", ids.data(), {1, 1}};
  xlstm::States states = session.zeros(1);
  const xlstm::States taken = std::move(states);
  refused([&] { session.run({feed}, &states); });
  refused([&] { session.generate(ids, {}, [](int64_t) { return true; }, &states); });
  refused([&] { xlstm::States::join({&taken, &states}); });
  refused([&] { states.batch(); });
  refused([&] { xlstm::States copy = states; });
  xlstm::Step step = session.run({feed}, &taken);
  const xlstm::Outputs outputs = std::move(step.outputs);
  refused([&] { step.outputs.at("logits"); });
  xlstm::Session other = std::move(session);
  refused([&] { session.run({feed}); });
  session = std::move(other);
}

void use_generation(xlstm::Session& session) {
  xlstm::Generation options;
  options.max_new_tokens = 4;
  std::printf("ids");
  const auto on_token = [](int64_t token) {
    std::printf(" %lld", static_cast<long long>(token));
    return true;
  };
  const xlstm::States states = session.generate({3, 1, 4}, options, on_token);
  session.generate({1}, options, on_token, &states);
  options.temperature = 3;
  options.top_p = 0;
  session.generate({3, 1, 4}, options, on_token);
  std::printf("\n");
  refused([&] {
    session.generate({1}, options, [](int64_t) -> bool { throw std::runtime_error("mine"); });
  });
}

}  // namespace

int main(int, char** words) {
  xlstm::Options options;
  options.runtime_library = words[1];
  options.threads = 1;
  xlstm::Session session(words[2], options);
  const std::vector<int64_t> ids{3, 1, 4, 1, 5, 9};
  const xlstm::Step step = session.run({{"input_ids", ids.data(), {2, 3}}});
  print("logits", step.outputs.at("logits"));
  use_states(session, step.states, words[4]);
  use_generation(session);
  use_moved(session);
  for (const xlstm::Tensor& input : session.inputs()) {
    std::printf("input %s %zu\n", input.name.c_str(), input.shape.size());
  }
  std::printf("sizes %lld %zu %zu\n", static_cast<long long>(session.vocabulary()),
              session.outputs().size(), session.states().size());
  refused([&] { step.outputs.at("nothing"); });
  refused([&] { step.outputs.at("logits").as<int64_t>(); });
  refused([&] { xlstm::Session nowhere("/nowhere"); });
  xlstm::Session forecaster(words[3], options);
  print("quantiles", forecaster.forecast({{1, 2, 3, 4, 5, 6}}, 2)[0]);
}
