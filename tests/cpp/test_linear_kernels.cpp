// Every kernel that this machine can run, by every weight format it supports: against sums in
// double of the numbers that the packed bytes and the activations stand for.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "kernel_test_data.hpp"
#include "kernels/linear.hpp"

namespace ovfast::kernels::test {
namespace {

constexpr size_t kPeriod = 19;  // distinct rows of activations: prime, so no tile height divides it
constexpr size_t kMostRows = 129;
constexpr float kGuard = 12345.0F;

/// What the packed numbers stand for, from the source's and not the packer's arithmetic.
struct Weight {
    double value;
    double magnitude;  ///< |scale| * code + |offset|: what rounding errors are relative to
};

Weight weight_at(const PlainWeights& plain, size_t row, size_t column) {
    const WeightFormat& format = plain.format;
    const size_t at = row * plain.columns + column;
    if (format.bits == 16) {
        const double value = format.floats == FloatKind::F16 ? from_f16(plain.floats[at])
                                                             : from_bf16(plain.floats[at]);
        return {value, std::fabs(value)};
    }
    const bool one = format.group >= plain.columns;
    const size_t group = one ? row : row * (plain.columns / format.group) + column / format.group;
    const size_t super =
        row * ((plain.columns + kSuperColumns - 1) / kSuperColumns) + column / kSuperColumns;
    const bool supers = !plain.scale_supers.empty();
    const double scale = supers ? double{plain.scale_supers[super]} * plain.scale_codes[group]
                                : double{plain.scales[group]};
    double offset = 0;
    switch (format.offsets) {
        case OffsetKind::Symmetric:
            offset = -scale * (1 << (format.bits - 1));
            break;
        case OffsetKind::HalfSymmetric:
            offset = -scale * ((1 << (format.bits - 1)) - 0.5);
            break;
        case OffsetKind::ZeroPoint:
            offset = -scale * plain.zero_points[group];
            break;
        case OffsetKind::SuperU8:
            offset = -double{plain.offset_supers[super]} * plain.offset_codes[group];
            break;
        default:
            offset = plain.offsets[group];
    }
    const double code = plain.codes[at];
    return {scale * code + offset, std::fabs(scale) * code + std::fabs(offset)};
}

std::vector<float> activation_values(size_t columns, Pattern pattern, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(kPeriod * columns);
    for (size_t i = 0; i < values.size(); ++i) {
        const size_t row = i / columns;
        float value = normal(random);
        if (pattern == Pattern::AllMax) value = row % 2 == 0 ? 3.0F : -3.0F;
        if (pattern == Pattern::Alternating) value = (i + row) % 2 == 0 ? 3.0F : -3.0F;
        if (pattern == Pattern::Zeros) value = row % 2 == 0 ? 0.0F : value;
        // Beside what is quantized there are groups of denormals, which become zeros.
        if (pattern == Pattern::Tiny) value *= i / 32 % 3 == 0 ? 1e-40F : 1e-20F;
        if (pattern == Pattern::Huge) value *= 1e12F;
        values[i] = value;
    }
    return values;
}

struct Expected {
    double value = 0;
    double absolute = 0;   ///< sum of |a| |w|
    double magnitude = 0;  ///< sum of |a| (|scale| code + |offset|)
    double largest = 0;    ///< |a w|
};

class Problem {
public:
    Problem(const WeightFormat& format, size_t rows, size_t columns, Pattern pattern,
            ActivationKind kind, size_t activation_group = 32)
        : plain_(plain_weights(format, rows, columns, pattern, 17)),
          weights_(plain_),
          values_(repeated(activation_values(columns, pattern, 29), columns)),
          activations_(values_, kMostRows, columns, *all_vector_kernels().front(),
                       activation_group),
          kind_(kind) {
        std::vector<Weight> of_row(columns);
        expected_.resize(kPeriod * rows);
        for (size_t n = 0; n < rows; ++n) {
            for (size_t k = 0; k < columns; ++k) of_row[k] = weight(n, k);
            for (size_t m = 0; m < kPeriod; ++m) {
                Expected& sum = expected_[m * rows + n];
                for (size_t k = 0; k < columns; ++k) {
                    const double a = activation(m, k);
                    const double product = a * of_row[k].value;
                    sum.value += product;
                    sum.absolute += std::fabs(product);
                    sum.magnitude += std::fabs(a) * of_row[k].magnitude;
                    sum.largest = std::max(sum.largest, std::fabs(product));
                }
            }
        }
    }

