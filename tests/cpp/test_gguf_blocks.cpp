#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>

#include "kernels/pack.hpp"
#include "random_weights.hpp"

namespace {

using namespace ovfast::kernels;
using ovfast::kernels::testing::packed;
using ::testing::HasSubstr;

using Raw = std::vector<uint8_t>;

float half_at(const uint8_t* block, size_t at) {
    return from_f16(static_cast<uint16_t>(block[at] | block[at + 1] << 8));
}

/// Bit `bit` of a string of bytes, the lowest first.
int bit_of(const uint8_t* bytes, size_t bit) {
    return bytes[bit / 8] >> bit % 8 & 1;
}

/// The nibble of column `i` in bytes that hold `span` columns low, then `span` columns high.
int nibble_of(const uint8_t* bytes, size_t i, size_t span) {
    const uint8_t byte = bytes[i / (2 * span) * span + i % span];
    return i % (2 * span) < span ? byte & 15 : byte >> 4;
}

/// Scale (`which` 0) or minimum (1) of part j (0..7) of a K block: six bits each, as GGML spreads
/// them over 12 bytes.
int k_scale(const uint8_t* six, size_t j, size_t which) {
    if (j < 4) return six[j + 4 * which] % 64;
    const int low = which == 0 ? six[j + 4] % 16 : six[j + 4] / 16;
    return low + 16 * (six[j - 4 + 4 * which] / 64);
}

/// One weight of one block: the definition of each type, column by column, and independent of how
/// the code under test goes through a block. In double nothing is rounded (products of at most 11 +
/// 8
/// + 6 bits) but the sum with a minimum many binades away, so that the conversion to f32 rounds as
/// unpack() does: once, at the end.
using Weight = std::function<double(const uint8_t* block, size_t i)>;

struct Type {
    const char* name;
    size_t bytes;
    size_t columns;
    std::vector<size_t> halves;  ///< where a block has f16 numbers
    WeightFormat format;
    Weight weight;
};

const Weight kQ4K = [](const uint8_t* b, size_t i) {
    const double scale = double(half_at(b, 0)) * k_scale(b + 4, i / 32, 0);
    const double minimum = double(half_at(b, 2)) * k_scale(b + 4, i / 32, 1);
    return scale * nibble_of(b + 16, i, 32) - minimum;
};
const Weight kQ5K = [](const uint8_t* b, size_t i) {
    const double scale = double(half_at(b, 0)) * k_scale(b + 4, i / 32, 0);
    const double minimum = double(half_at(b, 2)) * k_scale(b + 4, i / 32, 1);
    const int fifth = b[16 + i % 32] >> (i / 32) & 1;
    return scale * (nibble_of(b + 48, i, 32) + 16 * fifth) - minimum;
};
const Weight kQ6K = [](const uint8_t* b, size_t i) {
    const size_t half = i / 128, in_half = i % 128;
    const int low = nibble_of(b + 64 * half, in_half, 64);
    const int high = b[128 + 32 * half + in_half % 32] >> (2 * (in_half / 32)) & 3;
    const int scale = static_cast<int8_t>(b[192 + i / 16]);
    return double(half_at(b, 208)) * scale * (low + 16 * high - 32);
};

WeightFormat codes(uint8_t bits, ScaleKind scales, OffsetKind offsets, uint32_t group = 32) {
    return {bits, scales, offsets, FloatKind::None, group};
}

const std::vector<Type> kTypes = {
    {"Q4_0",
     18,
     32,
     {0},
     codes(4, ScaleKind::F16, OffsetKind::Symmetric),
     [](const uint8_t* b, size_t i) {
         return double(half_at(b, 0)) * (nibble_of(b + 2, i, 16) - 8);
     }},
    {"Q4_1",
     20,
     32,
     {0, 2},
     codes(4, ScaleKind::F16, OffsetKind::F16),
     [](const uint8_t* b, size_t i) {
         return double(half_at(b, 0)) * nibble_of(b + 4, i, 16) + half_at(b, 2);
     }},
    {"Q5_0",
     22,
     32,
     {0},
     codes(5, ScaleKind::F16, OffsetKind::Symmetric),
     [](const uint8_t* b, size_t i) {
         return double(half_at(b, 0)) * (nibble_of(b + 6, i, 16) + 16 * bit_of(b + 2, i) - 16);
     }},
    {"Q5_1",
     24,
     32,
     {0, 2},
     codes(5, ScaleKind::F16, OffsetKind::F16),
     [](const uint8_t* b, size_t i) {
         return double(half_at(b, 0)) * (nibble_of(b + 8, i, 16) + 16 * bit_of(b + 4, i)) +
                half_at(b, 2);
     }},
    {"Q8_0",
     34,
     32,
     {0},
     codes(8, ScaleKind::F16, OffsetKind::Symmetric),
     [](const uint8_t* b, size_t i) {
         return double(half_at(b, 0)) * static_cast<int8_t>(b[2 + i]);
     }},
    {"Q4_K", 144, 256, {0, 2}, codes(4, ScaleKind::SuperU8, OffsetKind::SuperU8), kQ4K},
    {"Q5_K", 176, 256, {0, 2}, codes(5, ScaleKind::SuperU8, OffsetKind::SuperU8), kQ5K},
    {"Q6_K", 210, 256, {208}, codes(6, ScaleKind::SuperI8, OffsetKind::Symmetric, 16), kQ6K},
    {"F16",
     2,
     1,
     {0},
     {16, ScaleKind::None, OffsetKind::None, FloatKind::F16, 32},
     [](const uint8_t* b, size_t) { return double(half_at(b, 0)); }},
    {"BF16",
     2,
     1,
     {},
     {16, ScaleKind::None, OffsetKind::None, FloatKind::BF16, 32},
     [](const uint8_t* b, size_t) {
         return double(from_bf16(static_cast<uint16_t>(b[0] | b[1] << 8)));
     }},
};

/// Any byte may stand anywhere, but f16 numbers are finite.
Raw random_blocks(const Type& type, size_t rows, size_t columns, unsigned seed) {
    std::mt19937 random(seed);
    Raw raw(rows * (columns / type.columns) * type.bytes);
    for (uint8_t& byte : raw) byte = static_cast<uint8_t>(random());
    for (size_t block = 0; block < raw.size(); block += type.bytes) {
        for (const size_t at : type.halves) raw[block + at + 1] &= 0xBF;
        // Exponents of all ones are infinities and NaNs.
        if (std::string(type.name) == "BF16") raw[block + 1] &= 0xBF;
    }
    return raw;
}

void expect_refused(const std::function<void()>& call, const std::string& says) {
    try {
        call();
        ADD_FAILURE() << "expected a refusal that says: " << says;
    } catch (const std::invalid_argument& error) {
        EXPECT_THAT(error.what(), HasSubstr(says));
    }
}

class GgufBlocks : public ::testing::TestWithParam<Type> {};

TEST_P(GgufBlocks, PackedWeightsAreThoseOfTheFile) {
    const Type& type = GetParam();
    ASSERT_TRUE(gguf_type_packs(type.name));
    for (const size_t rows : {1, 16, 37}) {
        for (const size_t columns : {32, 256, 768}) {
            if (columns % type.columns != 0) continue;
            const Raw raw = random_blocks(type, rows, columns, static_cast<unsigned>(rows));
            const PlainWeights plain = from_gguf(type.name, raw.data(), raw.size(), rows, columns);
            ASSERT_TRUE(plain.format == type.format) << plain.format.text();
            const std::vector<std::byte> bytes = packed(plain);
            const PackedWeights view = PackedWeights::view(bytes.data(), bytes.size());
            const std::vector<float> found = unpack(view);
            ASSERT_EQ(found.size(), rows * columns);
            for (size_t i = 0; i < found.size(); ++i) {
                const uint8_t* block = raw.data() + i / type.columns * type.bytes;
                const auto expected = static_cast<float>(type.weight(block, i % type.columns));
                ASSERT_EQ(found[i], expected) << i / columns << ", " << i % columns;
            }
        }
    }
}

// Bits per weight are those of the file, but for what fills up sections and the header.
TEST_P(GgufBlocks, PackedBytesAreThoseOfTheFile) {
    const Type& type = GetParam();
    const size_t source = 1024 * 4096 / type.columns * type.bytes;
    const size_t bytes = packed_bytes(type.format, 1024, 4096);
    EXPECT_GE(bytes, source);
    // Scales of a K block take six bits in the file and eight here: 16 * 2 bits in 144 bytes.
    EXPECT_LT(static_cast<double>(bytes), static_cast<double>(source) * 1.03);
}

TEST_P(GgufBlocks, WrongSizesAreRefused) {
    const Type& type = GetParam();
    const Raw raw = random_blocks(type, 2, 256, 1);
    for (const size_t size : {size_t{0}, raw.size() - 1, raw.size() + 1}) {
        expect_refused(
            [&] { from_gguf(type.name, raw.data(), size, 2, 256); },
            "takes " + std::to_string(raw.size()) + " bytes, got " + std::to_string(size));
    }
    if (type.columns > 1) {
        expect_refused([&] { from_gguf(type.name, raw.data(), raw.size(), 2, 255); },
                       "multiple of " + std::to_string(type.columns) + ", got 255");
    }
    expect_refused([&] { from_gguf(type.name, raw.data(), 0, 0, 256); }, "got [0, 256]");
    expect_refused([&] { from_gguf(type.name, raw.data(), 0, 2, 0); }, "got [2, 0]");
    // 2^56 rows of 256 columns: the number of weights wraps around to zero.
    expect_refused([&] { from_gguf(type.name, raw.data(), 0, size_t{1} << 56, 256); }, "2^30");
}

INSTANTIATE_TEST_SUITE_P(Types, GgufBlocks, ::testing::ValuesIn(kTypes),
                         [](const auto& type) { return std::string(type.param.name); });

TEST(GgufTypes, OthersDoNotPack) {
    for (const char* type : {"F32", "Q2_K", "Q3_K", "IQ4_NL", "q4_0", ""}) {
        EXPECT_FALSE(gguf_type_packs(type)) << type;
        const Raw raw(64);
        expect_refused([&] { from_gguf(type, raw.data(), raw.size(), 1, 32); },
                       "these can: Q4_0 Q4_1");
    }
}

// Blocks written out by hand: the test's own reading of a type has no part in these.
TEST(GgufBlocksByHand, Q5_0) {
    Raw raw(22);
    raw[1] = 0x40;                 // d = 2
    raw[2] = 0b10;                 // column 1
    raw[5] = 0x80;                 // column 31
    raw[6] = 0x3A, raw[7] = 0x04;  // columns 0 and 16, 1 and 17
    raw[21] = 0xF0;                // columns 15 and 31
    const auto bytes = packed(from_gguf("Q5_0", raw.data(), raw.size(), 1, 32));
    const auto found = unpack(PackedWeights::view(bytes.data(), bytes.size()));
    std::vector<float> expected(32, 2 * -16.0f);
    expected[0] = 2 * (10 - 16);
    expected[1] = 2 * (20 - 16);
    expected[16] = 2 * (3 - 16);
    expected[31] = 2 * (31 - 16);
    EXPECT_EQ(found, expected);
}

TEST(GgufBlocksByHand, Q4_K) {
    Raw raw(144);
    raw[1] = 0x3C, raw[3] = 0x38;          // d = 1, dmin = 0.5
    raw[4] = 0x80 | 5, raw[8] = 0x40 | 6;  // part 0: scale 5, minimum 6; high bits of part 4
    raw[12] = 0x73;                        // part 4: scale 3 + 16 * 2, minimum 7 + 16 * 1
    raw[16] = 0x09, raw[16 + 64] = 0x02;   // column 0: 9; column 128: 2
    const auto bytes = packed(from_gguf("Q4_K", raw.data(), raw.size(), 1, 256));
    const auto found = unpack(PackedWeights::view(bytes.data(), bytes.size()));
    std::vector<float> expected(256);
    for (size_t i = 0; i < 32; ++i) expected[i] = -3.0f, expected[128 + i] = -11.5f;
    expected[0] += 5 * 9;
    expected[128] += 35 * 2;
    EXPECT_EQ(found, expected);
}

TEST(GgufBlocksByHand, Q6_K) {
    Raw raw(210);
    raw[209] = 0x3C;                    // d = 1
    raw[192] = 0xFF, raw[192 + 6] = 3;  // scales of columns 0..15: -1; 96..111: 3
    raw[0] = 0x07, raw[32] = 0x50;      // low bits of column 0: 7; of column 96: 5
    raw[128] = 0b11000001;              // high bits of column 0: 1; of column 96: 3
    const auto bytes = packed(from_gguf("Q6_K", raw.data(), raw.size(), 1, 256));
    const auto found = unpack(PackedWeights::view(bytes.data(), bytes.size()));
    std::vector<float> expected(256);
    for (size_t i = 0; i < 16; ++i) expected[i] = 32, expected[96 + i] = -96;
    expected[0] = -1.0f * (7 + 16 - 32);
    expected[96] = 3.0f * (5 + 48 - 32);
    EXPECT_EQ(found, expected);
}

}  // namespace
