// A JSON reader of one page, so that the example needs nothing but ONNX Runtime. It reads every JSON
// file; only \u escapes stay as they are written, since no name in a manifest has one.
#pragma once

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace json {

enum class Kind { kNull, kBoolean, kNumber, kString, kArray, kObject };

struct Value {
  Kind kind = Kind::kNull;
  bool boolean = false;
  double number = 0;
  std::string string;
  std::vector<std::string> keys;  // an object's, in the order of items
  std::vector<Value> items;       // an array's or an object's

  // The value of `key` in an object; throws where it is not there, or not of the kind `expected`.
  const Value& at(const std::string& key, Kind expected) const {
    for (size_t i = 0; i < keys.size(); ++i) {
      if (keys[i] != key) continue;
      if (items[i].kind != expected) throw std::runtime_error("\"" + key + "\" is of another type");
      return items[i];
    }
    throw std::runtime_error("no \"" + key + "\"");
  }
};

class Reader {
 public:
  explicit Reader(std::string text) : text_(std::move(text)) {}

  // The value that the whole text is; throws std::runtime_error where it is no JSON.
  Value document() {
    Value result = value(0);
    if (next() != '\0' || at_ < text_.size()) fail("the end");
    return result;
  }

 private:
  static constexpr int kDeepest = 64;  // a file must not overflow the stack

  [[noreturn]] void fail(const std::string& expected) const {
    throw std::runtime_error("byte " + std::to_string(at_) + ": expected " + expected);
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  // The first character that is no white space.
  char next() {
    while (peek() == ' ' || peek() == '\n' || peek() == '\r' || peek() == '\t') ++at_;
    return peek();
  }

  bool take(const std::string& word) {
    if (text_.compare(at_, word.size(), word) != 0) return false;
    at_ += word.size();
    return true;
  }

  Value value(int depth) {
    if (depth > kDeepest) fail("less depth");
    Value result;
    const char first = next();
    if (first == '{' || first == '[') return container(first == '{', depth);
    if (first == '"') {
      result.kind = Kind::kString;
      result.string = string();
    } else if (first == '-' || (first >= '0' && first <= '9')) {
      char* end = nullptr;
      result.kind = Kind::kNumber;
      result.number = std::strtod(&text_[at_], &end);
      at_ = static_cast<size_t>(end - text_.data());
    } else if (take("true") || take("false")) {
      result.kind = Kind::kBoolean;
      result.boolean = first == 't';
    } else if (!take("null")) {
      fail("a value");
    }
    return result;
  }

  Value container(bool is_object, int depth) {
    const char close = is_object ? '}' : ']';
    Value result;
    result.kind = is_object ? Kind::kObject : Kind::kArray;
    ++at_;
    while (next() != close) {
      if (!result.items.empty() && !take(",")) fail("a comma");
      if (is_object) {
        next();
        result.keys.push_back(string());
        next();
        if (!take(":")) fail("a colon");
      }
      result.items.push_back(value(depth + 1));
    }
    ++at_;
    return result;
  }

  std::string string() {
    static const std::string kEscapes = "bfnrt", kMeanings = "\b\f\n\r\t";
    if (!take("\"")) fail("a string");
    std::string result;
    for (; peek() != '"'; ++at_) {
      if (at_ >= text_.size()) fail("the end of a string");
      if (text_[at_] != '\\') {
        result += text_[at_];
        continue;
      }
      ++at_;
      const size_t escape = kEscapes.find(peek());
      if (peek() == 'u') result += '\\';
      result += escape == std::string::npos ? peek() : kMeanings[escape];
    }
    ++at_;
    return result;
  }

  std::string text_;
  size_t at_ = 0;
};

}  // namespace json
