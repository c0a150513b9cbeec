#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// What the machine can do, and whether somebody else is using it at the same time.
namespace ovfast::bench {

/// Of the processor that this process runs on.
struct CacheLevel {
    int level = 0;
    std::string type;  ///< "Data", "Instruction", "Unified"
    uint64_t bytes = 0;
    int shared_by = 0;  ///< logical processors that share one
};
/// From /sys/devices/system/cpu/cpu0/cache, the nearest first; empty where there is none. `root`
/// stands in for "/" in tests.
std::vector<CacheLevel> read_caches(const std::string& root = "");

/// Rates of one moment, all threads together; 0 where the processor has no such instructions.
struct Rates {
    double read = 0.0;  ///< bytes a second from memory
    double int8 = 0.0;  ///< operations a second, a multiply-add counts as two
    double f32 = 0.0;
};

/// The limits of a machine: medians over the probes, and how much these differed.
struct MachineLimits {
    Rates rates;
    std::string int8_instruction, f32_instruction;  ///< empty where there is none
    int threads = 0;
    size_t probes = 0;
    /// (max - min) / median over the probes: what the machine's own noise is.
    double read_spread = 0.0, int8_spread = 0.0, f32_spread = 0.0;
};

/// Measures the rates again and again. Holds its memory as long as it lives, so that the peak of
/// the process less held_bytes() is the peak of what else it does.
class MachineProbe {
public:
    /// Throws std::invalid_argument for fewer than 1 thread or MiB.
    explicit MachineProbe(int threads, int64_t megabytes = 512);

    /// About 50 ms with the default memory.
    Rates measure();
    /// Of all measure() so far, of which there is one at least.
    MachineLimits limits() const;
    uint64_t held_bytes() const { return memory_.size() * sizeof(uint64_t); }

private:
    int threads_;
    std::vector<uint64_t> memory_;
    std::vector<Rates> measured_;
};

/// Processor time of the machine, from /proc/stat, and of this process, seconds.
struct CpuTimes {
    double all = 0.0;    ///< that passed, idle or not, all processors
    double idle = 0.0;   ///< waiting for disks included
    double steal = 0.0;  ///< that the hypervisor gave to others
    double own = 0.0;    ///< used by this process
};
/// Nothing when /proc/stat cannot be read. `root` as above.
std::optional<CpuTimes> read_cpu_times(const std::string& root = "");

/// Who used the processors while something was measured.
struct Activity {
    double others = 0.0;  ///< share of all processor time that other processes used
    double steal = 0.0;   ///< share that the hypervisor took
    double load = 0.0;    ///< the system's load average over the last minute, before
};

class BusyMeter {
public:
    BusyMeter();
    /// Since the constructor. Nothing when the system does not say.
    std::optional<Activity> activity() const;

private:
    std::optional<CpuTimes> start_;
    double load_ = 0.0;
};

/// Why figures may be worse than the machine: a sentence for each reason, none when it was quiet.
std::vector<std::string> noise_warnings(const std::optional<Activity>& activity,
                                        const MachineLimits& limits);

}  // namespace ovfast::bench
