#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// Figures of a set of measurements. Everything here is exact: no resampling, no assumption of a
// distribution, the same result each time.
namespace ovfast::bench {

/// The value at nearest rank: sorted[ceil(n * p / 100) - 1]. `sorted` ascends; p is in (0, 100].
/// Throws std::invalid_argument for an empty set or another p.
double percentile(const std::vector<double>& sorted, double p);

/// The middle value, or the mean of the two in the middle. Throws for an empty set.
double median(std::vector<double> values);

struct Summary {
    size_t count = 0;
    double mean = 0.0, median = 0.0;
    double deviation = 0.0;  ///< standard deviation of the sample; 0 for one value
    double min = 0.0, max = 0.0;
    double p50 = 0.0, p90 = 0.0, p99 = 0.0;  ///< percentile()

    /// (max - min) / median; 0 when the median is.
    double spread() const { return median != 0.0 ? (max - min) / median : 0.0; }
};
/// All zero for an empty set.
Summary summarize(std::vector<double> values);

/// How many times as large B is as A.
struct Ratio {
    double of_medians = 0.0;  ///< median(B) / median(A)
    double estimate = 0.0;    ///< Hodges-Lehmann: the median of the ratios that the test ranks
    /// The interval, `confidence` of it at least; nothing when so few values cannot give one.
    std::optional<double> low, high;
    double confidence = 0.0;  ///< that the interval has exactly, as ranks come in steps
    size_t needed = 0;        ///< values of each (pairs) that give an interval at all
};
/// B / A of pairs that ran one after the other: Wilcoxon's signed ranks of log(b / a), exact up to
/// 100 pairs, else with the normal approximation. All values are positive. Throws
/// std::invalid_argument for none, sets of unequal size or values that are not positive.
Ratio paired_ratio(const std::vector<double>& a, const std::vector<double>& b,
                   double confidence = 0.95);
/// B / A of values that have nothing to do with each other: Mann and Whitney's ranks, exact up to
/// 100 values each, else with the normal approximation. Throws as paired_ratio(), but for sets of
/// unequal size.
Ratio independent_ratio(const std::vector<double>& a, const std::vector<double>& b,
                        double confidence = 0.95);

enum class Verdict { kFaster, kSlower, kNoDifference, kTooFewRuns };
/// Of B against A, when a smaller value is better or not.
Verdict judge(const Ratio& ratio, bool smaller_is_better);
/// "faster", "slower", "no difference shown", "too few runs".
const char* to_string(Verdict verdict);

/// Seconds from the start at which `count` requests of a Poisson process of `rate` a second arrive,
/// the first one at once. Same seed, same times. Throws std::invalid_argument for a rate that is
/// not positive.
std::vector<double> poisson_arrivals(size_t count, double rate, uint64_t seed);

}  // namespace ovfast::bench
