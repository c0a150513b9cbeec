// The AMX kernels' packing, which needs no AMX: what tiles are loaded from.

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/linear_amx.hpp"
#include "kernels/pack.hpp"

namespace ovfast::kernels {
namespace {

constexpr size_t kRows = 40;  // the last row block has 8
constexpr size_t kColumns = 512;

WeightFormat quantized(int bits, ScaleKind scales, OffsetKind offsets, uint32_t group) {
    WeightFormat format;
    format.bits = static_cast<uint8_t>(bits);
    format.scales = scales;
    format.offsets = offsets;
    format.group = group;
    return format;
}

WeightFormat floats(FloatKind kind) {
    WeightFormat format = quantized(16, ScaleKind::None, OffsetKind::None, 32);
    format.floats = kind;
    return format;
}

PlainWeights random_weights(const WeightFormat& format) {
    std::mt19937 random(format.bits * 1000U + format.group);
    const auto integer = [&](int low, int high) {
        return std::uniform_int_distribution<int>(low, high)(random);
    };
    const auto half = [&] {
        return from_f16(to_f16(static_cast<float>(integer(1, 2000)) * 1e-4F));
    };
    PlainWeights weights;
    weights.format = format;
    weights.rows = kRows;
    weights.columns = kColumns;
    if (format.bits == 16) {
        weights.floats.resize(kRows * kColumns);
        for (uint16_t& value : weights.floats) {
            const auto number = static_cast<float>(integer(-1000, 1000)) * 0.0137F;
            value = format.floats == FloatKind::F16 ? to_f16(number) : to_bf16(number);
        }
        return weights;
    }
    weights.codes.resize(kRows * kColumns);
    for (uint8_t& code : weights.codes)
        code = static_cast<uint8_t>(integer(0, (1 << format.bits) - 1));
    const size_t groups = kRows * (kColumns / format.group);
    const size_t supers = kRows * (kColumns / kSuperColumns);
    if (format.scales == ScaleKind::SuperU8 || format.scales == ScaleKind::SuperI8) {
        for (size_t i = 0; i < supers; ++i) weights.scale_supers.push_back(half());
        const int low = format.scales == ScaleKind::SuperU8 ? 0 : -128;
        for (size_t i = 0; i < groups; ++i) {
            weights.scale_codes.push_back(static_cast<int16_t>(integer(low, low + 255)));
        }
    } else {
        for (size_t i = 0; i < groups; ++i) weights.scales.push_back(half());
    }
    for (size_t i = 0; i < groups; ++i) {
        if (format.offsets == OffsetKind::ZeroPoint) {
            weights.zero_points.push_back(static_cast<uint8_t>(integer(0, (1 << format.bits) - 1)));
        } else if (format.offsets == OffsetKind::F16 || format.offsets == OffsetKind::F32) {
            weights.offsets.push_back(-half());
        } else if (format.offsets == OffsetKind::SuperU8) {
            weights.offset_codes.push_back(static_cast<uint8_t>(integer(0, 255)));
        }
    }
    if (format.offsets == OffsetKind::SuperU8) {
        for (size_t i = 0; i < supers; ++i) weights.offset_supers.push_back(half());
    }
    return weights;
}

// Aligned memory whose end is checked.
template <typename T>
class Guarded {
public:
    explicit Guarded(size_t count) : count_(count), values_(count + 64 + kGuard, kMark) {
        const auto address = reinterpret_cast<uintptr_t>(values_.data());
        begin_ = values_.data() + (64 - address % 64) % 64 / sizeof(T);
    }
    T* data() { return begin_; }
    bool intact() const {
        for (size_t i = 0; i < kGuard; ++i) {
            if (begin_[count_ + i] != kMark) return false;
        }
        return true;
    }

private:
    static constexpr size_t kGuard = 64;
    static constexpr T kMark = static_cast<T>(0x55);
    size_t count_;
    std::vector<T> values_;
    T* begin_;
};

class AmxPacking : public testing::TestWithParam<WeightFormat> {
protected:
    void SetUp() override {
        if (!supported(Isa::Avx512Vnni)) GTEST_SKIP() << "the packing needs AVX-512";
        plain_ = random_weights(GetParam());
        bytes_ = std::make_unique<Guarded<uint8_t>>(packed_bytes(GetParam(), kRows, kColumns));
        pack(plain_, bytes_->data());
        packed_ = PackedWeights::view(bytes_->data(), packed_bytes(GetParam(), kRows, kColumns));
    }

