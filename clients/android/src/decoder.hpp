// Encoder and step on ExecuTorch: features to frames, frames to labels and words.
#pragma once

#include <map>
#include <numeric>

#include "features.hpp"
#include "lexicon.hpp"
#include "program.hpp"

struct StepCall { int frame, y_prev; std::vector<float> logits; };
struct Decoded { std::vector<StepCall> steps; std::vector<int> tokens, frames; std::string text; double score = 0; };
struct Word { std::string text; std::vector<int> tokens; double score, log_prob; };

class Decoder {
 public:
  Decoder(const Json& spec, Program& encoder, Program& step, Program* joint, const Lexicon& lexicon)
      : spec_(spec), search_(spec["lexicon_search"]), encoder_(encoder), step_(step), joint_(joint), lexicon_(lexicon) {
    const Json& sizes = spec["dimensions"];
    layers_ = sizes["pred_layers"].integer(), width_ = sizes["pred_hidden"].integer();
    d_model_ = sizes["d_model"].integer(), vocab_ = spec["vocab_size"].integer(), blank_ = spec["blank_id"].integer();
    const Json& takes = step.file["inputs"][0]["shape"][0];
    fixed_batch_ = takes.kind == Json::kNumber ? takes.integer() : 0;
    gives_log_probs_ = step.file["scores"].text == "log_probs";
  }

  // Return (T', D) valid frames.
  Rows encode(const Rows& rows) {
    const int points = rows.size(), channels = rows.at(0).size();
    if (points > encoder_.file["max_trace_len"].number) throw std::runtime_error("more points than the encoder takes");
    std::vector<float> values(points * channels);
    for (int t = 0; t < points; ++t)
      for (int c = 0; c < channels; ++c) values[c * points + t] = rows[t][c];
    encoder_.run({values, {float(points)}}, {{1, channels, points}, {1}});
    const auto encoded = encoder_.output(0), lengths = encoder_.output(1);
    const int stored = encoded.size(2);
    const int frames = lengths.scalar_type() == ScalarType::Long ? lengths.const_data_ptr<int64_t>()[0]
                                                                 : lengths.const_data_ptr<int32_t>()[0];
    Rows found(frames, std::vector<float>(d_model_));
    for (int t = 0; t < frames; ++t)
      for (int d = 0; d < d_model_; ++d) found[t][d] = encoded.const_data_ptr<float>()[d * stored + t];
    return found;
  }

  // Decode frames without a lexicon.
  Decoded greedy(const Rows& frames) {
    const Json& rules = spec_["greedy"];
    const double limit = rules["max_symbols"].kind == Json::kNull ? INFINITY : rules["max_symbols"].number;
    Decoded found;
    State state = start();
    for (size_t frame = 0, written = 0; frame < frames.size();) {
      Stepped out = run({&state}, frames[frame])[0];
      found.steps.push_back({int(frame), state.last, out.raw});
      const int label = std::max_element(out.raw.begin(), out.raw.end()) - out.raw.begin();
      const Json& rule = rules[label == blank_ ? "blank" : written + 1 >= limit ? "label_at_max_symbols" : "label"];
      if (rule["keeps_state"].number) state = {state.last, out.state.hidden, out.state.cell};
      if (rule["writes"].number) {
        found.tokens.push_back(label);
        found.frames.push_back(frame);
        found.score += out.log_probs[label];
        state = {label, state.hidden, state.cell};
        ++written;
      }
      if (rule["moves_frames"].number) written = 0;
      frame += rule["moves_frames"].integer();
    }
    found.text = text(found.tokens);
    return found;
  }

