#include "apps/bench/console.hpp"

#include <array>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <stdexcept>

namespace ovfast::bench {
namespace {

constexpr std::array step_names = {
    "Parsing and validating input arguments",
    "Loading OpenVINO Runtime",
    "Setting device configuration",
    "Reading model files",
    "Resizing model to match image sizes and given batch",
    "Configuring input of the model",
    "Loading the model to the device",
    "Querying optimal runtime parameters",
    "Creating infer requests and preparing input tensors",
    "Measuring performance",
    "Dumping statistics report",
};

}  // namespace

// Flushed line by line: whoever reads a pipe sees what is being done.
void log_info(std::string_view text) {
    std::cout << "[ INFO ] " << text << std::endl;
}
void log_warning(std::string_view text) {
    std::cout << "[ WARNING ] " << text << std::endl;
}
void log_error(std::string_view text) {
    std::cout << "[ ERROR ] " << text << std::endl;
}

void Steps::next(std::string_view info) {
    std::cout << "[Step " << step_ + 1 << '/' << step_names.size() << "] " << step_names.at(step_);
    if (!info.empty()) std::cout << " (" << info << ')';
    std::cout << std::endl;
    ++step_;
}

std::string fixed(double value, int digits) {
    std::array<char, 400> text;  // the largest double has 309 digits
    const int length = std::snprintf(text.data(), text.size(), "%.*f", digits, value);
    return {text.data(), static_cast<size_t>(length)};
}

long peak_virtual_kib() {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
        if (word != "VmPeak:") continue;
        long kib = 0;
        if (status >> kib) return kib;
    }
    throw std::runtime_error("/proc/self/status: expected a line VmPeak, found none");
}

}  // namespace ovfast::bench