    PlainWeights plain_;
    std::unique_ptr<Guarded<uint8_t>> bytes_;
    PackedWeights packed_;
};

TEST_P(AmxPacking, CodesAreTheRowsOfATile) {
    const WeightFormat& format = GetParam();
    if (format.bits == 16) GTEST_SKIP() << "no codes";
    const bool symmetric = format.offsets == OffsetKind::Symmetric;
    for (size_t row = 0; row < kRows; ++row) {
        const std::byte* codes = packed_.codes(row / kBlockRows);
        for (size_t chunk = 0; chunk < kColumns / kChunkColumns; ++chunk) {
            Guarded<int8_t> tile(512);
            const int factor =
                amx_unpack_codes(format, codes + chunk * packed_.chunk_bytes(), tile.data());
            ASSERT_TRUE(tile.intact());
            for (size_t k = 0; k < kChunkColumns; ++k) {
                const int code = plain_.codes[row * kColumns + chunk * kChunkColumns + k];
                const int8_t found = tile.data()[k / 4 * 64 + row % kBlockRows * 4 + k % 4];
                if (symmetric) {
                    ASSERT_EQ(found, factor * (code - (1 << (format.bits - 1))))
                        << "row " << row << " chunk " << chunk << " column " << k;
                } else {
                    ASSERT_EQ(factor, 1);
                    ASSERT_EQ(static_cast<uint8_t>(found), code)
                        << "row " << row << " chunk " << chunk << " column " << k;
                }
            }
        }
    }
}

TEST_P(AmxPacking, Bf16TilesHoldTheRoundedWeights) {
    // No kernel but AMX's needs these instructions.
    if (!__builtin_cpu_supports("avx512bf16")) GTEST_SKIP() << "no AVX-512 BF16";
    const bool is_tile = GetParam().floats == FloatKind::BF16;
    const std::vector<float> expected = unpack(packed_);
    constexpr size_t chunks = kColumns / kChunkColumns;
    // Ranges that begin and end within groups too.
    for (const auto& [first, last] : {std::pair<size_t, size_t>{0, chunks}, {3, 4}, {5, 14}}) {
        for (size_t block = 0; block < packed_.blocks(); ++block) {
            Guarded<uint16_t> tiles((last - first) * 512);
            const uint16_t* found = tiles.data();
            if (is_tile) {
                found = reinterpret_cast<const uint16_t*>(packed_.codes(block)) + first * 512;
            } else {
                amx_bf16_tiles(packed_, block, first, last, tiles.data());
                ASSERT_TRUE(tiles.intact());
            }
            for (size_t lane = 0; lane < kBlockRows; ++lane) {
                const size_t row = block * kBlockRows + lane;
                for (size_t k = first * kChunkColumns; k < last * kChunkColumns; ++k) {
                    const size_t at = (k / kChunkColumns - first) * 512 +
                                      k % kChunkColumns / 2 * 32 + lane * 2 + k % 2;
                    const float value = row < kRows ? expected[row * kColumns + k] : 0.0F;
                    // Numbers, not bits: a zero may have either sign.
                    ASSERT_EQ(from_bf16(found[at]), from_bf16(to_bf16(value)))
                        << "row " << row << " column " << k;
                }
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Formats, AmxPacking,
                         testing::Values(quantized(4, ScaleKind::F16, OffsetKind::Symmetric, 32),
                                         quantized(4, ScaleKind::F16, OffsetKind::Symmetric, 128),
                                         quantized(4, ScaleKind::F32, OffsetKind::ZeroPoint, 64),
                                         quantized(4, ScaleKind::F16, OffsetKind::F16, 32),
                                         quantized(4, ScaleKind::SuperU8, OffsetKind::SuperU8, 32),
                                         quantized(5, ScaleKind::F16, OffsetKind::Symmetric, 32),
                                         quantized(5, ScaleKind::SuperU8, OffsetKind::SuperU8, 32),
                                         quantized(6, ScaleKind::SuperI8, OffsetKind::Symmetric,
                                                   16),
                                         quantized(6, ScaleKind::F32, OffsetKind::F32, 512),
                                         quantized(8, ScaleKind::F16, OffsetKind::Symmetric, 32),
                                         quantized(8, ScaleKind::F16, OffsetKind::ZeroPoint, 128),
                                         floats(FloatKind::F16), floats(FloatKind::BF16)),
                         [](const auto& test) {
                             std::string name = test.param.text();
                             for (char& c : name) {
                                 if (c == ' ' || c == '-') c = '_';
                             }
                             return name;
                         });

}  // namespace
}  // namespace ovfast::kernels
