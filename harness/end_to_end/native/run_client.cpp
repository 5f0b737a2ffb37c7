// Drive the C++ client (clients/android) from swipe to word and say what it takes.
//
// run_client BUNDLE ENCODER STEP, then a request a line, each answered by a line of JSON:
//   add POINTS       keep a swipe, [[x, y, t], ...]; answered by its number
//   words N          its words
//   time RUNS N...   run each of the swipes so often; milliseconds of each run, by both clocks
//   leg RUNS N...    the same, the whole of it: seconds by both clocks
//   count N          run it between the markers that an emulator counts between
//   slower SHARE     burn so much of each run's processor time beside it: a client that is slower
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <sstream>

#include "client.hpp"

static double seconds(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}
static double processor() { return seconds(CLOCK_PROCESS_CPUTIME_ID); }
static double wall() { return seconds(CLOCK_MONOTONIC); }

static std::string escaped(const std::string& text) {
  std::string found;
  for (const char c : text) {
    if (c == '"' || c == '\\') found += '\\';
    found += c;
  }
  return found;
}

class Driver {
 public:
  Driver(const char* bundle, const char* encoder, const char* step) {
    const double begin = wall();
    client_ = std::make_unique<Client>(bundle, encoder, step);
    std::printf("{\"start_ms\":%.3f,\"self_test_ms\":%.3f}\n", 1e3 * (wall() - begin), client_->self_test_ms);
  }
  void answer(const std::string& request) {
    std::istringstream words(request);
    std::string what;
    words >> what;
    if (what == "add") {
      std::string points;
      std::getline(words, points);
      swipes_.push_back(points_of(Json::parse(points)));
      std::printf("{\"swipe\":%zu}\n", swipes_.size() - 1);
    } else if (what == "words") {
      print_words(one(words));
    } else if (what == "time") {
      time_each(words);
    } else if (what == "leg") {
      leg(words);
    } else if (what == "count") {
      const size_t swipe = one(words);
      syscall(9999, 0);
      decode(swipe);
      syscall(9999, 1);
      std::printf("{}\n");
    } else if (what == "slower") {
      words >> slower_;
      std::printf("{}\n");
    } else {
      throw std::runtime_error("unknown request " + what);
    }
  }

 private:
  static size_t one(std::istringstream& words) {
    size_t number = 0;
    if (!(words >> number)) throw std::runtime_error("no swipe is named");
    return number;
  }
  std::vector<Word> decode(size_t swipe) {
    const double begin = slower_ > 0 ? processor() : 0;
    auto found = client_->words(swipes_.at(swipe));
    if (slower_ > 0) {
      const double now = processor(), until = now + slower_ * (now - begin);
      while (processor() < until) {}
    }
    return found;
  }
  void print_words(size_t swipe) {
    std::string text;
    char score[32];
    for (const Word& word : decode(swipe)) {
      std::snprintf(score, sizeof score, "%.9g", word.score);
      text += (text.empty() ? "[\"" : ",[\"") + escaped(word.text) + "\"," + score + "]";
    }
    std::printf("{\"words\":[%s]}\n", text.c_str());
  }
  void time_each(std::istringstream& words) {
    int runs = 0;
    words >> runs;
    std::string walls, processors;
    char number[32];
    for (size_t swipe; words >> swipe;)
      for (int run = 0; run < runs; ++run) {
        const double at = wall(), cpu = processor();
        decode(swipe);
        std::snprintf(number, sizeof number, "%s%.4f", processors.empty() ? "" : ",", 1e3 * (processor() - cpu));
        processors += number;
        std::snprintf(number, sizeof number, "%s%.4f", walls.empty() ? "" : ",", 1e3 * (wall() - at));
        walls += number;
      }
    std::printf("{\"wall_ms\":[%s],\"processor_ms\":[%s]}\n", walls.c_str(), processors.c_str());
  }
  void leg(std::istringstream& words) {
    int runs = 0;
    words >> runs;
    std::vector<size_t> chosen;
    for (size_t swipe; words >> swipe;) chosen.push_back(swipe);
    const double at = wall(), cpu = processor();
    for (int run = 0; run < runs; ++run)
      for (const size_t swipe : chosen) decode(swipe);
    std::printf("{\"processor_s\":%.9f,\"wall_s\":%.9f}\n", processor() - cpu, wall() - at);
  }

  std::unique_ptr<Client> client_;
  std::vector<std::vector<Point>> swipes_;
  double slower_ = 0;
};

int main(int count, char** arguments) try {
  if (count != 4) throw std::runtime_error("usage: run_client BUNDLE ENCODER STEP");
  Driver driver(arguments[1], arguments[2], arguments[3]);
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line); std::fflush(stdout)) driver.answer(line);
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