  // Return the lexicon's best words for frames, best first.
  std::vector<Word> search(const Rows& frames) {
    const double weight = search_["prior_weight"].number;
    std::vector<Hypothesis> beam{{start(), {}, 0, 0, weight * lexicon_.best(0)}};
    for (const auto& frame : frames) beam = merged(closed(std::move(beam), frame));
    struct Sum { const Hypothesis* likeliest; double log_prob; };
    std::map<int, Sum> sums;
    for (const Hypothesis& item : beam) {
      if (std::isinf(lexicon_.prior(item.node))) continue;
      auto [at, is_new] = sums.insert({item.node, {&item, item.log_prob}});
      if (is_new) continue;
      at->second.log_prob = log_add(at->second.log_prob, item.log_prob);
      if (item.log_prob > at->second.likeliest->log_prob) at->second.likeliest = &item;
    }
    std::vector<Word> words;
    for (const auto& [node, sum] : sums) {
      const auto& tokens = sum.likeliest->tokens;
      words.push_back({text(tokens), tokens, sum.log_prob + weight * lexicon_.prior(node), sum.log_prob});
    }
    std::stable_sort(words.begin(), words.end(), [](const Word& a, const Word& b) { return a.score > b.score; });
    if (words.size() > search_["top"].number) words.resize(search_["top"].integer());
    return words;
  }

 private:
  struct Predicted { std::vector<float> output, hidden, cell; };
  struct State { int last; std::vector<float> hidden, cell; mutable std::shared_ptr<const Predicted> asked = {}; };
  struct Hypothesis { State state; std::vector<int> tokens; int node; double log_prob, outlook; };
  struct Stepped { std::vector<float> raw; std::vector<double> log_probs; State state; };

  static double log_add(double a, double b) { return std::max(a, b) + std::log1p(std::exp(-std::abs(a - b))); }
  template <class T> static double rank(const T& item) { return item.log_prob + item.outlook; }
  template <class T> static void sort_by_rank(std::vector<T>& items) {
    std::stable_sort(items.begin(), items.end(), [](const T& a, const T& b) { return rank(a) > rank(b); });
  }

  // Take a beam through one frame: rounds of labels, each hypothesis closed by a blank.
  std::vector<Hypothesis> closed(std::vector<Hypothesis> beam, const std::vector<float>& frame) {
    struct Grown { int row; Lexicon::Continuation next; double log_prob, outlook; };
    const double weight = search_["prior_weight"].number;
    std::vector<Hypothesis> closed;
    double best = -INFINITY;
    for (int emitted = 0; !beam.empty(); ++emitted) {
      std::vector<const State*> states;
      for (const Hypothesis& item : beam) states.push_back(&item.state);
      const std::vector<Stepped> out = run(states, frame);
      for (size_t row = 0; row < beam.size(); ++row) {
        closed.push_back(beam[row]);
        closed.back().log_prob += out[row].log_probs[blank_];
        best = std::max(best, rank(closed.back()));
      }
      if (emitted == search_["max_symbols"].integer()) break;
      std::vector<Grown> grown;
      double limit = best;
      for (size_t row = 0; row < beam.size(); ++row)
        for (const auto& next : lexicon_.continuations(beam[row].node, beam[row].tokens.empty())) {
          grown.push_back({int(row), next, beam[row].log_prob + out[row].log_probs[next.label], weight * lexicon_.best(next.node)});
          limit = std::max(limit, rank(grown.back()));
        }
      limit -= search_["threshold_nats"].number;
      sort_by_rank(grown);
      std::vector<Hypothesis> longer;
      for (const Grown& item : grown) {
        if (longer.size() == search_["beam"].number || rank(item) < limit) break;
        std::vector<int> tokens = beam[item.row].tokens;
        tokens.push_back(item.next.label);
        const State& state = out[item.row].state;
        longer.push_back({{item.next.label, state.hidden, state.cell}, tokens, item.next.node, item.log_prob, item.outlook});
      }
      beam = std::move(longer);
    }
    return closed;
  }

  // Add up equal sequences of labels, whose states are equal too, and keep the best.
  std::vector<Hypothesis> merged(const std::vector<Hypothesis>& closed) const {
    std::map<std::vector<int>, Hypothesis> sums;
    for (const Hypothesis& item : closed) {
      auto [at, is_new] = sums.insert({item.tokens, item});
      if (!is_new) at->second.log_prob = log_add(at->second.log_prob, item.log_prob);
    }
    std::vector<Hypothesis> ranked;
    for (auto& sum : sums) ranked.push_back(std::move(sum.second));
    sort_by_rank(ranked);
    const double limit = rank(ranked[0]) - search_["threshold_nats"].number;
    size_t kept = 0;
    while (kept < ranked.size() && kept < search_["beam"].number && rank(ranked[kept]) >= limit) ++kept;
    ranked.resize(kept);
    return ranked;
  }

