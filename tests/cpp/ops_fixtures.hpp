#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <openvino/op/constant.hpp>
#include <random>
#include <vector>

#include "kernels/pack.hpp"

// Random weights and values for the tests of operations.
namespace ovfast::test {

inline std::vector<float> random_floats(size_t count, unsigned seed, float low = -1.0F,
                                        float high = 1.0F) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> values(low, high);
    std::vector<float> result(count);
    for (auto& value : result) value = values(random);
    return result;
}

/// 4-bit weights in groups of 32 with zero points, so that no correction term is zero; one group a
/// row where the columns are no multiple of 32. About +-1/sqrt(columns), so that products stay
/// about as large as what they are products of.
inline kernels::PlainWeights random_weights(size_t rows, size_t columns, unsigned seed) {
    kernels::PlainWeights plain;
    plain.format.bits = 4;
    plain.format.scales = kernels::ScaleKind::F32;
    plain.format.offsets = kernels::OffsetKind::ZeroPoint;
    plain.format.group = static_cast<uint32_t>(columns % 32 == 0 ? 32 : columns);
    plain.rows = rows;
    plain.columns = columns;
    const size_t groups = columns / plain.format.group;
    std::mt19937 random(seed);
    plain.codes.resize(rows * columns);
    plain.zero_points.resize(rows * groups);
    for (auto& code : plain.codes) code = static_cast<uint8_t>(random() % 16);
    for (auto& point : plain.zero_points) point = static_cast<uint8_t>(6 + random() % 4);
    const float scale = 0.2F / std::sqrt(static_cast<float>(columns));
    plain.scales = random_floats(rows * groups, seed + 1, scale, 2 * scale);
    return plain;
}

inline std::vector<uint8_t> packed_bytes(const kernels::PlainWeights& plain) {
    std::vector<uint8_t> bytes(kernels::packed_bytes(plain.format, plain.rows, plain.columns));
    kernels::pack(plain, bytes.data());
    return bytes;
}

inline std::shared_ptr<ov::Node> u8_constant(const std::vector<uint8_t>& bytes) {
    return ov::op::v0::Constant::create(ov::element::u8, {bytes.size()}, bytes);
}

inline std::shared_ptr<ov::Node> packed_constant(size_t rows, size_t columns, unsigned seed) {
    return u8_constant(packed_bytes(random_weights(rows, columns, seed)));
}

/// Root of the mean square of the difference, relative to that of `expected`.
inline double relative_error(const float* got, const float* expected, size_t count) {
    double difference = 0.0, size = 0.0;
    for (size_t i = 0; i < count; ++i) {
        const double d = static_cast<double>(got[i]) - expected[i];
        difference += d * d;
        size += static_cast<double>(expected[i]) * expected[i];
    }
    return size == 0.0 ? std::sqrt(difference) : std::sqrt(difference / size);
}

}  // namespace ovfast::test
