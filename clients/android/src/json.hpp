// A reader of JSON, as far as a bundle needs it: throws std::runtime_error on anything else.
#pragma once

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

struct Json {
  enum Kind { kNull, kBool, kNumber, kText, kList, kObject } kind = kNull;
  double number = 0;  // of a boolean 0 or 1
  std::string text;
  std::vector<Json> items;
  std::vector<std::pair<std::string, Json>> fields;

  const Json* find(const std::string& name) const {
    for (const auto& field : fields)
      if (field.first == name) return &field.second;
    return nullptr;
  }
  const Json& operator[](const std::string& name) const {
    if (const Json* found = find(name)) return *found;
    throw std::runtime_error("JSON has no field " + name);
  }
  const Json& operator[](size_t place) const { return items.at(place); }
  int integer() const { return static_cast<int>(number); }
  std::vector<float> floats() const { return numbers<float>(); }
  template <class T> std::vector<T> numbers() const {
    std::vector<T> found;
    for (const Json& item : items) found.push_back(static_cast<T>(item.number));
    return found;
  }
};

class JsonReader {
 public:
  explicit JsonReader(const std::string& text) : at_(text.c_str()), end_(at_ + text.size()) {}
  Json read() {
    Json found = value();
    if (skipped() != '\0' || at_ != end_) fail();
    return found;
  }

 private:
  char skipped() {
    while (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r') ++at_;
    return *at_;
  }
  [[noreturn]] void fail() const {
    throw std::runtime_error("malformed JSON, " + std::to_string(end_ - at_) + " bytes before the end");
  }
  bool take(char wanted) { return skipped() == wanted && ++at_; }
  bool word(const std::string& wanted) {
    if (wanted.compare(0, wanted.size(), at_, std::min<size_t>(wanted.size(), end_ - at_)) != 0) return false;
    at_ += wanted.size();
    return true;
  }
  Json value() {
    Json found;
    if (take('{')) {
      found.kind = Json::kObject;
      while (!take('}')) {
        if (!found.fields.empty() && !take(',')) fail();
        if (!take('"')) fail();
        std::string name = text();
        if (!take(':')) fail();
        found.fields.emplace_back(std::move(name), value());
      }
    } else if (take('[')) {
      found.kind = Json::kList;
      while (!take(']')) {
        if (!found.items.empty() && !take(',')) fail();
        found.items.push_back(value());
      }
    } else if (take('"')) {
      found.kind = Json::kText;
      found.text = text();
    } else if (word("true") || word("false")) {
      found.kind = Json::kBool;
      found.number = at_[-2] == 'u';
    } else if (!word("null")) {
      char* stop = nullptr;
      found.kind = Json::kNumber;
      found.number = std::strtod(at_, &stop);
      if (stop == at_) fail();
      at_ = stop;
    }
    return found;
  }
  std::string text() {
    std::string found;
    for (; *at_ != '"'; ++at_) {
      if (at_ == end_) fail();
      if (*at_ != '\\') { found += *at_; continue; }
      const char* escapes = "\"\"\\\\//b\bf\fn\nr\rt\t";
      ++at_;
      if (*at_ == 'u') { found += utf8(); continue; }
      for (; *escapes && *escapes != *at_; escapes += 2) {}
      if (!*escapes) fail();
      found += escapes[1];
    }
    ++at_;
    return found;
  }
  std::string utf8() {  // of \uXXXX beyond ASCII, which a bundle writes as it is
    unsigned code = std::strtoul(std::string(at_ + 1, 4).c_str(), nullptr, 16);
    if (code >= 0x80) fail();
    at_ += 4;
    return std::string(1, static_cast<char>(code));
  }
  const char* at_;
  const char* end_;
};