  // Call the step, for as many states at once as the file takes.
  std::vector<Stepped> run(const std::vector<const State*>& states, const std::vector<float>& frame) {
    const int size = fixed_batch_ ? fixed_batch_ : states.size();
    std::vector<Stepped> found;
    if (joint_) for (const State* state : states) found.push_back(run_apart(*state, frame));
    else for (size_t first = 0; first < states.size(); first += size) {
      const int rows = std::min<int>(size, states.size() - first);
      std::vector<float> labels(size), frames(size * d_model_), hidden(layers_ * size * width_), cell(hidden.size());
      for (int row = 0; row < rows; ++row) {
        const State& state = *states[first + row];
        labels[row] = state.last;
        std::copy(frame.begin(), frame.end(), frames.begin() + row * d_model_);
        for (int layer = 0; layer < layers_; ++layer) {
          const int from = layer * width_, to = (layer * size + row) * width_;
          std::copy_n(state.hidden.begin() + from, width_, hidden.begin() + to);
          std::copy_n(state.cell.begin() + from, width_, cell.begin() + to);
        }
      }
      const std::vector<int> shape{layers_, size, width_};
      step_.run({labels, hidden, cell, frames}, {{size}, shape, shape, {size, d_model_}});
      for (int row = 0; row < rows; ++row) {
        std::vector<float> raw(step_.floats(0) + row * vocab_, step_.floats(0) + (row + 1) * vocab_);
        State state = start();
        for (int layer = 0; layer < layers_; ++layer) {
          const int from = (layer * size + row) * width_, to = layer * width_;
          std::copy_n(step_.floats(1) + from, width_, state.hidden.begin() + to);
          std::copy_n(step_.floats(2) + from, width_, state.cell.begin() + to);
        }
        found.push_back({raw, log_probs(raw), state});
      }
    }
    return found;
  }

  // The same of a state whose prediction network is asked once: as long as it writes no label.
  Stepped run_apart(const State& state, const std::vector<float>& frame) {
    const std::vector<int> shape{layers_, 1, width_};
    if (!state.asked) {
      step_.run({{float(state.last)}, state.hidden, state.cell}, {{1}, shape, shape});
      state.asked = std::make_shared<Predicted>(Predicted{step_.all(0), step_.all(1), step_.all(2)});
    }
    joint_->run({frame, state.asked->output}, {{1, d_model_}, {1, width_}});
    const std::vector<float> raw = joint_->all(0);
    return {raw, log_probs(raw), {0, state.asked->hidden, state.asked->cell}};
  }

  std::vector<double> log_probs(const std::vector<float>& raw) const {
    std::vector<double> values(raw.begin(), raw.end());
    if (gives_log_probs_) return values;
    const double highest = *std::max_element(values.begin(), values.end());
    const double sum = std::accumulate(values.begin(), values.end(), 0.0, [&](double total, double value) { return total + std::exp(value - highest); });
    for (double& value : values) value -= highest + std::log(sum);
    return values;
  }

  State start() const {
    return {spec_["start_symbol"].integer(), std::vector<float>(layers_ * width_), std::vector<float>(layers_ * width_)};
  }

  std::string text(const std::vector<int>& tokens) const {
    std::string joined;
    for (int token : tokens) joined += spec_["labels"][token].text;
    for (size_t at; (at = joined.find("▁")) != std::string::npos;) joined.replace(at, std::string("▁").size(), at ? " " : "");
    return joined.substr(0, joined.find_last_not_of(' ') + 1);
  }

  const Json &spec_, &search_;
  Program &encoder_, &step_, *joint_;  // with a joint of its own, the step is the prediction network alone
  const Lexicon& lexicon_;
  int layers_, width_, d_model_, vocab_, blank_, fixed_batch_;  // of the step; 0: any
  bool gives_log_probs_;
};
