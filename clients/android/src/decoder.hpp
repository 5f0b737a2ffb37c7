// Encoder and step on ExecuTorch: features to frames, frames to labels and words.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "features.hpp"
#include "lexicon.hpp"
#include "program.hpp"

struct StepCall { int frame, y_prev; std::vector<float> logits; };
struct Decoded { std::vector<StepCall> steps; std::vector<int> tokens, frames; std::string text; double score = 0; };
struct Word { std::string text; std::vector<int> tokens; double score, log_prob; };

class Decoder {
 public:
  Decoder(const Json& spec, Program& encoder, Program& step, const Lexicon& lexicon);
  Rows encode(const Rows& rows);                   // (T', D) valid frames
  Decoded greedy(const Rows& frames);              // without a lexicon
  std::vector<Word> search(const Rows& frames);    // best first

 private:
  struct State { int last; std::vector<float> hidden, cell; };
  struct Hypothesis { State state; std::vector<int> tokens; int node; double log_prob, outlook; };
  struct Stepped { std::vector<float> raw; std::vector<double> log_probs; State state; };
  std::vector<Stepped> run(const std::vector<const State*>& states, const std::vector<float>& frame);
  std::vector<Hypothesis> closed(std::vector<Hypothesis> beam, const std::vector<float>& frame);
  std::vector<Hypothesis> merged(const std::vector<Hypothesis>& closed) const;
  std::vector<double> log_probs(const std::vector<float>& raw) const;
  State start() const;
  std::string text(const std::vector<int>& tokens) const;

  const Json& spec_;
  const Json& search_;
  Program& encoder_;
  Program& step_;
  const Lexicon& lexicon_;
  int layers_, width_, d_model_, vocab_, blank_;
};
