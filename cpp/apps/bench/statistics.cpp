#include "apps/bench/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>

namespace ovfast::bench {
namespace {

constexpr size_t kExact = 100;

void require_values(const std::vector<double>& values) {
    if (values.empty()) throw std::invalid_argument("expected at least one value, got none");
}

// How often each rank sum occurs among the 2^n signs of n pairs.
std::vector<double> signed_rank_counts(size_t n) {
    std::vector<double> counts(n * (n + 1) / 2 + 1);
    counts[0] = 1.0;
    size_t reached = 0;
    for (size_t rank = 1; rank <= n; ++rank) {
        reached += rank;
        for (size_t sum = reached; sum >= rank; --sum) counts[sum] += counts[sum - rank];
    }
    return counts;
}

// How often each value of U occurs among the orders of m and n values: the coefficients of the
// Gaussian binomial, product of (1 - q^(n+i)) / (1 - q^i) for i to m.
std::vector<double> rank_sum_counts(size_t m, size_t n) {
    std::vector<double> counts(m * n + 1);
    counts[0] = 1.0;
    for (size_t i = 1; i <= m; ++i) {
        for (size_t u = counts.size(); u-- > n + i;) counts[u] -= counts[u - n - i];
        for (size_t u = i; u < counts.size(); ++u) counts[u] += counts[u - i];
    }
    return counts;
}

// An interval leaves out `cut` of the ranked values at each end; `tail` is the probability that
// more would have been right.
struct Cut {
    size_t cut = 0;
    double tail = 0.0;
};

// The largest cut whose two tails stay within what `confidence` leaves.
std::optional<Cut> exact_cut(const std::vector<double>& counts, double confidence) {
    const double all = std::accumulate(counts.begin(), counts.end(), 0.0);
    std::optional<Cut> found;
    double below = 0.0;
    for (size_t k = 0; 2 * k < counts.size(); ++k) {
        below += counts[k];
        if (2.0 * below / all > 1.0 - confidence) break;
        found = Cut{k, below / all};
    }
    return found;
}

Cut normal_cut(double mean, double deviation, double confidence) {
    double z = 0.0;  // of the normal distribution, by bisection of its tail
    for (double step = 4.0; step > 1e-9; step /= 2.0) {
        if (std::erfc((z + step) / std::sqrt(2.0)) > 1.0 - confidence) z += step;
    }
    const double cut = std::max(0.0, std::floor(mean - z * deviation) - 1.0);
    return {static_cast<size_t>(cut), (1.0 - confidence) / 2.0};
}

std::vector<double> logarithms(const std::vector<double>& values) {
    require_values(values);
    std::vector<double> logs;
    for (const double value : values) {
        if (!(value > 0.0) || std::isinf(value)) {
            throw std::invalid_argument("a ratio needs positive values, got " +
                                        std::to_string(value));
        }
        logs.push_back(std::log(value));
    }
    return logs;
}

// The smallest n for which `counts(n)` gives an interval.
size_t smallest(const std::function<std::vector<double>(size_t)>& counts, double confidence) {
    size_t n = 1;
    while (n < kExact && !exact_cut(counts(n), confidence)) ++n;
    return n;
}

void fill(Ratio& ratio, std::vector<double> differences, const std::optional<Cut>& cut) {
    std::sort(differences.begin(), differences.end());
    ratio.estimate = std::exp(median(differences));
    if (!cut) return;
    ratio.low = std::exp(differences[cut->cut]);
    ratio.high = std::exp(differences[differences.size() - 1 - cut->cut]);
    ratio.confidence = 1.0 - 2.0 * cut->tail;
}

}  // namespace

double percentile(const std::vector<double>& sorted, double p) {
    require_values(sorted);
    if (!(p > 0.0 && p <= 100.0)) {
        throw std::invalid_argument("percentile is " + std::to_string(p) +
                                    ", expected one in (0, 100]");
    }
    // Minus a hair: 100 * 0.07 is 7.000000000000001.
    const double rank = std::ceil(static_cast<double>(sorted.size()) * p / 100.0 - 1e-9);
    return sorted[static_cast<size_t>(std::max(rank, 1.0)) - 1];
}

double median(std::vector<double> values) {
    require_values(values);
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    if (values.size() % 2 == 1) return *middle;
    return (*std::max_element(values.begin(), middle) + *middle) / 2.0;
}

Summary summarize(std::vector<double> values) {
    Summary summary;
    summary.count = values.size();
    if (values.empty()) return summary;
    std::sort(values.begin(), values.end());
    const auto count = static_cast<double>(values.size());
    summary.mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
    double squares = 0.0;
    for (const double value : values) squares += (value - summary.mean) * (value - summary.mean);
    if (values.size() > 1) summary.deviation = std::sqrt(squares / (count - 1.0));
    summary.min = values.front();
    summary.max = values.back();
    summary.p50 = percentile(values, 50);
    summary.p90 = percentile(values, 90);
    summary.p99 = percentile(values, 99);
    summary.median = median(std::move(values));
    return summary;
}

Ratio paired_ratio(const std::vector<double>& a, const std::vector<double>& b, double confidence) {
    if (a.size() != b.size()) {
        throw std::invalid_argument("pairs need as many values of both, got " +
                                    std::to_string(a.size()) + " and " + std::to_string(b.size()));
    }
    const std::vector<double> log_a = logarithms(a);
    const std::vector<double> log_b = logarithms(b);
    const size_t n = a.size();
    std::vector<double> walsh;  // means of every two differences
    for (size_t i = 0; i < n; ++i) {
        for (size_t j = i; j < n; ++j) {
            walsh.push_back((log_b[i] - log_a[i] + log_b[j] - log_a[j]) / 2.0);
        }
    }
    Ratio ratio;
    ratio.of_medians = median(b) / median(a);
    ratio.needed = smallest(signed_rank_counts, confidence);
    const auto count = static_cast<double>(n);
    const double mean = count * (count + 1.0) / 4.0;
    fill(ratio, std::move(walsh),
         n <= kExact ? exact_cut(signed_rank_counts(n), confidence)
                     : normal_cut(mean, std::sqrt(mean * (2.0 * count + 1.0) / 6.0), confidence));
    return ratio;
}

Ratio independent_ratio(const std::vector<double>& a, const std::vector<double>& b,
                        double confidence) {
    const std::vector<double> log_a = logarithms(a);
    const std::vector<double> log_b = logarithms(b);
    std::vector<double> differences;
    for (const double x : log_a) {
        for (const double y : log_b) differences.push_back(y - x);
    }
    Ratio ratio;
    ratio.of_medians = median(b) / median(a);
    ratio.needed = smallest([](size_t n) { return rank_sum_counts(n, n); }, confidence);
    const auto m = static_cast<double>(a.size());
    const auto n = static_cast<double>(b.size());
    fill(ratio, std::move(differences),
         std::max(a.size(), b.size()) <= kExact
             ? exact_cut(rank_sum_counts(a.size(), b.size()), confidence)
             : normal_cut(m * n / 2.0, std::sqrt(m * n * (m + n + 1.0) / 12.0), confidence));
    return ratio;
}

Verdict judge(const Ratio& ratio, bool smaller_is_better) {
    if (!ratio.low) return Verdict::kTooFewRuns;
    if (*ratio.high < 1.0) return smaller_is_better ? Verdict::kFaster : Verdict::kSlower;
    if (*ratio.low > 1.0) return smaller_is_better ? Verdict::kSlower : Verdict::kFaster;
    return Verdict::kNoDifference;
}

const char* to_string(Verdict verdict) {
    switch (verdict) {
        case Verdict::kFaster:
            return "faster";
        case Verdict::kSlower:
            return "slower";
        case Verdict::kNoDifference:
            return "no difference shown";
        case Verdict::kTooFewRuns:
            return "too few runs";
    }
    return "unknown";
}

std::vector<double> poisson_arrivals(size_t count, double rate, uint64_t seed) {
    if (!(rate > 0.0) || std::isinf(rate)) {
        throw std::invalid_argument("the rate is " + std::to_string(rate) +
                                    ", expected requests a second, more than 0");
    }
    // Not std::exponential_distribution: each library draws from it in its own way.
    std::mt19937_64 random(seed);
    std::vector<double> times;
    double now = 0.0;
    for (size_t i = 0; i < count; ++i) {
        times.push_back(now);
        const double uniform = static_cast<double>(random() >> 11) * 0x1p-53;  // [0, 1)
        now -= std::log1p(-uniform) / rate;
    }
    return times;
}

}  // namespace ovfast::bench
