#include "apps/bench/machine.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "apps/bench/statistics.hpp"
#include "kernels/peak_rate.hpp"
#include "ovfast/host.hpp"

namespace ovfast::bench {
namespace {

using Clock = std::chrono::steady_clock;
using kernels::PeakLoop;

// Some 10 ms a loop: longer than processors take to change their clock.
constexpr double kLoopSeconds = 0.01;
constexpr double kBusyShare = 0.05;
constexpr double kNoisySpread = 0.25;

template <typename T>
T read_one(const std::string& path, T otherwise) {
    std::ifstream file(path);
    T value{};
    return file >> value ? value : otherwise;
}

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// The slowest thread counts: the work is even, as in the kernels.
double rate_of(const PeakLoop& loop, int threads) {
    const auto start = Clock::now();
    loop.run(2000);
    const double once = std::max(seconds_since(start), 1e-7) / 2000.0;
    const auto iterations = static_cast<int64_t>(kLoopSeconds / once) + 1;
    std::vector<double> taken(static_cast<size_t>(threads));
    std::vector<std::thread> workers;
    for (double& seconds : taken) {
        workers.emplace_back([&seconds, &loop, iterations] {
            loop.run(iterations / 8);  // wide multiplications take a moment to be allowed
            const auto begin = Clock::now();
            loop.run(iterations);
            seconds = seconds_since(begin);
        });
    }
    for (std::thread& worker : workers) worker.join();
    return loop.operations_per_iteration * static_cast<double>(iterations) * threads /
           *std::max_element(taken.begin(), taken.end());
}

// What kernels use at best: tiles where they are.
std::optional<PeakLoop> int8_loop() {
    const auto tiles = kernels::int8_tile_peak_loop();
    return tiles ? tiles : kernels::int8_peak_loop();
}

double rate_of(const std::optional<PeakLoop>& loop, int threads) {
    return loop ? rate_of(*loop, threads) : 0.0;
}

std::string instruction(const std::optional<PeakLoop>& loop) {
    return loop ? loop->instruction : "";
}

uint64_t parse_size(const std::string& text) {
    char* unit = nullptr;
    const uint64_t number = std::strtoull(text.c_str(), &unit, 10);
    return *unit == 'K' ? number << 10 : *unit == 'M' ? number << 20 : number;
}

// "0-3,8": how many that are.
int count_processors(const std::string& list) {
    int count = 0;
    std::istringstream stream(list);
    for (std::string part; std::getline(stream, part, ',');) {
        const size_t dash = part.find('-');
        count += dash == std::string::npos
                     ? 1
                     : std::atoi(part.c_str() + dash + 1) - std::atoi(part.c_str()) + 1;
    }
    return count;
}

std::string percent(double share) {
    std::ostringstream text;
    text << std::fixed << std::setprecision(0) << share * 100.0 << " %";
    return text.str();
}

}  // namespace

std::vector<CacheLevel> read_caches(const std::string& root) {
    std::vector<CacheLevel> caches;
    for (int index = 0;; ++index) {
        const std::string dir =
            root + "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
        CacheLevel cache;
        cache.level = read_one(dir + "level", 0);
        if (cache.level == 0) return caches;
        cache.type = read_one<std::string>(dir + "type", "");
        cache.bytes = parse_size(read_one<std::string>(dir + "size", "0"));
        cache.shared_by = count_processors(read_one<std::string>(dir + "shared_cpu_list", ""));
        caches.push_back(cache);
    }
}

MachineProbe::MachineProbe(int threads, int64_t megabytes) : threads_(threads) {
    if (threads < 1 || megabytes < 1) {
        throw std::invalid_argument("expected at least 1 thread and 1 MiB, got " +
                                    std::to_string(threads) + " and " + std::to_string(megabytes));
    }
    // Not zeros: pages that were never written are all one page.
    memory_.assign(static_cast<size_t>(megabytes) << 17, 1);
}

Rates MachineProbe::measure() {
    Rates rates;
    rates.read = read_rate(memory_, threads_);
    rates.int8 = rate_of(int8_loop(), threads_);
    rates.f32 = rate_of(kernels::f32_peak_loop(), threads_);
    measured_.push_back(rates);
    return rates;
}

MachineLimits MachineProbe::limits() const {
    const auto over = [this](double Rates::* rate) {
        std::vector<double> values;
        for (const Rates& rates : measured_) values.push_back(rates.*rate);
        return summarize(std::move(values));
    };
    const Summary read = over(&Rates::read);
    const Summary int8 = over(&Rates::int8);
    const Summary f32 = over(&Rates::f32);
    MachineLimits limits;
    limits.rates = {read.median, int8.median, f32.median};
    limits.int8_instruction = instruction(int8_loop());
    limits.f32_instruction = instruction(kernels::f32_peak_loop());
    limits.threads = threads_;
    limits.probes = measured_.size();
    limits.read_spread = read.spread();
    limits.int8_spread = int8.spread();
    limits.f32_spread = f32.spread();
    return limits;
}

std::optional<CpuTimes> read_cpu_times(const std::string& root) {
    std::ifstream stat(root + "/proc/stat");
    std::string name;
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already
    double ticks[8] = {};
    if (!(stat >> name) || name != "cpu") return std::nullopt;
    for (double& value : ticks) {
        if (!(stat >> value)) return std::nullopt;
    }
    const double second = static_cast<double>(sysconf(_SC_CLK_TCK));
    CpuTimes times;
    for (const double value : ticks) times.all += value / second;
    times.idle = (ticks[3] + ticks[4]) / second;
    times.steal = ticks[7] / second;
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    for (const timeval& part : {usage.ru_utime, usage.ru_stime}) {
        times.own += static_cast<double>(part.tv_sec) + static_cast<double>(part.tv_usec) * 1e-6;
    }
    return times;
}

BusyMeter::BusyMeter() : start_(read_cpu_times()), load_(read_one<double>("/proc/loadavg", 0.0)) {}

std::optional<Activity> BusyMeter::activity() const {
    const std::optional<CpuTimes> end = read_cpu_times();
    if (!start_ || !end || !(end->all > start_->all)) return std::nullopt;
    const double all = end->all - start_->all;
    const double busy = all - (end->idle - start_->idle) - (end->steal - start_->steal);
    Activity activity;
    // Ticks are hundredths of a second: a short time may come out as less than nothing.
    activity.others = std::max(0.0, busy - (end->own - start_->own)) / all;
    activity.steal = std::max(0.0, end->steal - start_->steal) / all;
    activity.load = load_;
    return activity;
}

std::vector<std::string> noise_warnings(const std::optional<Activity>& activity,
                                        const MachineLimits& limits) {
    std::vector<std::string> warnings;
    if (activity && activity->others > kBusyShare) {
        warnings.push_back("the machine was busy: other processes used " +
                           percent(activity->others) + " of the processor time");
    }
    if (activity && activity->steal > kBusyShare) {
        warnings.push_back("the hypervisor gave " + percent(activity->steal) +
                           " of the processor time to others (steal)");
    }
    if (limits.probes > 1) {
        const double spread = std::max({limits.read_spread, limits.int8_spread, limits.f32_spread});
        if (spread > kNoisySpread) {
            warnings.push_back("the machine's own rates differed by " + percent(spread) +
                               " between the probes: compare only what ran in alternation (--ab)");
        }
    }
    return warnings;
}

}  // namespace ovfast::bench
