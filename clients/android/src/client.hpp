// A release bundle on ExecuTorch: load a pair of files, test it, decode swipes.
#pragma once

#include <chrono>

#include "decoder.hpp"
#include "files.hpp"

inline double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
inline std::vector<Point> points_of(const Json& items) {
  std::vector<Point> points;
  for (const Json& item : items.items) points.push_back({item[0].number, item[1].number, item[2].number});
  return points;
}

inline bool within(double value, double known, double most) { return std::abs(value - known) <= most; }  // false for NaN

inline bool close(const Rows& rows, const Json& known, double most, bool relative = false) {
  bool fits = rows.size() == known.items.size();
  for (size_t i = 0; fits && i < rows.size(); ++i) {
    fits = rows[i].size() == known[i].items.size();
    for (size_t k = 0; fits && k < rows[i].size(); ++k) {
      const double value = known[i][k].number;
      fits = within(rows[i][k], value, most * (relative ? std::max(1.0, std::abs(value)) : 1));
    }
  }
  return fits;
}

inline double rms(const Json& rows) {
  double squares = 0, count = 0;
  for (const Json& row : rows.items)
    for (const Json& value : row.items) squares += value.number * value.number, ++count;
  return std::sqrt(squares / count);
}

class Client {
 public:
  // Throws std::runtime_error where the pair is not decoded to the bundle's known answers: do not use it.
  Client(const std::string& folder, const std::string& encoder, const std::string& step_or_empty = "")
      : spec(Json::parse(read_file(folder + "/decode.json"))), folder_(folder) {
    if (spec["schema"].number != 1) throw std::runtime_error("decode.json should have schema 1");
    const Json known = Json::parse(read_file(folder + "/known_answers.json"));
    const Json& file = spec["files"][encoder];
    const std::string step = step_or_empty.empty() ? file["step"].text : step_or_empty;
    const Json* pair = nullptr;
    for (const Json& item : known["pairs"].items)
      if (item["encoder"].text == encoder && item["step"].text == step) pair = &item;
    if (!pair || known["checkpoint_sha256"].text != spec["checkpoint_sha256"].text)
      throw std::runtime_error("known_answers.json has no answers of " + encoder + " and " + step);
    const Json& words = spec["lexicon_search"]["words"];
    lexicon_ = std::make_unique<Lexicon>(read_checked(folder + "/" + words["file"].text, words["sha256"].text), spec["spellings"]);
    const bool apart = spec["files"][step].has("methods");
    encoder_ = open(encoder), step_ = open(step, apart ? "predict" : ""), joint_ = apart ? open(step, "joint") : nullptr;
    decoder = std::make_unique<Decoder>(spec, *encoder_, *step_, joint_.get(), *lexicon_);
    const double begin = now_ms();
    try {
      for (size_t swipe = 0; swipe < 3; ++swipe) self_test(known, *pair, swipe);
    } catch (const std::exception& error) {  // also of the runtime
      throw std::runtime_error("self-test: " + std::string(error.what()));
    }
    self_test_ms = now_ms() - begin;
  }

  // From the points of a swipe to the words to show, best first.
  std::vector<Word> words(const std::vector<Point>& points) { return decoder->search(decoder->encode(features(points, spec))); }

  const Json spec;
  std::unique_ptr<Decoder> decoder;
  double self_test_ms = 0;

 private:
  std::unique_ptr<Program> open(const std::string& name, const std::string& part = "") {
    const Json& file = spec["files"][name];
    const std::string bytes = read_checked(folder_ + "/" + name, file["sha256"].text);
    return std::make_unique<Program>(name, bytes, file, spec["session_options"]["pte"], part);
  }
  void self_test(const Json& known, const Json& pair, size_t swipe);

  std::string folder_;
  std::unique_ptr<Lexicon> lexicon_;
  std::unique_ptr<Program> encoder_, step_, joint_;
};

inline void Client::self_test(const Json& known, const Json& pair, size_t swipe) {
  const Json &answer = pair["answers"][swipe], &allowed = pair["tolerances"], &asked = known["swipes"][swipe];
  auto check = [&](const char* what, bool fits) {
    if (!fits) throw std::runtime_error("\"" + answer["text"].text + "\": not the known " + what);
  };
  const Rows rows = features(points_of(asked["points"]), spec);
  check("features", close(rows, asked["features"], known["feature_tolerance"].number, true));
  const Rows frames = decoder->encode(rows);
  check("encoding", close(frames, answer["encoded"], allowed["encoded"].number * rms(answer["encoded"])));
  const Decoded greedy = decoder->greedy(frames);
  check("tokens", greedy.tokens == answer["tokens"].integers() && greedy.frames == answer["frames"].integers());
  check("number of steps", greedy.steps.size() == answer["steps"].items.size());
  for (size_t i = 0; i < greedy.steps.size(); ++i) {
    const StepCall& step = greedy.steps[i];
    const Json &known_step = answer["steps"][i], &logits = known_step["logits"];
    check("steps", step.frame == known_step["frame"].number && step.y_prev == known_step["y_prev"].number);
    for (size_t k = 0; k < step.logits.size(); ++k)
      check("logits", within(step.logits[k], logits[k].number, allowed["logits"].number));
  }
  check("score", within(greedy.score, answer["score"].number, allowed["score"].number));
  if (swipe > 0) return;  // a search costs more than all the rest
  const auto words = decoder->search(frames);
  const Json& first = answer["words"][0];
  check("first word", !words.empty() && words[0].text == first["text"].text);
  check("score of the first word", within(words[0].score, first["score"].number, allowed["score"].number));
}
