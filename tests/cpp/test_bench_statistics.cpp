#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>

#include "apps/bench/statistics.hpp"

namespace ovfast::bench {
namespace {

using testing::DoubleNear;
using testing::ElementsAreArray;

std::vector<double> one_to(int n) {
    std::vector<double> values(static_cast<size_t>(n));
    std::iota(values.begin(), values.end(), 1.0);
    return values;
}

TEST(Percentile, NearestRank) {
    const std::vector<double> ten = one_to(10);
    EXPECT_EQ(percentile(ten, 50), 5);
    EXPECT_EQ(percentile(ten, 51), 6);
    EXPECT_EQ(percentile(ten, 90), 9);
    EXPECT_EQ(percentile(ten, 99), 10);
    EXPECT_EQ(percentile(ten, 100), 10);  // not one behind the last
    EXPECT_EQ(percentile(ten, 1), 1);
    EXPECT_EQ(percentile(one_to(100), 7), 7);  // 100 * 0.07 rounds up
    EXPECT_EQ(percentile({3.0}, 50), 3);
}

TEST(Percentile, RefusesWhatHasNone) {
    EXPECT_THROW(percentile({}, 50), std::invalid_argument);
    EXPECT_THROW(percentile({1.0}, 0), std::invalid_argument);
    EXPECT_THROW(percentile({1.0}, 100.5), std::invalid_argument);
    EXPECT_THROW(percentile({1.0}, std::nan("")), std::invalid_argument);
}

TEST(Median, OddAndEven) {
    EXPECT_EQ(median({3, 1, 2}), 2);
    EXPECT_EQ(median({4, 1, 3, 2}), 2.5);
    EXPECT_THROW(median({}), std::invalid_argument);
}

TEST(Summary, OfEightValues) {
    const Summary summary = summarize({2, 4, 4, 4, 5, 5, 7, 9});
    EXPECT_EQ(summary.count, 8U);
    EXPECT_DOUBLE_EQ(summary.mean, 5.0);
    EXPECT_DOUBLE_EQ(summary.median, 4.5);
    EXPECT_DOUBLE_EQ(summary.deviation, std::sqrt(32.0 / 7.0));
    EXPECT_EQ(summary.min, 2);
    EXPECT_EQ(summary.max, 9);
    EXPECT_EQ(summary.p50, 4);
    EXPECT_EQ(summary.p90, 9);
    EXPECT_DOUBLE_EQ(summary.spread(), 7.0 / 4.5);
    EXPECT_EQ(summarize({}).count, 0U);
    EXPECT_EQ(summarize({1.0}).deviation, 0.0);
}

// Of six pairs, all 21 means count: P(W = 0) = 1/64, twice that is within 5 %.
TEST(PairedRatio, SixPairsGiveTheirExtremes) {
    const std::vector<double> a{1, 1, 1, 1, 1, 1};
    const std::vector<double> b{1.1, 1.2, 1.3, 1.4, 1.5, 1.6};
    const Ratio ratio = paired_ratio(a, b);
    ASSERT_TRUE(ratio.low && ratio.high);
    EXPECT_DOUBLE_EQ(*ratio.low, 1.1);
    EXPECT_DOUBLE_EQ(*ratio.high, 1.6);
    EXPECT_DOUBLE_EQ(ratio.confidence, 1.0 - 2.0 / 64.0);
    EXPECT_DOUBLE_EQ(ratio.of_medians, 1.35);
    EXPECT_EQ(ratio.needed, 6U);
    EXPECT_EQ(judge(ratio, true), Verdict::kSlower);
    EXPECT_EQ(judge(ratio, false), Verdict::kFaster);
}

// Tables of the test: at n = 10 and 5 %, sums of 8 and less are rejected.
TEST(PairedRatio, TenPairsCutEightMeans) {
    const std::vector<double> a(10, 1.0);
    std::vector<double> b;
    for (const double i : one_to(10)) b.push_back(std::exp(i));
    const Ratio ratio = paired_ratio(a, b);
    std::vector<double> walsh;
    for (int i = 1; i <= 10; ++i) {
        for (int j = i; j <= 10; ++j) walsh.push_back((i + j) / 2.0);
    }
    std::sort(walsh.begin(), walsh.end());
    EXPECT_NEAR(std::log(*ratio.low), walsh[8], 1e-12);
    EXPECT_NEAR(std::log(*ratio.high), walsh[walsh.size() - 9], 1e-12);
    EXPECT_NEAR(ratio.confidence, 1.0 - 2.0 * 25.0 / 1024.0, 1e-12);  // 25 sets sum to 8 or less
}

TEST(PairedRatio, FewPairsGiveNoInterval) {
    const Ratio ratio = paired_ratio({1, 1, 1, 1, 1}, {2, 2, 2, 2, 2});
    EXPECT_FALSE(ratio.low);
    EXPECT_DOUBLE_EQ(ratio.estimate, 2.0);
    EXPECT_EQ(judge(ratio, true), Verdict::kTooFewRuns);
}

TEST(PairedRatio, RefusesWhatIsNoRatio) {
    EXPECT_THROW(paired_ratio({}, {}), std::invalid_argument);
    EXPECT_THROW(paired_ratio({1, 2}, {1}), std::invalid_argument);
    EXPECT_THROW(paired_ratio({0}, {1}), std::invalid_argument);
    EXPECT_THROW(paired_ratio({1}, {-1}), std::invalid_argument);
    EXPECT_THROW(paired_ratio({1}, {std::numeric_limits<double>::infinity()}),
                 std::invalid_argument);
}

// Tables: at 5 and 5 values and 5 %, U of 2 and less is rejected; 4 values each are the fewest.
TEST(IndependentRatio, FiveAndFiveCutTwo) {
    std::vector<double> a;
    std::vector<double> b;
    for (const double i : one_to(5)) {
        a.push_back(std::exp(i));
        b.push_back(std::exp(10 * i));
    }
    const Ratio ratio = independent_ratio(a, b);
    std::vector<double> differences;
    for (int i = 1; i <= 5; ++i) {
        for (int j = 1; j <= 5; ++j) differences.push_back(10 * i - j);
    }
    std::sort(differences.begin(), differences.end());
    EXPECT_NEAR(std::log(*ratio.low), differences[2], 1e-12);
    EXPECT_NEAR(std::log(*ratio.high), differences[22], 1e-12);
    EXPECT_NEAR(ratio.confidence, 1.0 - 2.0 * 4.0 / 252.0, 1e-12);  // 1 + 1 + 2 of C(10, 5)
    EXPECT_EQ(ratio.needed, 4U);
    EXPECT_FALSE(independent_ratio({1, 2, 3}, {4, 5, 6}).low);
    EXPECT_TRUE(independent_ratio({1, 2, 3, 4}, {5, 6, 7, 8}).low);
    EXPECT_TRUE(independent_ratio({1, 2}, one_to(8)).low);
}

TEST(IndependentRatio, SameValuesShowNoDifference) {
    const Ratio ratio = independent_ratio(one_to(9), one_to(9));
    EXPECT_DOUBLE_EQ(ratio.estimate, 1.0);
    EXPECT_EQ(judge(ratio, true), Verdict::kNoDifference);
}

// What an interval is for: it holds the true ratio as often as it says, whatever the distribution.
TEST(Ratios, HoldTheTrueRatioAsOftenAsTheySay) {
    std::mt19937_64 random(1);
    std::lognormal_distribution<double> noise(0.0, 0.2);
    constexpr int trials = 2000;
    int paired = 0;
    int independent = 0;
    int large = 0;
    for (int trial = 0; trial < trials; ++trial) {
        std::vector<double> a;
        std::vector<double> b;
        const size_t n = trial < 100 ? 150 : 8;  // the normal approximation too
        for (size_t i = 0; i < n; ++i) {
            a.push_back(10.0 * noise(random));
            b.push_back(12.0 * noise(random));
        }
        const Ratio with_pairs = paired_ratio(a, b);
        const Ratio without = independent_ratio(a, b);
        const int held = *with_pairs.low <= 1.2 && 1.2 <= *with_pairs.high ? 1 : 0;
        (n == 8 ? paired : large) += held;
        if (n == 8) independent += *without.low <= 1.2 && 1.2 <= *without.high ? 1 : 0;
    }
    // 95 % and more, by the steps of ranks; four standard deviations of 1900 draws are 2 %.
    EXPECT_GT(paired, 1900 * 0.94);
    EXPECT_LT(paired, 1900 * 0.985);
    EXPECT_GT(independent, 1900 * 0.94);
    EXPECT_LT(independent, 1900 * 0.985);
    EXPECT_GT(large, 86);
}

TEST(PoissonArrivals, KeepTheRateAndTheSeed) {
    const std::vector<double> times = poisson_arrivals(20001, 4.0, 7);
    EXPECT_EQ(times.front(), 0.0);
    EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
    EXPECT_THAT(poisson_arrivals(20001, 4.0, 7), ElementsAreArray(times));
    EXPECT_NE(poisson_arrivals(10, 4.0, 8), poisson_arrivals(10, 4.0, 7));
    // 20,000 gaps of a quarter second; their deviation equals their mean, as only this process has.
    std::vector<double> gaps;
    for (size_t i = 1; i < times.size(); ++i) gaps.push_back(times[i] - times[i - 1]);
    const Summary summary = summarize(gaps);
    EXPECT_THAT(summary.mean, DoubleNear(0.25, 0.01));
    EXPECT_THAT(summary.deviation, DoubleNear(0.25, 0.02));
    EXPECT_THROW(poisson_arrivals(1, 0.0, 1), std::invalid_argument);
    EXPECT_THROW(poisson_arrivals(1, -2.0, 1), std::invalid_argument);
}

}  // namespace
}  // namespace ovfast::bench
