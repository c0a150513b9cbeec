#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/pack.hpp"
#include "kernels/split.hpp"
#include "random_weights.hpp"

namespace ovfast::kernels {
namespace {

WeightFormat eight_bits(ScaleKind scales, uint32_t group,
                        OffsetKind offsets = OffsetKind::Symmetric) {
    return {8, scales, offsets, FloatKind::None, group};
}

struct Halves {
    std::vector<std::byte> high, low;
    std::vector<float> bounds;

    Halves(const PackedWeights& weights, const float* metric)
        : high(packed_bytes(high_half(weights.format()), weights.rows(), weights.columns())),
          low(packed_bytes(low_half(weights.format()), weights.rows(), weights.columns())),
          bounds(weights.rows()) {
        split(weights, metric, high.data(), low.data(), bounds.data());
    }
};

std::vector<std::byte> packed(const PlainWeights& plain) {
    std::vector<std::byte> bytes(packed_bytes(plain.format, plain.rows, plain.columns));
    pack(plain, bytes.data());
    return bytes;
}

TEST(Split, HalvesAddUpToTheWhole) {
    for (const auto& format :
         {eight_bits(ScaleKind::F16, 32), eight_bits(ScaleKind::F32, 1000),
          eight_bits(ScaleKind::F16, 16), eight_bits(ScaleKind::F16, 1000, OffsetKind::ZeroPoint),
          eight_bits(ScaleKind::F32, 32, OffsetKind::ZeroPoint)}) {
        for (const auto& [rows, columns] :
             {std::pair<size_t, size_t>{1, 32}, {17, 96}, {40, 256}}) {
            const auto bytes = packed(testing::random_weights(format, rows, columns, 5));
            const auto whole = PackedWeights::view(bytes.data(), bytes.size());
            const Halves halves(whole, nullptr);
            const auto high = PackedWeights::view(halves.high.data(), halves.high.size());
            const auto low = PackedWeights::view(halves.low.data(), halves.low.size());
            high.verify();
            low.verify();
            const auto expected = unpack(whole);
            const auto first = unpack(high);
            const auto second = unpack(low);
            for (size_t i = 0; i < expected.size(); ++i) {
                // Offsets of 120 and 8 scales are rounded in f32 for each half.
                ASSERT_NEAR(first[i] + second[i], expected[i], 128 * 0.02 * 2e-7) << i;
            }
        }
    }
}

TEST(Split, BoundsAreThoseOfTheLowHalf) {
    const size_t rows = 33;
    const size_t columns = 128;
    const auto bytes =
        packed(testing::random_weights(eight_bits(ScaleKind::F16, 32), rows, columns, 9));
    const auto whole = PackedWeights::view(bytes.data(), bytes.size());
    std::vector<float> gamma(columns);
    for (size_t k = 0; k < columns; ++k) gamma[k] = k % 7 == 0 ? 0.0F : 0.1F * (k % 5) - 0.2F;
    const auto metric = screening_metric(gamma.data(), columns);
    for (const float value : metric) ASSERT_GT(value, 0.0F);
    const Halves halves(whole, metric.data());
    const auto low = unpack(PackedWeights::view(halves.low.data(), halves.low.size()));
    for (size_t n = 0; n < rows; ++n) {
        double sum = 0;
        for (size_t k = 0; k < columns; ++k) {
            const double value = static_cast<double>(low[n * columns + k]) * metric[k];
            sum += value * value;
        }
        EXPECT_NEAR(halves.bounds[n], std::sqrt(sum), 1e-5 * std::sqrt(sum)) << n;
    }
}

TEST(Split, RefusesOtherFormats) {
    auto format = eight_bits(ScaleKind::F16, 32);
    format.offsets = OffsetKind::F16;
    const auto bytes = packed(testing::random_weights(format, 16, 32, 1));
    const auto weights = PackedWeights::view(bytes.data(), bytes.size());
    EXPECT_FALSE(can_split(format));
    std::vector<std::byte> memory(bytes.size() * 2);
    float bounds[16];
    EXPECT_THROW(split(weights, nullptr, memory.data(), memory.data(), bounds),
                 std::invalid_argument);
}

TEST(Split, RefusesScalesWithoutA16Fold) {
    auto plain = testing::random_weights(eight_bits(ScaleKind::F16, 32), 16, 32, 1);
    plain.scales[3] = 60000.0F;
    const auto bytes = packed(plain);
    const auto weights = PackedWeights::view(bytes.data(), bytes.size());
    std::vector<std::byte> memory(bytes.size());
    std::vector<std::byte> other(bytes.size());
    float bounds[16];
    EXPECT_THROW(split(weights, nullptr, memory.data(), other.data(), bounds),
                 std::invalid_argument);
}

}  // namespace
}  // namespace ovfast::kernels
