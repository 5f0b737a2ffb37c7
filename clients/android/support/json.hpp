// A reader of JSON, as far as a bundle needs it: throws std::runtime_error on anything else.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
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

  const Json& operator[](const std::string& name) const {
    for (const auto& field : fields)
      if (field.first == name) return field.second;
    throw std::runtime_error("JSON has no field " + name);
  }
  bool has(const std::string& name) const {
    return std::any_of(fields.begin(), fields.end(), [&](const auto& field) { return field.first == name; });
  }
  const Json& operator[](size_t place) const { return items.at(place); }
  int integer() const { return static_cast<int>(number); }
  std::vector<int> integers() const {
    std::vector<int> found;
    for (const Json& item : items) found.push_back(item.integer());
    return found;
  }
  static Json parse(const std::string& text) {
    const char* at = text.c_str();
    Json found = value(at);
    if (skip(at) != text.c_str() + text.size()) fail(at);
    return found;
  }

 private:
  [[noreturn]] static void fail(const char* at) { throw std::runtime_error("malformed JSON at: " + std::string(at, strnlen(at, 20))); }
  static const char*& skip(const char*& at) { return at += std::strspn(at, " \n\t\r"); }
  static bool take(const char*& at, const std::string& wanted) {
    if (std::strncmp(skip(at), wanted.c_str(), wanted.size()) != 0) return false;
    at += wanted.size();
    return true;
  }
  static Json value(const char*& at) {
    Json found;
    if (take(at, "{")) {
      for (found.kind = kObject; !take(at, "}");) {
        if (!found.fields.empty() && !take(at, ",")) fail(at);
        if (!take(at, "\"")) fail(at);
        std::string name = string(at);
        if (!take(at, ":")) fail(at);
        found.fields.emplace_back(std::move(name), value(at));
      }
    } else if (take(at, "[")) {
      for (found.kind = kList; !take(at, "]"); found.items.push_back(value(at)))
        if (!found.items.empty() && !take(at, ",")) fail(at);
    } else if (take(at, "\"")) {
      found.kind = kText, found.text = string(at);
    } else if ((found.number = take(at, "true")) || take(at, "false")) {
      found.kind = kBool;
    } else if (!take(at, "null")) {
      char* stop = nullptr;
      found.kind = kNumber, found.number = std::strtod(at, &stop);
      if (stop == at) fail(at);
      at = stop;
    }
    return found;
  }
  static std::string string(const char*& at) {
    std::string found;
    for (; *at != '"'; ++at) {
      if (!*at) fail(at);
      if (*at != '\\') { found += *at; continue; }
      // A bundle writes characters beyond ASCII as they are, and no control characters.
      if (!*++at || !std::strchr("\"\\/", *at)) fail(at);
      found += *at;
    }
    ++at;
    return found;
  }
};
