// The words of a command line: options, and what is left.
#pragma once

#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include <xlstm/session.hpp>

struct Words {
  xlstm::Options options;
  std::vector<std::string> rest;
};

inline Words read_words(int argc, char** argv) {
  Words words;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&] {
      if (++i == argc) throw std::runtime_error(word + ": expected a value behind it");
      return std::string(argv[i]);
    };
    if (word == "--runtime") {
      words.options.runtime_library = value();
    } else if (word == "--engine") {
      words.options.engine = value();
    } else if (word == "--no-kernels") {
      words.options.use_kernels = false;
    } else if (word.rfind("--", 0) == 0) {
      throw std::runtime_error(word + ": no such option");
    } else {
      words.rest.push_back(word);
    }
  }
  return words;
}

// A whole number; `what` is its name where it is none.
inline int64_t whole_number(const std::string& what, const std::string& word) {
  size_t end = 0;
  long long number = 0;
  try {
    number = std::stoll(word, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  if (word.empty() || end != word.size()) {
    throw std::runtime_error(what + " \"" + word + "\": expected a whole number");
  }
  return number;
}

// Runs `program`; what it throws is told in a line, and the exit code is 1.
template <typename Program>
int run_program(Program program) {
  try {
    program();
    return EXIT_SUCCESS;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return EXIT_FAILURE;
  }
}
