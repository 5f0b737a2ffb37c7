// A release bundle on ExecuTorch: load a pair of files, test it, decode swipes.
#pragma once

#include <chrono>
#include <memory>
#include <string>

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

class Client {
 public:
  // Throws std::runtime_error where the pair is not decoded to the bundle's known answers: do not use it.
  Client(const std::string& folder, const std::string& encoder, const std::string& step_or_empty = "")
      : spec(JsonReader(read_file(folder + "/decode.json")).read()), folder_(folder) {
    if (spec["schema"].number != 1) throw std::runtime_error("decode.json should have schema 1");
    const Json known = JsonReader(read_file(folder + "/known_answers.json")).read();
    const Json& file = spec["files"][encoder];
    const std::string step = step_or_empty.empty() ? file["step"].text : step_or_empty;
    const Json* pair = nullptr;
    for (const Json& item : known["pairs"].items)
      if (item["encoder"].text == encoder && item["step"].text == step) pair = &item;
    if (!pair || known["checkpoint_sha256"].text != spec["checkpoint_sha256"].text)
      throw std::runtime_error("known_answers.json has no answers of " + encoder + " and " + step);
    const Json& words = spec["lexicon_search"]["words"];
    lexicon_ = std::make_unique<Lexicon>(read_checked(folder + "/" + words["file"].text, words["sha256"].text), spec["spellings"]);
    encoder_ = open(encoder), step_ = open(step);
    decoder = std::make_unique<Decoder>(spec, *encoder_, *step_, *lexicon_);
    const double begin = now_ms();
    for (size_t swipe = 0; swipe < 3; ++swipe) self_test(known, *pair, swipe);
    self_test_ms = now_ms() - begin;
  }

  const Json spec;
  std::unique_ptr<Decoder> decoder;
  double self_test_ms = 0;

 private:
  std::unique_ptr<Program> open(const std::string& name) {
    const Json& file = spec["files"][name];
    const std::string bytes = read_checked(folder_ + "/" + name, file["sha256"].text);
    return std::make_unique<Program>(name, bytes, file, spec["session_options"]["pte"]);
  }
  void self_test(const Json& known, const Json& pair, size_t swipe);

  std::string folder_;
  std::unique_ptr<Lexicon> lexicon_;
  std::unique_ptr<Program> encoder_, step_;
};
