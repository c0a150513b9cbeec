#pragma once

#include <cmath>
#include <random>
#include <vector>

#include "kernels/pack.hpp"

/// Random matrices in any format, and what each of their weights is by the words of
/// packed_weights.hpp: shared by the tests of packing and of the kernels.
namespace ovfast::kernels::testing {

inline size_t group_count(const WeightFormat& format, size_t columns) {
    return format.group >= columns ? 1 : columns / format.group;
}

inline size_t super_count(size_t columns) {
    return (columns + kSuperColumns - 1) / kSuperColumns;
}

/// Every code occurs with equal chance; scales are f16 values of about `scale` in either sign
/// (F32 ones: any f32), a few of them zero.
inline PlainWeights random_weights(const WeightFormat& format, size_t rows, size_t columns,
                                   unsigned seed, float scale = 0.01f) {
    std::mt19937 random(seed);
    const auto below = [&](unsigned count) { return static_cast<int>(random() % count); };
    const auto real = [&] {
        if (below(50) == 0) return 0.0f;
        const float value = std::uniform_real_distribution<float>(0.2f, 2.0f)(random) * scale;
        return below(2) != 0 ? value : -value;
    };
    const auto half = [&] { return from_f16(to_f16(real())); };
    const auto fill = [](auto& values, size_t count, auto draw) {
        values.resize(count);
        for (auto& value : values) value = static_cast<std::decay_t<decltype(value)>>(draw());
    };

    PlainWeights weights;
    weights.format = format;
    weights.rows = rows;
    weights.columns = columns;
    if (format.floats != FloatKind::None) {
        const auto narrow_to = format.floats == FloatKind::F16 ? to_f16 : to_bf16;
        fill(weights.floats, rows * columns, [&] { return narrow_to(real()); });
        return weights;
    }
    const size_t groups = rows * group_count(format, columns);
    const size_t supers = rows * super_count(columns);
    fill(weights.codes, rows * columns, [&] { return below(1u << format.bits); });
    switch (format.scales) {
        case ScaleKind::F16:
            fill(weights.scales, groups, half);
            break;
        case ScaleKind::F32:
            fill(weights.scales, groups, real);
            break;
        case ScaleKind::SuperU8:
        case ScaleKind::SuperI8: {
            const int least = format.scales == ScaleKind::SuperU8 ? 0 : -128;
            fill(weights.scale_supers, supers, [&] { return from_f16(to_f16(real() / 64)); });
            fill(weights.scale_codes, groups, [&] { return below(256) + least; });
            break;
        }
        case ScaleKind::None:
            break;
    }
    switch (format.offsets) {
        case OffsetKind::ZeroPoint:
            fill(weights.zero_points, groups, [&] { return below(1u << format.bits); });
            break;
        case OffsetKind::F16:
            fill(weights.offsets, groups, half);
            break;
        case OffsetKind::F32:
            fill(weights.offsets, groups, real);
            break;
        case OffsetKind::SuperU8:
            fill(weights.offset_supers, supers, [&] { return from_f16(to_f16(real() / 64)); });
            fill(weights.offset_codes, groups, [&] { return below(256); });
            break;
        case OffsetKind::None:
        case OffsetKind::Symmetric:
        case OffsetKind::HalfSymmetric:
            break;
    }
    return weights;
}

struct ScaleAndOffset {
    float scale = 0, offset = 0;
};

inline ScaleAndOffset plain_scale(const PlainWeights& weights, size_t row, size_t column) {
    const WeightFormat& format = weights.format;
    const size_t in_row = format.group >= weights.columns ? 0 : column / format.group;
    const size_t group = row * group_count(format, weights.columns) + in_row;
    const size_t super = row * super_count(weights.columns) + column / kSuperColumns;
    ScaleAndOffset out;
    if (format.scales == ScaleKind::F16 || format.scales == ScaleKind::F32) {
        out.scale = weights.scales[group];
    } else {
        out.scale = weights.scale_supers[super] * static_cast<float>(weights.scale_codes[group]);
    }
    switch (format.offsets) {
        case OffsetKind::Symmetric:
            out.offset = -std::ldexp(out.scale, format.bits - 1);
            break;
        case OffsetKind::HalfSymmetric:
            out.offset = -(std::ldexp(1.0f, format.bits - 1) - 0.5f) * out.scale;
            break;
        case OffsetKind::ZeroPoint:
            out.offset = -static_cast<float>(weights.zero_points[group]) * out.scale;
            break;
        case OffsetKind::F16:
        case OffsetKind::F32:
            out.offset = weights.offsets[group];
            break;
        case OffsetKind::SuperU8:
            out.offset =
                -(weights.offset_supers[super] * static_cast<float>(weights.offset_codes[group]));
            break;
        case OffsetKind::None:
            break;
    }
    return out;
}

/// What unpack() must return, to the last bit.
inline float plain_weight(const PlainWeights& weights, size_t row, size_t column) {
    const size_t at = row * weights.columns + column;
    if (weights.format.floats == FloatKind::F16) return from_f16(weights.floats[at]);
    if (weights.format.floats == FloatKind::BF16) return from_bf16(weights.floats[at]);
    const auto [scale, offset] = plain_scale(weights, row, column);
    return std::fma(scale, static_cast<float>(weights.codes[at]), offset);
}

/// Every kind of scale and offset with every width, in groups of `group`; the floats once.
inline std::vector<WeightFormat> all_formats(uint32_t group) {
    std::vector<WeightFormat> formats;
    for (const int bits : {4, 5, 6, 8}) {
        for (const ScaleKind scales :
             {ScaleKind::F16, ScaleKind::F32, ScaleKind::SuperU8, ScaleKind::SuperI8}) {
            for (const OffsetKind offsets :
                 {OffsetKind::Symmetric, OffsetKind::ZeroPoint, OffsetKind::F16, OffsetKind::F32,
                  OffsetKind::SuperU8}) {
                formats.push_back(
                    {static_cast<uint8_t>(bits), scales, offsets, FloatKind::None, group});
            }
        }
    }
    for (const FloatKind floats : {FloatKind::F16, FloatKind::BF16}) {
        formats.push_back({16, ScaleKind::None, OffsetKind::None, floats, group});
    }
    return formats;
}

inline bool exists(const WeightFormat& format, size_t rows, size_t columns) {
    try {
        packed_bytes(format, rows, columns);
        return true;
    } catch (const std::invalid_argument&) {
        return false;
    }
}

inline std::vector<std::byte> packed(const PlainWeights& weights) {
    std::vector<std::byte> bytes(packed_bytes(weights.format, weights.rows, weights.columns));
    pack(weights, bytes.data());
    return bytes;
}

}  // namespace ovfast::kernels::testing
