// Kernels whose limit is memory, against double precision: every table, tails, alignment, f16.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernel_test_data.hpp"
#include "kernels/pack.hpp"
#include "kernels/stream.hpp"

namespace ovfast::kernels::test {
namespace {

constexpr float kGuard = 12345.0F;
constexpr size_t kCounts[] = {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 896, 1001};

std::vector<float> random_values(size_t count, float scale, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0F, scale);
    std::vector<float> values(count);
    std::generate(values.begin(), values.end(), [&] { return normal(random); });
    return values;
}

/// Values with a guard after them, at any offset from a cache line.
class Placed {
public:
    Placed(size_t count, size_t offset) : count_(count), memory_(count + offset + 32, kGuard) {
        const auto address = reinterpret_cast<uintptr_t>(memory_.data());
        first_ = (64 - address % 64) % 64 / sizeof(float) + offset;
    }
    float* data() { return memory_.data() + first_; }
    bool intact() const {
        return memory_[first_ + count_] == kGuard && (first_ == 0 || memory_[first_ - 1] == kGuard);
    }

private:
    size_t count_, first_ = 0;
    std::vector<float> memory_;
};

class StreamKernelsTest : public testing::TestWithParam<const StreamKernels*> {
protected:
    static const StreamKernels& kernels() { return *GetParam(); }
};

TEST_P(StreamKernelsTest, SwigluIsAccurate) {
    for (const size_t count : kCounts) {
        for (const size_t offset : {0, 1, 5}) {
            for (const bool past_cache : {false, true}) {
                const auto gate = random_values(count, 6.0F, 1);
                const auto up = random_values(count, 1.0F, 2);
                Placed out(count, offset);
                kernels().swiglu(gate.data(), up.data(), 1.702F, count, past_cache, out.data());
                for (size_t i = 0; i < count; ++i) {
                    const double x = double{1.702F * gate[i]};
                    const double expected = x / (1.0 + std::exp(-x)) * double{up[i]};
                    ASSERT_NEAR(out.data()[i], expected, 1e-6 * std::fabs(expected) + 1e-30)
                        << count << " " << offset << " " << i;
                }
                EXPECT_TRUE(out.intact());
            }
        }
    }
}

TEST_P(StreamKernelsTest, SwigluAtTheEndsOfTheRange) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const std::vector<float> gate{90.0F, 1e30F, kInfinity, -90.0F, -200.0F, -1e30F, 0.0F, NAN};
    const std::vector<float> ones(gate.size(), 1.0F);
    std::vector<float> out(gate.size());
    kernels().swiglu(gate.data(), ones.data(), 1.0F, gate.size(), false, out.data());
    EXPECT_EQ(out[0], 90.0F);
    EXPECT_EQ(out[1], 1e30F);
    EXPECT_EQ(out[2], kInfinity);
    EXPECT_NEAR(out[3], 0.0F, 1e-36);
    EXPECT_NEAR(out[4], 0.0F, 1e-36);
    EXPECT_NEAR(out[5], 0.0F, 1e-8);  // -1e30 times what is left of e^-150
    EXPECT_EQ(out[6], 0.0F);
    EXPECT_TRUE(std::isnan(out[7]));
}

TEST_P(StreamKernelsTest, AddRmsNormIsAccurate) {
    for (const size_t count : kCounts) {
        for (const size_t offset : {0, 3}) {
            for (const bool past_cache : {false, true}) {
                const auto x = random_values(count, 1.0F, 3);
                const auto residual = random_values(count, 2.0F, 4);
                const auto gamma = random_values(count, 1.0F, 5);
                Placed out(count, offset), sum(count, offset);
                kernels().add_rms_norm(x.data(), residual.data(), gamma.data(), 1e-5F, count,
                                       past_cache, out.data(), sum.data());
                double squares = 0.0;
                for (size_t i = 0; i < count; ++i) {
                    ASSERT_EQ(sum.data()[i], x[i] + residual[i]);
                    squares += double{sum.data()[i]} * double{sum.data()[i]};
                }
                const double factor =
                    1.0 / std::sqrt(squares / static_cast<double>(count) + double{1e-5F});
                for (size_t i = 0; i < count; ++i) {
                    const double expected = double{sum.data()[i]} * factor * double{gamma[i]};
                    ASSERT_NEAR(out.data()[i], expected, 1e-6 * std::fabs(expected)) << count;
                }
                EXPECT_TRUE(out.intact());
                EXPECT_TRUE(sum.intact());
            }
        }
    }
}

TEST_P(StreamKernelsTest, Int4DotIsAccurate) {
    std::mt19937 random(6);
    for (const size_t group : {32, 64, 128}) {
        const size_t columns = 3 * group;
        std::vector<uint8_t> codes(columns / 2);
        for (auto& code : codes) code = static_cast<uint8_t>(random());
        const auto x = random_values(columns, 1.0F, 7);
        const auto scales = random_values(3, 1.0F, 8);
        std::vector<float> split(columns);
        split_columns(x.data(), columns, split.data());
        double expected = 0.0, magnitude = 0.0;
        for (size_t k = 0; k < columns; ++k) {
            const int code = k % 2 == 0 ? codes[k / 2] & 15 : codes[k / 2] >> 4;
            const double term = double{x[k]} * (code - 8) * double{scales[k / group]};
            expected += term;
            magnitude += std::fabs(term);
        }
        EXPECT_NEAR(
            kernels().int4_dot(codes.data(), split.data(), scales.data(), columns, group, 8.0F),
            expected, 1e-6 * magnitude);
    }
}

TEST_P(StreamKernelsTest, HalvesAreExact) {
    std::vector<uint16_t> every(1 << 16);
    for (size_t i = 0; i < every.size(); ++i) every[i] = static_cast<uint16_t>(i);
    std::vector<float> wide(every.size());
    kernels().widen_f16(every.data(), every.size(), wide.data());
    std::vector<uint16_t> back(every.size());
    kernels().narrow_f16(wide.data(), wide.size(), back.data());
    for (size_t i = 0; i < every.size(); ++i) {
        if (std::isnan(wide[i])) continue;
        ASSERT_EQ(wide[i], from_f16(every[i]));
        ASSERT_EQ(back[i], every[i]);
    }
    for (const size_t count : kCounts) {  // tails, and rounding
        const auto values = random_values(count, 100.0F, 9);
        std::vector<uint16_t> halves(count + 1, 0xABCD);
        kernels().narrow_f16(values.data(), count, halves.data());
        for (size_t i = 0; i < count; ++i) ASSERT_EQ(halves[i], to_f16(values[i]));
        EXPECT_EQ(halves[count], 0xABCD);
        Placed again(count, 1);
        kernels().widen_f16(halves.data(), count, again.data());
        EXPECT_TRUE(again.intact());
    }
}

INSTANTIATE_TEST_SUITE_P(All, StreamKernelsTest, testing::ValuesIn(all_stream_kernels()),
                         [](const auto& test) { return std::string(test.param->name); });

TEST(StreamKernelsChoice, ObeysAForcedInstructionSet) {
    for (const Isa isa : supported_isas()) {
        force_isa(isa);
        const Isa found = stream_kernels().isa;
        force_isa(std::nullopt);
        const Isa expected = isa == Isa::AvxVnni ? Isa::Avx2
                             : isa == Isa::Amx   ? Isa::Avx512Vnni
                                                 : isa;
        EXPECT_EQ(found, expected) << name(isa);
    }
    EXPECT_EQ(&stream_kernels(), all_stream_kernels().back());
}

}  // namespace
}  // namespace ovfast::kernels::test
