// Elementwise kernels: quantization against its definition, the rest against double precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernel_test_data.hpp"

namespace ovfast::kernels::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kGuard = 12345.0F;
constexpr size_t kCounts[] = {1,  7,  8,  9,   15,  16,  17,  31,  32,   33,
                              63, 64, 65, 100, 511, 512, 513, 896, 1001, 1536};

std::vector<float> random_values(size_t count, float scale, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0F, scale);
    std::vector<float> values(count);
    std::generate(values.begin(), values.end(), [&] { return normal(random); });
    return values;
}

class VectorKernelsTest : public testing::TestWithParam<const VectorKernels*> {
protected:
    static const VectorKernels& kernels() { return *GetParam(); }
};

// ---- quantize ----------------------------------------------------------------------------------

struct Quantized {
    explicit Quantized(size_t columns)
        : padded((columns + 31) / 32 * 32),
          codes(padded + 1, 99),
          scales(padded / 32 + 1, kGuard),
          sums(padded / 32 + 1, kGuard),
          half_sums(padded / 16 + 1, kGuard) {}

    bool guards_intact() const {
        return codes.back() == 99 && scales.back() == kGuard && sums.back() == kGuard &&
               half_sums.back() == kGuard;
    }

    size_t padded;
    std::vector<int8_t> codes;
    std::vector<float> scales, sums, half_sums;
};

Quantized quantize(const VectorKernels& kernels, const std::vector<float>& in,
                   size_t group_columns = 32) {
    Quantized result(in.size());
    kernels.quantize(in.data(), in.size(), group_columns, result.codes.data(), result.scales.data(),
                     result.sums.data(), result.half_sums.data());
    return result;
}

/// The definition in kernels/activations.hpp, written down once more.
Quantized by_definition(const std::vector<float>& in, size_t group_columns) {
    Quantized result(in.size());
    for (size_t g = 0; g < result.padded / 32; ++g) {
        std::vector<float> group(
            in.begin() + static_cast<std::ptrdiff_t>(32 * g),
            in.begin() + static_cast<std::ptrdiff_t>(std::min(32 * g + 32, in.size())));
        group.resize(32, 0.0F);
        float max = 0.0F;
        bool finite = true;
        const size_t first = 32 * g / group_columns * group_columns;
        for (size_t k = first; k < std::min(first + group_columns, in.size()); ++k) {
            const float x = in[k];
            if (!std::isfinite(x)) {
                finite = false;
            } else if (std::fabs(x) > max) {
                max = std::fabs(x);
            }
        }
        const bool empty = !finite || max < std::ldexp(1.0F, -100);
        const float scale = !finite ? kNan : empty ? 0.0F : max / 127.0F;
        int halves[2] = {};
        for (size_t k = 0; k < 32; ++k) {
            // Rounding to even by hand: the product is exact in double.
            const double exact = empty ? 0.0 : double{group[k] * (127.0F / max)};
            double code = std::floor(exact);
            const double rest = exact - code;
            if (rest > 0.5 || (rest == 0.5 && std::fmod(code, 2.0) != 0.0)) ++code;
            result.codes[32 * g + k] = static_cast<int8_t>(code);
            halves[k / 16] += static_cast<int>(code);
        }
        result.scales[g] = scale;
        result.sums[g] = scale * static_cast<float>(halves[0] + halves[1]);
        result.half_sums[2 * g] = scale * static_cast<float>(halves[0]);
        result.half_sums[2 * g + 1] = scale * static_cast<float>(halves[1]);
    }
    return result;
}

void expect_same(const std::vector<float>& found, const std::vector<float>& expected) {
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
        if (std::isnan(expected[i])) {
            ASSERT_TRUE(std::isnan(found[i])) << i;
        } else {
            ASSERT_EQ(found[i], expected[i]) << i;
        }
    }
}

void expect_by_definition(const VectorKernels& kernels, const std::vector<float>& in) {
    for (const size_t group_columns : {32, 128}) {
        SCOPED_TRACE("groups of " + std::to_string(group_columns));
        const Quantized found = quantize(kernels, in, group_columns);
        const Quantized expected = by_definition(in, group_columns);
        EXPECT_EQ(found.codes, expected.codes);
        expect_same(found.scales, expected.scales);
        expect_same(found.sums, expected.sums);
        expect_same(found.half_sums, expected.half_sums);
        EXPECT_TRUE(found.guards_intact());
    }
}

TEST_P(VectorKernelsTest, QuantizeByTheDefinition) {
    for (const size_t columns : kCounts) {
        for (const float scale : {1.0F, 1e-28F, 1e-6F, 1e30F}) {
            SCOPED_TRACE(std::to_string(columns) + " columns, scale " + std::to_string(scale));
            expect_by_definition(kernels(),
                                 random_values(columns, scale, static_cast<unsigned>(columns)));
        }
    }
}

