#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "ovfast/host.hpp"

namespace ovfast {
namespace {

using Clock = std::chrono::steady_clock;

// Several sums, so that additions do not wait for each other.
uint64_t read(const uint64_t* first, const uint64_t* last) {
    std::array<uint64_t, 8> sums{};
    for (; first + sums.size() <= last; first += sums.size()) {
        for (size_t i = 0; i < sums.size(); ++i) sums[i] += first[i];
    }
    uint64_t sum = 0;
    for (const uint64_t part : sums) sum += part;
    return sum;
}

}  // namespace

double read_rate(const std::vector<uint64_t>& memory, int threads) {
    if (threads < 1) {
        throw std::invalid_argument("threads is " + std::to_string(threads) +
                                    ", expected at least 1");
    }
    const auto count = static_cast<size_t>(threads);
    std::vector<std::thread> workers;
    std::vector<uint64_t> sums(count);
    const auto start = Clock::now();
    for (size_t t = 0; t < count; ++t) {
        workers.emplace_back([&, t] {
            sums[t] = read(memory.data() + memory.size() * t / count,
                           memory.data() + memory.size() * (t + 1) / count);
        });
    }
    for (std::thread& worker : workers) worker.join();
    const double taken = std::chrono::duration<double>(Clock::now() - start).count();
    uint64_t sum = 0;
    for (const uint64_t part : sums) sum += part;
    // Also keeps the reading from being optimised away.
    if (sum + 8 * count < memory.size()) throw std::logic_error("memory was not read");
    return static_cast<double>(memory.size() * sizeof(uint64_t)) / taken;
}

double read_bandwidth(int threads, int64_t megabytes) {
    if (megabytes < 1) {
        throw std::invalid_argument("megabytes is " + std::to_string(megabytes) +
                                    ", expected at least 1");
    }
    if (threads < 0) {
        throw std::invalid_argument("threads is " + std::to_string(threads) +
                                    ", expected at least 1, or 0 to derive it");
    }
    const int count = threads != 0 ? threads : read_host_limits().threads;
    // Not zeros: pages that were never written are all one page.
    const std::vector<uint64_t> memory(static_cast<size_t>(megabytes) << 17, 1);
    std::array<double, 5> rates{};
    for (double& rate : rates) rate = read_rate(memory, count);
    std::sort(rates.begin(), rates.end());
    return rates[rates.size() / 2];
}

}  // namespace ovfast
