// swipe-client BUNDLE ENCODER [STEP]: decode swipes from standard input, a JSON line each.
#include <cstdio>
#include <iostream>

#include "client.hpp"

template <class T> std::string list(const std::vector<T>& values) {
  std::string text;
  char number[32];
  for (const T& value : values) {
    std::snprintf(number, sizeof number, "%.9g", double(value));
    text += (text.empty() ? "" : ",") + std::string(number);
  }
  return "[" + text + "]";
}

int main(int count, char** arguments) try {
  if (count < 3) throw std::runtime_error("usage: swipe-client BUNDLE ENCODER [STEP] < swipes.jsonl");
  Client client(arguments[1], arguments[2], count > 3 ? arguments[3] : "");
  std::printf("{\"self_test_ms\":%.3f}\n", client.self_test_ms);
  for (std::string line; std::getline(std::cin, line);) {
    const auto points = points_of(Json::parse(line));
    const double begin = now_ms();
    const Rows rows = features(points, client.spec), frames = client.decoder->encode(rows);
    const Decoded greedy = client.decoder->greedy(frames);
    const auto words = client.decoder->search(frames);
    const double ms = now_ms() - begin;
    std::string features_text, words_text;
    for (const auto& row : rows) features_text += (features_text.empty() ? "" : ",") + list(row);
    for (const Word& word : words)
      words_text += std::string(words_text.empty() ? "" : ",") + "{\"text\":\"" + word.text + "\",\"score\":" + std::to_string(word.score) + "}";
    std::printf("{\"ms\":%.3f,\"features\":[%s],\"tokens\":%s,\"score\":%.9g,\"words\":[%s]}\n", ms, features_text.c_str(),
                list(greedy.tokens).c_str(), greedy.score, words_text.c_str());
  }
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
