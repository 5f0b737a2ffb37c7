#include "client.hpp"

namespace {
bool within(double value, double known, double most) { return std::abs(value - known) <= most; }  // false for NaN

bool close(const std::vector<float>& row, const Json& known, double most, double relative) {
  bool fits = row.size() == known.items.size();
  for (size_t i = 0; fits && i < row.size(); ++i)
    fits = within(row[i], known[i].number, most * (relative ? std::max(1.0, std::abs(known[i].number)) : 1));
  return fits;
}

bool close(const Rows& rows, const Json& known, double most, double relative) {
  bool fits = rows.size() == known.items.size();
  for (size_t i = 0; fits && i < rows.size(); ++i) fits = close(rows[i], known[i], most, relative);
  return fits;
}

double rms(const Json& rows) {
  double squares = 0, count = 0;
  for (const Json& row : rows.items)
    for (const Json& value : row.items) squares += value.number * value.number, ++count;
  return std::sqrt(squares / count);
}
}  // namespace

void Client::self_test(const Json& known, const Json& pair, size_t swipe) {
  const Json &answer = pair["answers"][swipe], &allowed = pair["tolerances"], &asked = known["swipes"][swipe];
  auto check = [&](const char* what, bool fits) {
    if (!fits) throw std::runtime_error("self-test: \"" + answer["text"].text + "\": " + what + " is not the known one");
  };
  const Rows rows = features(points_of(asked["points"]), spec);
  check("a feature", close(rows, asked["features"], known["feature_tolerance"].number, true));
  const Rows frames = decoder->encode(rows);
  check("the encoding", close(frames, answer["encoded"], allowed["encoded"].number * rms(answer["encoded"]), false));
  const Decoded greedy = decoder->greedy(frames);
  check("the tokens", greedy.tokens == answer["tokens"].numbers<int>() && greedy.frames == answer["frames"].numbers<int>());
  check("the number of steps", greedy.steps.size() == answer["steps"].items.size());
  for (size_t i = 0; i < greedy.steps.size(); ++i) {
    const Json& step = answer["steps"][i];
    check("a step", greedy.steps[i].frame == step["frame"].number && greedy.steps[i].y_prev == step["y_prev"].number);
    check("a logit", close(greedy.steps[i].logits, step["logits"], allowed["logits"].number, false));
  }
  check("the score", within(greedy.score, answer["score"].number, allowed["score"].number));
  const auto words = decoder->search(frames);
  const Json& expected = answer["words"];
  check("the first word", words.size() == expected.items.size() && (words.empty() || words[0].text == expected[0]["text"].text));
  for (size_t i = 0; i < words.size(); ++i)
    check("a word's score", within(words[i].score, expected[i]["score"].number, allowed["score"].number));
}
