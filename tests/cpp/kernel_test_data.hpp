#pragma once

// Weights and buffers for tests of kernels.

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/linear.hpp"
#include "kernels/pack.hpp"

namespace ovfast::kernels::test {

/// Memory at a multiple of 64 bytes, whose end is watched.
class GuardedBytes {
public:
    explicit GuardedBytes(size_t size, uint8_t fill = 0xFF) : size_(size) {
        const size_t whole = (size + kGuard + 63) / 64 * 64;
        data_.reset(static_cast<std::byte*>(std::aligned_alloc(64, whole)));
        std::memset(data_.get(), fill, size);
        std::memset(data_.get() + size, kCanary, kGuard);
    }
    std::byte* data() const { return data_.get(); }
    bool intact() const {
        const auto* end = reinterpret_cast<const uint8_t*>(data_.get() + size_);
        return std::all_of(end, end + kGuard, [](uint8_t byte) { return byte == kCanary; });
    }

private:
    static constexpr size_t kGuard = 256;
    static constexpr uint8_t kCanary = 0xA5;
    struct Free {
        void operator()(std::byte* data) const { std::free(data); }
    };
    size_t size_;
    std::unique_ptr<std::byte, Free> data_;
};

enum class Pattern { Random, AllMax, Alternating, Zeros, Tiny, Huge };
inline constexpr Pattern kPatterns[] = {Pattern::Random, Pattern::AllMax, Pattern::Alternating,
                                        Pattern::Zeros,  Pattern::Tiny,   Pattern::Huge};

/// One group for all columns.
inline constexpr uint32_t kPerChannel = 1U << 30;

inline bool fits(const WeightFormat& format, size_t columns) {
    if (format.bits == 16) return true;
    const bool supers = format.scales == ScaleKind::SuperU8 ||
                        format.scales == ScaleKind::SuperI8 ||
                        format.offsets == OffsetKind::SuperU8;
    if (format.group >= columns) return !supers || columns <= kSuperColumns;
    return columns % format.group == 0 && columns % kChunkColumns == 0;
}

inline float as_f16(float value) {
    return from_f16(to_f16(value));
}

/// A matrix whose numbers follow `pattern`.
inline PlainWeights plain_weights(const WeightFormat& format, size_t rows, size_t columns,
                                  Pattern pattern, unsigned seed) {
    std::mt19937 random(seed);
    const auto integer = [&](int low, int high) {
        return std::uniform_int_distribution<int>(low, high)(random);
    };
    const auto real = [&] { return std::uniform_real_distribution<float>(-1.0F, 1.0F)(random); };
    PlainWeights plain;
    plain.format = format;
    plain.rows = rows;
    plain.columns = columns;
    if (format.bits == 16) {
        const bool f16 = format.floats == FloatKind::F16;
        for (size_t i = 0; i < rows * columns; ++i) {
            float value = real();
            if (pattern == Pattern::AllMax) value = 1.0F;
            if (pattern == Pattern::Alternating) value = i % 2 == 0 ? -1.0F : 1.0F;
            if (pattern == Pattern::Zeros) value = 0.0F;
            if (pattern == Pattern::Tiny) value *= f16 ? 1e-7F : 1e-30F;
            if (pattern == Pattern::Huge) value *= f16 ? 6e4F : 1e20F;
            plain.floats.push_back(f16 ? to_f16(value) : to_bf16(value));
        }
        return plain;
    }

    const int most = (1 << format.bits) - 1;
    for (size_t i = 0; i < rows * columns; ++i) {
        int code = integer(0, most);
        if (pattern == Pattern::AllMax) code = most;
        if (pattern == Pattern::Alternating) code = i % 2 == 0 ? 0 : most;
        plain.codes.push_back(static_cast<uint8_t>(code));
    }
    // `f32`: the number may leave the range of f16.
    const auto number = [&](bool f32) {
        float value = 0.02F * real();
        if (pattern == Pattern::Zeros) value = 0.0F;
        if (pattern == Pattern::Tiny) value *= f32 ? 1e-36F : 2e-5F;
        if (pattern == Pattern::Huge) value *= f32 ? 1e20F : 3e6F;
        return f32 ? value : as_f16(value);
    };
    const size_t groups = format.group >= columns ? 1 : columns / format.group;
    const size_t supers = (columns + kSuperColumns - 1) / kSuperColumns;
    for (size_t i = 0; i < rows * groups; ++i) {
        switch (format.scales) {
            case ScaleKind::F16:
                plain.scales.push_back(number(false));
                break;
            case ScaleKind::F32:
                plain.scales.push_back(number(true));
                break;
            case ScaleKind::SuperU8:
                plain.scale_codes.push_back(static_cast<int16_t>(integer(0, 255)));
                break;
            default:
                plain.scale_codes.push_back(static_cast<int16_t>(integer(-128, 127)));
        }
        switch (format.offsets) {
            case OffsetKind::F16:
                plain.offsets.push_back(number(false));
                break;
            case OffsetKind::F32:
                plain.offsets.push_back(number(true));
                break;
            case OffsetKind::ZeroPoint:
                plain.zero_points.push_back(static_cast<uint8_t>(integer(0, most)));
                break;
            case OffsetKind::SuperU8:
                plain.offset_codes.push_back(static_cast<uint8_t>(integer(0, 255)));
                break;
            default:
                break;
        }
    }
    for (size_t i = 0; i < rows * supers; ++i) {
        if (format.scales == ScaleKind::SuperU8 || format.scales == ScaleKind::SuperI8) {
            plain.scale_supers.push_back(as_f16(number(false) / 64));
        }
        if (format.offsets == OffsetKind::SuperU8) {
            plain.offset_supers.push_back(as_f16(number(false) / 64));
        }
    }
    return plain;
}

/// Packed weights that own their bytes.
class OwnedWeights {
public:
    explicit OwnedWeights(const PlainWeights& plain)
        : bytes_(packed_bytes(plain.format, plain.rows, plain.columns)) {
        pack(plain, bytes_.data());
        view_ = PackedWeights::view(bytes_.data(),
                                    packed_bytes(plain.format, plain.rows, plain.columns));
    }
    const PackedWeights& view() const { return view_; }

private:
    GuardedBytes bytes_;
    PackedWeights view_;
};

/// Activations [rows, columns] in all the forms that kernels want.
class OwnedActivations {
public:
    OwnedActivations(const std::vector<float>& values, size_t rows, size_t columns,
                     const VectorKernels& kernels, size_t group = 32)
        : padded_((columns + 31) / 32 * 32) {
        f32_.assign(rows * padded_, 0.0F);
        codes_.assign(rows * padded_, 0);
        bf16_.assign(rows * padded_, 0);
        scales_.assign(rows * padded_ / 32, 0.0F);
        sums_.assign(rows * padded_ / 32, 0.0F);
        half_sums_.assign(rows * padded_ / 16, 0.0F);
        for (size_t m = 0; m < rows; ++m) {
            const float* row = values.data() + m * columns;
            std::copy_n(row, columns, f32_.data() + m * padded_);
            kernels.to_bf16(row, columns, bf16_.data() + m * padded_);
            kernels.quantize(row, columns, group, codes_.data() + m * padded_,
                             scales_.data() + m * padded_ / 32, sums_.data() + m * padded_ / 32,
                             half_sums_.data() + m * padded_ / 16);
        }
        view_.rows = rows;
        view_.columns = columns;
        view_.padded = padded_;
        view_.int8 = {codes_.data(), scales_.data(), sums_.data(), half_sums_.data(), group};
        view_.bf16 = bf16_.data();
        view_.f32 = f32_.data();
    }
    OwnedActivations(const OwnedActivations&) = delete;
    OwnedActivations& operator=(const OwnedActivations&) = delete;
    const Activations& view() const { return view_; }

private:
    size_t padded_;
    std::vector<float> f32_, scales_, sums_, half_sums_;
    std::vector<int8_t> codes_;
    std::vector<uint16_t> bf16_;
    Activations view_;
};

inline std::vector<WeightFormat> formats() {
    using S = ScaleKind;
    using O = OffsetKind;
    const auto quantized = [](uint8_t bits, S scales, O offsets, uint32_t group) {
        return WeightFormat{bits, scales, offsets, FloatKind::None, group};
    };
    return {quantized(4, S::F16, O::Symmetric, 32),
            quantized(4, S::F16, O::Symmetric, 128),
            quantized(4, S::F32, O::Symmetric, kPerChannel),
            quantized(4, S::F16, O::ZeroPoint, 64),
            quantized(4, S::F16, O::HalfSymmetric, 32),
            quantized(4, S::F16, O::F16, 32),
            quantized(4, S::SuperU8, O::SuperU8, 32),
            quantized(4, S::F32, O::F32, 16),
            quantized(5, S::F16, O::Symmetric, 32),
            quantized(5, S::F16, O::F16, 32),
            quantized(5, S::SuperU8, O::SuperU8, 32),
            quantized(5, S::F32, O::ZeroPoint, 128),
            quantized(5, S::F16, O::Symmetric, 16),
            quantized(6, S::SuperI8, O::Symmetric, 16),
            quantized(6, S::F16, O::ZeroPoint, 32),
            quantized(6, S::F32, O::F32, kPerChannel),
            quantized(8, S::F16, O::Symmetric, 32),
            quantized(8, S::F32, O::Symmetric, kPerChannel),
            quantized(8, S::F16, O::ZeroPoint, 128),
            quantized(8, S::F32, O::HalfSymmetric, 64),
            quantized(8, S::F32, O::F32, 32),
            quantized(8, S::F16, O::F16, 16),
            quantized(8, S::SuperU8, O::SuperU8, 64),
            WeightFormat{16, S::None, O::None, FloatKind::F16, 32},
            WeightFormat{16, S::None, O::None, FloatKind::BF16, 32}};
}

/// For names of tests: letters, digits and underscores.
inline std::string test_name(const std::string& text) {
    std::string name;
    for (const char c : text) {
        if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
            name += c;
        } else if (!name.empty() && name.back() != '_') {
            name += '_';
        }
    }
    return name;
}

/// Runs `kernel` with scratch of exactly the size it asks for, filled with NaNs. False when it
/// wrote behind it.
[[nodiscard]] inline bool run_guarded(const LinearKernel& kernel, LinearArgs args) {
    const size_t bytes = kernel.scratch_bytes(*args.weights, args.last_row - args.first_row);
    const GuardedBytes scratch(bytes);
    args.scratch = scratch.data();
    run_linear(kernel, args);
    return scratch.intact();
}

}  // namespace ovfast::kernels::test