    const PackedWeights& weights() const { return weights_.view(); }
    const Activations& activations() const { return activations_.view(); }
    const Expected& expected(size_t m, size_t n) const {
        return expected_[m % kPeriod * plain_.rows + n];
    }

    double tolerance(size_t m, size_t n) const {
        constexpr double kHalfUlp = 0x1p-24;
        const Expected& sum = expected(m, n);
        const double columns = static_cast<double>(plain_.columns);
        // Results that are denormal, or products that were on their way.
        constexpr double kTiny = 1e-35;
        switch (kind_) {
            case ActivationKind::Int8: {
                // Integer sums are exact; each half chunk is then worth at most four roundings
                // (scale, product, sum of activations, addition) of something within `magnitude`.
                const double additions = 4 * (columns / 16 + 1) + 8;
                return additions * kHalfUlp * sum.magnitude + kTiny;
            }
            case ActivationKind::F32:
                // A rounding for each addition, two for each weight.
                return kHalfUlp * ((columns + 2) * sum.absolute + 2 * sum.magnitude) + kTiny;
            case ActivationKind::BF16:
                break;
        }
        // The products are exact, their sum is not. A weight within a rounding of f32 from the
        // middle of two bf16 numbers may become either: so do a few of a thousand.
        return kHalfUlp * (columns + 2) * sum.absolute + 4 * 0x1p-8 * sum.largest + kTiny;
    }

private:
    static std::vector<float> repeated(const std::vector<float>& values, size_t columns) {
        std::vector<float> all;
        for (size_t m = 0; m < kMostRows; ++m) {
            const auto row = values.begin() + static_cast<std::ptrdiff_t>(m % kPeriod * columns);
            all.insert(all.end(), row, row + static_cast<std::ptrdiff_t>(columns));
        }
        return all;
    }

    /// What the kernel is given.
    double activation(size_t m, size_t k) const {
        const Activations& all = activations_.view();
        const size_t at = m * all.padded + k;
        if (kind_ == ActivationKind::F32) return all.f32[at];
        if (kind_ == ActivationKind::BF16) return from_bf16(all.bf16[at]);
        return double{all.int8.scales[at / 32]} * all.int8.codes[at];
    }

    /// What the kernel multiplies with.
    Weight weight(size_t n, size_t k) const {
        Weight weight = weight_at(plain_, n, k);
        if (kind_ == ActivationKind::BF16) {
            weight.value = from_bf16(to_bf16(static_cast<float>(weight.value)));
        }
        return weight;
    }

