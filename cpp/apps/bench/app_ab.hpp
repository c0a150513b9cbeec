#pragma once

#include <string>
#include <vector>

#include "apps/bench/infer_loop.hpp"
#include "apps/bench/options.hpp"

namespace ovfast::bench {

inline constexpr int kAbRounds = 8;  // six give an interval of 95 %

/// The command line of B: A's, and after it what -ab changes, "nstreams=2,hint=none" or a JSON file
/// with an object of option names. Throws UsageError naming what is wrong.
std::vector<std::string> ab_arguments(int argc, const char* const* argv,
                                      const std::string& changes);

/// Throws std::runtime_error for options that ask for reports or nothing to measure.
void check_ab(const Options& options);

/// The part of a loop that one of kAbRounds rounds has.
LoopPlan ab_part(const LoopPlan& whole);

/// B against A: throughput and median latency, round by round.
class AbFigures {
public:
    /// A round of A (0) or B (1). One that was interrupted does not count.
    void add(size_t side, Measured measured);
    std::string text() const;

private:
    std::vector<double> throughput_[2], latency_[2];
};

}  // namespace ovfast::bench
