#include "kernels/split.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "kernels/pack.hpp"

namespace ovfast::kernels {
namespace {

// The halves have the layout of 4 bits; scales lie as they did.
struct Half {
    PackedHeader header{};
    std::byte* out;
    size_t codes_at;

    Half(const PackedWeights& weights, const WeightFormat& format, void* to)
        : out(static_cast<std::byte*>(to)) {
        std::memcpy(&header, weights.header(), sizeof(header));
        header.bits = format.bits;
        header.offsets = format.offsets;
        header.block_bytes =
            packed_bytes(format, kBlockRows, weights.columns()) - sizeof(PackedHeader);
        codes_at = header.block_bytes - weights.padded() / kChunkColumns * 256;
    }
    std::byte* block(size_t index) const {
        return out + sizeof(header) + index * header.block_bytes;
    }
    void seal(size_t blocks) {
        header.checksum = checksum(out + sizeof(header), blocks * header.block_bytes);
        header.checksum = checksum(&header, sizeof(header));
        std::memcpy(out, &header, sizeof(header));
    }
};

void scale_up(const PackedWeights& weights, std::byte* scales) {
    for (size_t i = 0; i < weights.groups() * kBlockRows; ++i) {
        if (weights.format().scales == ScaleKind::F32) {
            float scale;
            std::memcpy(&scale, scales + 4 * i, 4);
            scale *= 16.0F;
            std::memcpy(scales + 4 * i, &scale, 4);
        } else {
            uint16_t bits;
            std::memcpy(&bits, scales + 2 * i, 2);
            const float scale = from_f16(bits);
            const uint16_t larger = to_f16(scale * 16.0F);
            if (from_f16(larger) != scale * 16.0F && std::isfinite(scale)) {
                throw std::invalid_argument("splitting weights: a scale of " +
                                            std::to_string(scale) + " has no 16-fold in f16");
            }
            std::memcpy(scales + 2 * i, &larger, 2);
        }
    }
}

}  // namespace

bool can_split(const WeightFormat& format) {
    return format.bits == 8 &&
           (format.offsets == OffsetKind::Symmetric || format.offsets == OffsetKind::ZeroPoint) &&
           (format.scales == ScaleKind::F16 || format.scales == ScaleKind::F32);
}

WeightFormat high_half(const WeightFormat& format) {
    WeightFormat half = format;
    half.bits = 4;
    const bool symmetric = format.offsets == OffsetKind::Symmetric;
    half.offsets = symmetric ? OffsetKind::HalfSymmetric : OffsetKind::F32;
    return half;
}

WeightFormat low_half(const WeightFormat& format) {
    WeightFormat half = format;
    half.bits = 4;
    half.offsets = OffsetKind::Symmetric;
    return half;
}

std::vector<float> screening_metric(const float* gamma, size_t columns) {
    std::vector<float> metric(columns);
    float largest = 0.0F;
    for (size_t k = 0; k < columns; ++k) {
        metric[k] = std::sqrt(std::fabs(gamma[k]));
        largest = std::max(largest, metric[k]);
    }
    // Any positive number is right; a tiny one would let a channel that is nearly off dominate.
    const float least = largest > 0.0F ? largest * 1e-3F : 1.0F;
    for (float& value : metric) value = std::max(value, least);
    return metric;
}

void split(const PackedWeights& weights, const float* metric, void* high, void* low,
           float* bounds) {
    if (!can_split(weights.format())) {
        throw std::invalid_argument(
            "splitting weights: expected 8 bits with f16 or f32 scales, got " +
            weights.format().text());
    }
    Half high_part(weights, high_half(weights.format()), high);
    Half low_part(weights, low_half(weights.format()), low);
    std::vector<float> squares(weights.padded());
    for (size_t k = 0; k < weights.columns(); ++k) {
        squares[k] = metric != nullptr ? metric[k] * metric[k] : 1.0F;
    }
    std::vector<float> scales(weights.groups() * kBlockRows);
    std::vector<float> offsets(weights.groups() * kBlockRows);
    for (size_t b = 0; b < weights.blocks(); ++b) {
        const std::byte* codes = weights.codes(b);
        const auto scale_bytes = static_cast<size_t>(weights.offsets(b) - weights.scales(b));
        for (const Half* half : {&high_part, &low_part}) {
            std::memset(half->block(b), 0, half->codes_at);
            std::memcpy(half->block(b), weights.scales(b), scale_bytes);
        }
        scale_up(weights, high_part.block(b));
        decode_scales(weights, b, scales.data(), offsets.data());
        if (high_part.header.offsets == OffsetKind::F32) {
            // What the low half subtracts for its middle is added here.
            for (size_t i = 0; i < offsets.size(); ++i) offsets[i] += 8.0F * scales[i];
            std::memcpy(high_part.block(b) + scale_bytes, offsets.data(),
                        offsets.size() * sizeof(float));
        }
        std::byte* high_codes = high_part.block(b) + high_part.codes_at;
        std::byte* low_codes = low_part.block(b) + low_part.codes_at;
        double sums[kBlockRows] = {};
        for (size_t first = 0; first < weights.padded(); first += kChunkColumns) {
            // Vector v has quad 2v in its low nibbles and quad 2v + 1 in its high ones.
            for (size_t v = 0; v < 4; ++v) {
                for (size_t i = 0; i < 64; ++i) {
                    const auto even = std::to_integer<unsigned>(codes[128 * v + i]);
                    const auto odd = std::to_integer<unsigned>(codes[128 * v + 64 + i]);
                    high_codes[64 * v + i] = static_cast<std::byte>(even >> 4 | (odd & 0xF0));
                    low_codes[64 * v + i] = static_cast<std::byte>((even & 15) | odd << 4);
                }
            }
            for (size_t column = 0; column < kChunkColumns; ++column) {
                const float square = squares[first + column];
                const float* scale =
                    scales.data() + (first + column) / weights.group() * kBlockRows;
                const std::byte* quad = codes + 64 * (column / 4) + column % 4;
                for (size_t lane = 0; lane < kBlockRows; ++lane) {
                    const auto code = std::to_integer<int>(quad[4 * lane]);
                    const float value = scale[lane] * static_cast<float>((code & 15) - 8);
                    sums[lane] += static_cast<double>(value * value * square);
                }
            }
            codes += weights.chunk_bytes();
            high_codes += 256;
            low_codes += 256;
        }
        const size_t rows = std::min(kBlockRows, weights.rows() - b * kBlockRows);
        for (size_t lane = 0; lane < rows; ++lane) {
            bounds[b * kBlockRows + lane] = static_cast<float>(std::sqrt(sums[lane]));
        }
    }
    high_part.seal(weights.blocks());
    low_part.seal(weights.blocks());
}

}  // namespace ovfast::kernels
