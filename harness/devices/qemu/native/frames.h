// What a runner and the gate say to each other, over standard input and output.
//
// A message is a line `WORD COUNT` and so many tensors; a tensor is a line
// `NAME DTYPE AXIS,AXIS,...` and its bytes. What went wrong is a line `failed MESSAGE`. The gate
// says `run` with the inputs, the runner answers `outputs`; it began with `inputs` and `outputs`,
// as the file declares them (axes may be names there, and no bytes follow).
#pragma once
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace frames {

struct Tensor {
    std::string name;
    std::string dtype;
    std::vector<std::string> axes;
    std::vector<char> bytes;
};

inline size_t item_bytes(const std::string &dtype) {
    if (dtype == "float32" || dtype == "int32") return 4;
    if (dtype == "int64") return 8;
    if (dtype == "float16") return 2;
    throw std::runtime_error("no runner takes a tensor of dtype " + dtype);
}

inline std::vector<int64_t> sizes(const Tensor &tensor) {
    std::vector<int64_t> found;
    for (const auto &axis : tensor.axes) found.push_back(std::stoll(axis));
    return found;
}

inline bool read_line(std::string &line) {
    line.clear();
    for (int c; (c = getchar()) != EOF;) {
        if (c == '\n') return true;
        line += static_cast<char>(c);
    }
    return false;
}

inline std::vector<std::string> split(const std::string &text, char at) {
    std::vector<std::string> found;
    size_t begin = 0;
    for (size_t end; (end = text.find(at, begin)) != std::string::npos; begin = end + 1)
        found.push_back(text.substr(begin, end - begin));
    if (begin < text.size()) found.push_back(text.substr(begin));
    return found;
}

inline Tensor read_tensor() {
    std::string line;
    if (!read_line(line)) throw std::runtime_error("the request was cut short");
    const auto words = split(line, ' ');
    Tensor tensor{words.at(0), words.at(1), {}, {}};
    if (words.size() > 2) tensor.axes = split(words[2], ',');
    size_t count = item_bytes(tensor.dtype);
    for (int64_t size : sizes(tensor)) count *= static_cast<size_t>(size);
    tensor.bytes.resize(count);
    if (fread(tensor.bytes.data(), 1, count, stdin) != count)
        throw std::runtime_error("the request was cut short");
    return tensor;
}

// Whether a request came; none comes any more once the gate has closed the pipe.
inline bool read_request(std::vector<Tensor> &inputs) {
    std::string line;
    if (!read_line(line)) return false;
    const auto words = split(line, ' ');
    inputs.clear();
    for (int left = std::stoi(words.at(1)); left > 0; --left) inputs.push_back(read_tensor());
    return true;
}

inline void write(const char *word, const std::vector<Tensor> &tensors) {
    printf("%s %zu\n", word, tensors.size());
    for (const auto &tensor : tensors) {
        printf("%s %s ", tensor.name.c_str(), tensor.dtype.c_str());
        for (size_t k = 0; k < tensor.axes.size(); ++k)
            printf("%s%s", k ? "," : "", tensor.axes[k].c_str());
        putchar('\n');
        fwrite(tensor.bytes.data(), 1, tensor.bytes.size(), stdout);
    }
    fflush(stdout);
}

inline void write_failure(std::string message) {
    for (char &c : message)
        if (c == '\n') c = ' ';
    printf("failed %s\n", message.c_str());
    fflush(stdout);
}

// No kernel has this call: the plugin that counts instructions sees it (count_arm64.c).
inline void mark(long marker) { syscall(9999, marker); }

// Answer requests until the gate closes the pipe.
template <class Run>
void serve(Run run) {
    std::vector<Tensor> inputs;
    while (read_request(inputs)) {
        try {
            write("outputs", run(inputs));
        } catch (const std::exception &error) {
            write_failure(error.what());
        }
    }
}

}  // namespace frames
