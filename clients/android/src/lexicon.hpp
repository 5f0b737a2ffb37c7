// words.tsv as a trie: what a search may write, and how common each word is.
#pragma once

#include <cmath>

#include "json.hpp"

class Lexicon {
 public:
  struct Node { unsigned char byte; int parent, child, sibling; float prior, best; };
  struct Continuation { int label, node; };

  // Bytes of UTF-8 are the letters: labels and words are joined bytes as they are joined characters.
  Lexicon(const std::string& text, const Json& spellings) : spellings_(spellings) {
    nodes_.push_back({0, 0, -1, -1, -INFINITY, -INFINITY});
    std::vector<int> last_child{-1}, path{0};
    std::string before;
    for (size_t at = 0, tab; (tab = text.find('\t', at)) != std::string::npos; at = text.find('\n', tab) + 1) {
      const std::string word = text.substr(at, tab - at);
      size_t shared = 0;
      while (shared < before.size() && shared < word.size() && before[shared] == word[shared]) ++shared;
      path.resize(shared + 1);
      for (size_t i = shared; i < word.size(); ++i) {
        const int node = nodes_.size(), above = path.back();
        nodes_.push_back({static_cast<unsigned char>(word[i]), above, -1, -1, -INFINITY, -INFINITY});
        (last_child[above] < 0 ? nodes_[above].child : nodes_[last_child[above]].sibling) = node;
        last_child[above] = node;
        last_child.push_back(-1);
        path.push_back(node);
      }
      nodes_[path.back()].prior = std::strtof(text.c_str() + tab + 1, nullptr);
      before = word;
    }
    for (int node = nodes_.size() - 1; node >= 0; --node) {
      Node& own = nodes_[node];
      own.best = std::max(own.best, own.prior);
      nodes_[own.parent].best = std::max(nodes_[own.parent].best, own.best);
    }
  }

  // Log share of a word, -inf for a prefix that is none; and the highest of the words behind a prefix.
  double prior(int node) const { return nodes_[node].prior; }
  double best(int node) const { return nodes_[node].best; }

  // Each label that may follow a prefix, and the node that it leads to.
  std::vector<Continuation> continuations(int node, bool is_first) const {
    std::vector<Continuation> found;
    for (const Json& item : spellings_.items) {
      const std::string& letters = item["letters"].text;
      if ((item["starts"].number || letters.empty()) && !is_first) continue;
      int reached = node;
      for (size_t i = 0; i < letters.size() && reached >= 0; ++i) {
        reached = nodes_[reached].child;
        while (reached >= 0 && nodes_[reached].byte != static_cast<unsigned char>(letters[i])) reached = nodes_[reached].sibling;
      }
      if (reached >= 0) found.push_back({item["label"].integer(), reached});
    }
    return found;
  }

 private:
  const Json& spellings_;
  std::vector<Node> nodes_;
};