TEST_P(VectorKernelsTest, QuantizeTiesToEven) {
    // With a maximum of 127 the codes are the values: halves are ties.
    std::vector<float> in;
    for (int i = -126; i <= 126; ++i) in.push_back(static_cast<float>(i) + 0.5F);
    for (size_t g = 0; g < in.size(); g += 32) in[g] = g % 64 == 0 ? 127.0F : -127.0F;
    expect_by_definition(kernels(), in);
    const Quantized found = quantize(kernels(), {127.0F, 0.5F, 1.5F, 2.5F, -0.5F, -1.5F, -2.5F});
    const std::vector<int8_t> codes(found.codes.begin(), found.codes.begin() + 8);
    EXPECT_EQ(codes, (std::vector<int8_t>{127, 0, 2, 2, 0, -2, -2, 0}));
}

TEST_P(VectorKernelsTest, QuantizeExtremes) {
    const float denormal = std::numeric_limits<float>::denorm_min();
    const float largest = std::numeric_limits<float>::max();
    const float least = std::ldexp(1.0F, -100);
    for (const float value : {0.0F, -0.0F, denormal, 1e-38F, std::nextafter(least, 0.0F), least,
                              -least, largest, -largest, kNan, -kNan, kInfinity, -kInfinity}) {
        for (const size_t at : {0, 5, 15, 16, 31, 32, 40}) {
            for (const float others : {0.0F, 1.0F}) {
                SCOPED_TRACE(std::to_string(value) + " at " + std::to_string(at));
                // A row shorter than what is quantized at once, and a longer one.
                for (const size_t columns : {41, 1029}) {
                    std::vector<float> in(columns, others);
                    in[at + columns - 41] = value;
                    in[at] = value;
                    expect_by_definition(kernels(), in);
                }
            }
        }
    }
}

// ---- to_bf16 -----------------------------------------------------------------------------------

TEST_P(VectorKernelsTest, RoundToBf16ToEven) {
    for (const size_t columns : kCounts) {
        std::vector<float> in = random_values(columns, 1.0F, 5);
        // Every kind of number and both kinds of ties, at places that change with the size.
        const uint32_t special[] = {0x3F808000, 0x3F818000, 0x3F808001, 0xBF818000, 0x7F7FFFFF,
                                    0x00000001, 0x80008000, 0x7F800000, 0xFF800000, 0x7F800001,
                                    0x7FFFFFFF, 0xFFC00000, 0x80000000, 0x007FFFFF};
        for (size_t i = 0; i < columns; i += 2) {
            std::memcpy(&in[i], &special[(i / 2 + columns) % std::size(special)], sizeof(float));
        }
        const size_t padded = (columns + 31) / 32 * 32;
        std::vector<uint16_t> out(padded + 1, 0x4242);
        kernels().to_bf16(in.data(), columns, out.data());
        for (size_t i = 0; i < padded; ++i) {
            if (i < columns && std::isnan(in[i])) {
                ASSERT_TRUE(std::isnan(from_bf16(out[i]))) << i;
                continue;
            }
            ASSERT_EQ(out[i], i < columns ? to_bf16(in[i]) : 0) << i << ": " << in[i];
        }
        EXPECT_EQ(out[padded], 0x4242);
    }
}

// ---- Activation functions ----------------------------------------------------------------------

double silu(double x) {
    return x / (1.0 + std::exp(-x));
}

