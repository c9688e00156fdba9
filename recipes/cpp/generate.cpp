// Continues token ids with a bundle of a language model, greedily.
//
//   generate [--runtime LIBRARY] [--engine ENGINE] [--no-kernels] BUNDLE COUNT ID...
#include "words.h"

namespace {

void generate(const Words& words) {
  xlstm::Session session(words.rest[0], words.options);
  xlstm::Generation options;
  options.max_new_tokens = whole_number("COUNT", words.rest[1]);
  std::vector<int64_t> prompt;
  for (size_t i = 2; i < words.rest.size(); ++i) {
    prompt.push_back(whole_number("ID", words.rest[i]));
  }
  std::cerr << session.describe() << '\n';
  const char* separator = "";
  session.generate(prompt, options, [&](int64_t token) {
    std::cout << separator << token << std::flush;
    separator = " ";
    return true;
  });
  std::cout << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([=] {
    const Words words = read_words(argc, argv);
    if (words.rest.size() < 3) {
      throw std::runtime_error(
          "usage: generate [--runtime LIBRARY] [--engine ENGINE] [--no-kernels] BUNDLE COUNT ID...");
    }
    generate(words);
  });
}