    PlainWeights plain_;
    OwnedWeights weights_;
    std::vector<float> values_;
    OwnedActivations activations_;
    ActivationKind kind_;
    std::vector<Expected> expected_;
};

struct Range {
    size_t first_row, last_row, first_block, last_block;
};

/// Runs a part of a problem and compares all of the output: what was asked for with the expected
/// sums, the rest with what was there before.
void check(const LinearKernel& kernel, const Problem& problem, const Range& range) {
    const size_t columns = problem.weights().rows();
    const size_t stride = columns + 5;
    std::vector<float> out(kMostRows * stride + 16, kGuard);
    LinearArgs args;
    args.weights = &problem.weights();
    args.activations = &problem.activations();
    args.first_row = range.first_row;
    args.last_row = range.last_row;
    args.first_block = range.first_block;
    args.last_block = range.last_block;
    args.out = out.data();
    args.out_stride = stride;
    ASSERT_TRUE(run_guarded(kernel, args)) << "wrote behind its scratch";

    for (size_t i = 0; i < out.size(); ++i) {
        const size_t m = i / stride;
        const size_t n = i % stride;
        const bool asked = m >= range.first_row && m < range.last_row && n < columns &&
                           n / kBlockRows >= range.first_block && n / kBlockRows < range.last_block;
        if (!asked) {
            ASSERT_EQ(out[i], kGuard) << "row " << m << ", column " << n << " is not its to write";
            continue;
        }
        ASSERT_NEAR(out[i], problem.expected(m, n).value, problem.tolerance(m, n))
            << "row " << m << ", column " << n << ", of rows " << range.first_row << ".."
            << range.last_row << ", weights [" << columns << ", " << problem.weights().columns()
            << "]";
    }
}

bool takes(const LinearKernel& kernel, size_t rows) {
    return rows >= kernel.min_rows && rows <= kernel.max_rows;
}

struct Case {
    const LinearKernel* kernel;
    WeightFormat format;
};

void PrintTo(const Case& test, std::ostream* out) {
    *out << test.kernel->name << ", " << test.format.text();
}

/// Every kernel, or those that take one kind of activations, with every format that it supports.
std::vector<Case> cases(std::optional<ActivationKind> kind = std::nullopt) {
    std::vector<Case> all;
    for (const LinearKernel* kernel : linear_kernels()) {
        if (kind && kernel->activations != *kind) continue;
        for (const WeightFormat& format : formats()) {
            if (kernel->supports(format)) all.push_back({kernel, format});
        }
    }
    return all;
}

class LinearKernels : public testing::TestWithParam<Case> {
protected:
    static const LinearKernel& kernel() { return *GetParam().kernel; }
    static const WeightFormat& format() { return GetParam().format; }
    static size_t columns_that_fit() {
        for (const size_t columns : {256, 96}) {
            if (fits(format(), columns)) return columns;
        }
        return 1024;
    }
};

TEST_P(LinearKernels, GiveTheSumsOfEveryShape) {
    const std::pair<size_t, size_t> shapes[] = {
        {1, 16},    {1, 256},  {15, 32},   {15, 1000}, {16, 64},   {16, 1024},
        {17, 96},   {17, 128}, {33, 160},  {33, 512},  {33, 1000}, {100, 16},
        {100, 256}, {100, 64}, {17, 2048}, {64, 1024}, {144, 256}};
    size_t runs = 0;
    for (const auto& [rows, columns] : shapes) {
        if (!fits(format(), columns)) continue;
        const Problem problem(format(), rows, columns, Pattern::Random, kernel().activations);
        for (const size_t m : {1,  2,  3,  4,  5,  6,  7,  8,  9,  12,  13, 16,
                               17, 24, 31, 32, 33, 48, 49, 64, 65, 100, 129}) {
            // The largest shapes are there for their columns.
            const bool large = rows * columns > 20'000 && m > 17 && m < kMostRows;
            if (large || !takes(kernel(), m)) continue;
            check(kernel(), problem, {0, m, 0, problem.weights().blocks()});
            if (HasFatalFailure()) return;
            ++runs;
        }
    }
    EXPECT_GT(runs, 0U);
}

TEST_P(LinearKernels, GiveTheSumsOfExtremeValues) {
    for (const Pattern pattern : kPatterns) {
        SCOPED_TRACE("pattern " + std::to_string(static_cast<int>(pattern)));
        const Problem problem(format(), 33, columns_that_fit(), pattern, kernel().activations);
        for (const size_t m : {1, 4, 7, 32, 64}) {
            if (!takes(kernel(), m)) continue;
            check(kernel(), problem, {0, m, 0, problem.weights().blocks()});
            if (HasFatalFailure()) return;
        }
    }
}

TEST_P(LinearKernels, WorkOnPartsOfRowsAndBlocks) {
    const Problem problem(format(), 100, columns_that_fit(), Pattern::Random, kernel().activations);
    for (const size_t m : {1, 3, 7, 16, 33, 64}) {
        if (!takes(kernel(), m)) continue;
        for (const auto& [first_block, last_block] :
             std::vector<std::pair<size_t, size_t>>{{0, 1}, {2, 5}, {6, 7}, {1, 7}, {3, 3}}) {
            check(kernel(), problem, {5, 5 + m, first_block, last_block});
            if (HasFatalFailure()) return;
        }
    }
}

TEST_P(LinearKernels, LetNothingHideANanOrInfinity) {
    const size_t columns = columns_that_fit();
    const size_t rows = 33;
    const OwnedWeights weights(plain_weights(format(), rows, columns, Pattern::Random, 3));
    for (const size_t m : {1, 2, 6, 9, 40}) {
        if (!takes(kernel(), m)) continue;
        for (const float bad :
             {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
              -std::numeric_limits<float>::infinity()}) {
            for (size_t column : {size_t{0}, columns - 1}) {
                std::vector<float> values(m * columns, 0.5F);
                const size_t bad_row = m / 2;
                values[bad_row * columns + column] = bad;
                const OwnedActivations activations(values, m, columns,
                                                   *all_vector_kernels().front());
                std::vector<float> out(m * rows, kGuard);
                LinearArgs args;
                args.weights = &weights.view();
                args.activations = &activations.view();
                args.last_row = m;
                args.last_block = weights.view().blocks();
                args.out = out.data();
                args.out_stride = rows;
                ASSERT_TRUE(run_guarded(kernel(), args));
                for (size_t i = 0; i < out.size(); ++i) {
                    ASSERT_EQ(std::isfinite(out[i]), i / rows != bad_row)
                        << "row " << i / rows << ", column " << i % rows << ": " << out[i];
                    if (std::isnan(bad) || kernel().activations == ActivationKind::Int8) {
                        ASSERT_EQ(std::isnan(out[i]), i / rows == bad_row);
                    }
                }
            }
        }
    }
}

class Int8Kernels : public LinearKernels {};

// One scale of activations for 128 columns: groups of weights end before, with and behind it.
TEST_P(Int8Kernels, TakeLongGroupsOfActivations) {
    size_t runs = 0;
    for (const auto& [rows, columns] : std::vector<std::pair<size_t, size_t>>{
             {33, 32}, {33, 160}, {80, 640}, {17, 2048}, {33, 1000}}) {
        if (!fits(format(), columns)) continue;
        for (const Pattern pattern : {Pattern::Random, Pattern::AllMax}) {
            const Problem problem(format(), rows, columns, pattern, kernel().activations, 128);
            for (const size_t m : {1, 13, 64}) {
                if (!takes(kernel(), m)) continue;
                check(kernel(), problem, {0, m, 0, problem.weights().blocks()});
                if (HasFatalFailure()) return;
                ++runs;
            }
        }
    }
    EXPECT_GT(runs, 0U);
}

std::string case_name(const testing::TestParamInfo<Case>& test) {
    return test_name(std::string(test.param.kernel->name) + " " + test.param.format.text());
}

INSTANTIATE_TEST_SUITE_P(All, LinearKernels, testing::ValuesIn(cases()), case_name);
INSTANTIATE_TEST_SUITE_P(All, Int8Kernels, testing::ValuesIn(cases(ActivationKind::Int8)),
                         case_name);

// ---- The choice --------------------------------------------------------------------------------

/// Forces an instruction set while it lives.
class Forced {
public:
    explicit Forced(Isa isa) { force_isa(isa); }
    ~Forced() { force_isa(std::nullopt); }
    Forced(const Forced&) = delete;
    Forced& operator=(const Forced&) = delete;
};

TEST(SelectLinear, FindsAKernelForEverything) {
    for (const WeightFormat& format : formats()) {
        for (size_t rows = 1; rows <= kMostRows; ++rows) {
            for (const auto precision : {ActivationPrecision::Int8, ActivationPrecision::Exact}) {
                const LinearKernel& kernel = select_linear(format, rows, precision);
                EXPECT_TRUE(kernel.supports(format)) << kernel.name;
                EXPECT_TRUE(takes(kernel, rows)) << kernel.name << ", " << rows << " rows";
                if (precision == ActivationPrecision::Exact) {
                    EXPECT_EQ(kernel.activations, ActivationKind::F32) << kernel.name;
                } else if (format.bits != 16) {
                    EXPECT_NE(kernel.activations, ActivationKind::F32) << kernel.name;
                }
            }
        }
    }
}

TEST(SelectLinear, ObeysAForcedInstructionSet) {
    for (const Isa isa : supported_isas()) {
        const Forced forced(isa);
        bool chosen = false;
        for (const WeightFormat& format : formats()) {
            for (const size_t rows : {1, 2, 8, 16, 64, 512}) {
                for (const auto precision :
                     {ActivationPrecision::Int8, ActivationPrecision::Exact}) {
                    const LinearKernel& kernel = select_linear(format, rows, precision);
                    EXPECT_TRUE(allowed(kernel.isa)) << kernel.name << ", forced " << name(isa);
                    chosen = chosen || kernel.isa == isa;
                }
            }
            if (format.bits != 16 && isa != Isa::Amx) {
                EXPECT_EQ(select_linear(format, 1, ActivationPrecision::Int8).isa, isa);
                EXPECT_EQ(select_linear(format, 129, ActivationPrecision::Int8).isa, isa);
            }
        }
        EXPECT_TRUE(chosen) << name(isa) << " is never used";
    }
}

TEST(SelectLinear, CountsTheCallsOfEachKernel) {
    const auto calls = [] {
        const auto pairs = kernel_calls();
        return std::map<std::string, uint64_t>(pairs.begin(), pairs.end());
    };
    const OwnedWeights weights(plain_weights(formats().front(), 16, 32, Pattern::Random, 1));
    const OwnedActivations activations(std::vector<float>(129 * 32, 1.0F), 129, 32,
                                       *all_vector_kernels().front());
    std::vector<float> out(129 * 16);
    for (const LinearKernel* kernel : linear_kernels()) {
        if (!kernel->supports(formats().front())) continue;
        auto expected = calls();
        expected[kernel->name] += 3;
        LinearArgs args;
        args.weights = &weights.view();
        args.activations = &activations.view();
        args.last_row = kernel->min_rows;
        args.last_block = 1;
        args.out = out.data();
        args.out_stride = 16;
        for (int i = 0; i < 3; ++i) ASSERT_TRUE(run_guarded(*kernel, args));
        EXPECT_EQ(calls(), expected);
    }
}

// A piece of work may have fewer rows than the largest one, which scratch is made for.
TEST(LinearKernelScratch, IsEnoughForFewerRows) {
    for (const size_t rows : {64, 1024}) {
        const OwnedWeights weights(plain_weights(formats().front(), rows, 256, Pattern::Random, 1));
        for (const LinearKernel* kernel : linear_kernels()) {
            if (!kernel->supports(formats().front())) continue;
            size_t fewer = 0;
            for (const size_t count : {1, 32, 511, 512, 513, 1023, 1024, 1025, 1536, 2049, 4097}) {
                if (count < kernel->min_rows || count > kernel->max_rows) continue;
                const size_t bytes = kernel->scratch_bytes(weights.view(), count);
                EXPECT_GE(bytes, fewer) << kernel->name << ", " << count << " rows";
                fewer = bytes;
            }
        }
    }
}

TEST(SelectLinear, RefusesAKernelThatIsNotRegistered) {
    LinearKernel stranger = *linear_kernels().front();
    stranger.name = "stranger";
    EXPECT_THROW(run_linear(stranger, {}), std::invalid_argument);
}

}  // namespace
}  // namespace ovfast::kernels::test