double gelu_tanh(double x) {
    return 0.5 * x *
           (1.0 + std::tanh(std::sqrt(2.0 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

double gelu_erf(double x) {
    return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
}

std::vector<float> arguments() {
    std::vector<float> x;
    for (float value = -120.0F; value <= 120.0F; value += 0.0113F) x.push_back(value);
    for (float value = 1e-38F; value < 1e38F; value *= 3.7F) {
        x.push_back(value);
        x.push_back(-value);
    }
    x.insert(x.end(), {0.0F, -0.0F, std::numeric_limits<float>::denorm_min()});
    return x;
}

using Multiply = void (*)(const float*, const float*, float*, size_t);

/// relative: of the result; absolute: of x, for GELU's tail, where 1 + tanh and 1 + erf cancel.
void expect_near(Multiply multiply, double (*exact)(double), double relative, double absolute) {
    const std::vector<float> gate = arguments();
    const std::vector<float> one(gate.size(), 1.0F);
    std::vector<float> out(gate.size());
    multiply(gate.data(), one.data(), out.data(), gate.size());
    for (size_t i = 0; i < gate.size(); ++i) {
        const double expected = exact(gate[i]);
        // Below 1e-35 results approach denormals, and e^-x overflows.
        ASSERT_NEAR(out[i], expected,
                    relative * std::fabs(expected) + absolute * std::fabs(gate[i]) + 1e-35)
            << "at " << gate[i];
    }
}

TEST_P(VectorKernelsTest, SiluIsAccurate) {
    expect_near(kernels().silu_multiply, silu, 1e-6, 0.0);
}

// Of x: the probability that x is multiplied with is right to 5e-7, however small it is.
TEST_P(VectorKernelsTest, GeluIsAccurate) {
    expect_near(kernels().gelu_tanh_multiply, gelu_tanh, 1e-6, 5e-7);
    expect_near(kernels().gelu_erf_multiply, gelu_erf, 1e-6, 5e-7);
}

TEST_P(VectorKernelsTest, ActivationsMultiplyAnyCountInPlace) {
    for (const Multiply multiply :
         {kernels().silu_multiply, kernels().gelu_tanh_multiply, kernels().gelu_erf_multiply}) {
        for (const size_t count : kCounts) {
            const std::vector<float> gate = random_values(count, 2.0F, 7);
            const std::vector<float> up = random_values(count, 2.0F, 8);
            std::vector<float> one(count, 1.0F);
            std::vector<float> out(count + 1, kGuard);
            multiply(gate.data(), up.data(), out.data(), count);
            EXPECT_EQ(out[count], kGuard);
            multiply(gate.data(), one.data(), one.data(), count);  // aliases `up`
            std::vector<float> in_place = gate;
            multiply(in_place.data(), up.data(), in_place.data(), count);
            for (size_t i = 0; i < count; ++i) {
                ASSERT_EQ(out[i], one[i] * up[i]);
                ASSERT_EQ(in_place[i], out[i]);
            }
        }
    }
}

TEST_P(VectorKernelsTest, ActivationsKeepNans) {
    for (const Multiply multiply :
         {kernels().silu_multiply, kernels().gelu_tanh_multiply, kernels().gelu_erf_multiply}) {
        std::vector<float> gate(21, 1.0F);
        std::vector<float> up(21, 1.0F);
        gate[3] = kNan;
        up[20] = kNan;
        gate[9] = kInfinity;
        std::vector<float> out(21);
        multiply(gate.data(), up.data(), out.data(), out.size());
        for (size_t i = 0; i < out.size(); ++i) {
            EXPECT_EQ(std::isnan(out[i]), i == 3 || i == 20) << i;
        }
        EXPECT_EQ(out[9], kInfinity);
    }
}

// ---- rms_norm and add --------------------------------------------------------------------------

TEST_P(VectorKernelsTest, RmsNormIsAccurate) {
    constexpr float kEpsilon = 1e-6F;
    for (const size_t count : kCounts) {
        for (const float scale : {1.0F, 1e-4F, 0.0F, 1e8F}) {
            const std::vector<float> in = random_values(count, std::max(scale, 1e-30F), 1);
            const std::vector<float> gamma = random_values(count, 1.0F, 2);
            std::vector<float> out(count + 1, kGuard);
            kernels().rms_norm(in.data(), gamma.data(), kEpsilon, count, out.data());
            EXPECT_EQ(out[count], kGuard);
            std::vector<float> in_place = in;
            kernels().rms_norm(in_place.data(), gamma.data(), kEpsilon, count, in_place.data());
            double squares = 0.0;
            for (const float x : in) squares += double{x} * double{x};
            const double root = std::sqrt(squares / static_cast<double>(count) + double{kEpsilon});
            for (size_t i = 0; i < count; ++i) {
                const double expected = double{in[i]} * double{gamma[i]} / root;
                // At least 32 chains of additions: count / 32 + 5 roundings of a positive sum,
                // halved by the root, and seven more.
                const double relative = (static_cast<double>(count) / 64 + 10) * 0x1p-24;
                ASSERT_NEAR(out[i], expected, relative * std::fabs(expected) + 1e-37);
                ASSERT_EQ(in_place[i], out[i]);
            }
        }
    }
}

TEST_P(VectorKernelsTest, RmsNormSpreadsANan) {
    std::vector<float> in(40, 1.0F);
    in[37] = kNan;
    const std::vector<float> gamma(40, 1.0F);
    std::vector<float> out(40);
    kernels().rms_norm(in.data(), gamma.data(), 1e-6F, 40, out.data());
    for (const float x : out) EXPECT_TRUE(std::isnan(x));
}

TEST_P(VectorKernelsTest, AddIsExact) {
    for (const size_t count : kCounts) {
        const std::vector<float> in = random_values(count, 1.0F, 3);
        const std::vector<float> before = random_values(count, 1.0F, 4);
        std::vector<float> out = before;
        out.push_back(kGuard);
        kernels().add(in.data(), out.data(), count);
        for (size_t i = 0; i < count; ++i) ASSERT_EQ(out[i], before[i] + in[i]);
        EXPECT_EQ(out[count], kGuard);
    }
}

INSTANTIATE_TEST_SUITE_P(All, VectorKernelsTest, testing::ValuesIn(all_vector_kernels()),
                         [](const auto& test) { return std::string(test.param->name); });

TEST(VectorKernelsChoice, ObeysAForcedInstructionSet) {
    for (const Isa isa : supported_isas()) {
        force_isa(isa);
        const Isa found = vector_kernels().isa;
        force_isa(std::nullopt);
        const Isa expected = isa == Isa::AvxVnni ? Isa::Avx2
                             : isa == Isa::Amx   ? Isa::Avx512Vnni
                                                 : isa;
        EXPECT_EQ(found, expected) << name(isa);
    }
    EXPECT_EQ(&vector_kernels(), all_vector_kernels().back());
}

}  // namespace
}  // namespace ovfast::kernels::test
