// Run an ExecuTorch program on a phone, and time it there: `run_phone FILE`
//
// The runner of the emulated devices (run_pte.cpp) with three more requests, which it has no use
// for: an emulator's clock tells nothing. Answers are nanoseconds and bytes, as int64:
//   `timed COUNT RUNS` and the inputs: processor time and time that passed, of all runs
//   `loaded 0`: what loading took      `memory 0`: resident before loading, and the peak since
#include <chrono>
#include <cstdint>
#include <ctime>

#define main main_without_clock
#include "run_pte.cpp"
#undef main

static int64_t clock_ns(clockid_t id) {
    timespec now;
    clock_gettime(id, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

// A line of /proc/self/status, in bytes.
static int64_t status_bytes(const char *key) {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.rfind(key, 0) == 0) return 1024 * std::stoll(line.substr(strlen(key)));
    throw std::runtime_error("the kernel does not tell how much memory is used");
}

static Tensor numbers(const char *name, const std::vector<int64_t> &values) {
    Tensor tensor{name, "int64", {std::to_string(values.size())}, {}};
    const char *bytes = reinterpret_cast<const char *>(values.data());
    tensor.bytes.assign(bytes, bytes + values.size() * sizeof values[0]);
    return tensor;
}

static Tensor timed(Session &session, std::vector<Tensor> &inputs, int runs) {
    const int64_t wall = clock_ns(CLOCK_MONOTONIC), processor = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    while (runs-- > 0) session.run(inputs);
    return numbers("ns", {clock_ns(CLOCK_PROCESS_CPUTIME_ID) - processor,
                          clock_ns(CLOCK_MONOTONIC) - wall});
}

int main(int, char **arguments) {
    executorch::runtime::runtime_init();
    executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(1);
    try {
        const int64_t resident = status_bytes("VmRSS:"), begun = clock_ns(CLOCK_MONOTONIC);
        Session session(arguments[1]);
        const int64_t load_ns = clock_ns(CLOCK_MONOTONIC) - begun;
        session.declare();
        for (std::string line; frames::read_line(line);) {
            const auto words = frames::split(line, ' ');
            try {
                std::vector<Tensor> inputs;
                for (int left = std::stoi(words.at(1)); left > 0; --left)
                    inputs.push_back(frames::read_tensor());
                if (words[0] == "loaded")
                    frames::write("outputs", {numbers("ns", {load_ns})});
                else if (words[0] == "memory")
                    frames::write("outputs",
                                  {numbers("bytes", {resident, status_bytes("VmHWM:")})});
                else if (words[0] == "timed")
                    frames::write("outputs", {timed(session, inputs, std::stoi(words.at(2)))});
                else
                    frames::write("outputs", session.run(inputs));
            } catch (const std::exception &error) {
                frames::write_failure(error.what());
            }
        }
        return 0;
    } catch (const std::exception &error) {
        frames::write_failure(error.what());
        return 1;
    }
}
