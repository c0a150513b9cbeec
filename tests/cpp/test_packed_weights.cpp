#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <set>

#include "kernels/pack.hpp"
#include "kernels/packed_weights.hpp"
#include "random_weights.hpp"

namespace {

using namespace ovfast::kernels;
using ovfast::kernels::testing::all_formats;
using ovfast::kernels::testing::exists;
using ovfast::kernels::testing::packed;
using ovfast::kernels::testing::plain_scale;
using ovfast::kernels::testing::plain_weight;
using ovfast::kernels::testing::random_weights;
using ::testing::HasSubstr;

using Bytes = std::vector<std::byte>;

constexpr uint32_t kAllColumns = std::numeric_limits<uint32_t>::max();
constexpr WeightFormat kQ4{4, ScaleKind::F16, OffsetKind::Symmetric, FloatKind::None, 32};
constexpr WeightFormat kU4{4, ScaleKind::F32, OffsetKind::ZeroPoint, FloatKind::None, 64};
constexpr WeightFormat kQ4K{4, ScaleKind::SuperU8, OffsetKind::SuperU8, FloatKind::None, 32};
constexpr WeightFormat kQ6K{6, ScaleKind::SuperI8, OffsetKind::Symmetric, FloatKind::None, 16};
constexpr WeightFormat kF16{16, ScaleKind::None, OffsetKind::None, FloatKind::F16, 32};

void expect_refused(const std::function<void()>& call, const std::string& says) {
    try {
        call();
        ADD_FAILURE() << "expected a refusal that says: " << says;
    } catch (const std::invalid_argument& error) {
        EXPECT_THAT(error.what(), HasSubstr(says));
    }
}

// ---- what goes in comes out --------------------------------------------------------------------

void expect_same(const PlainWeights& plain, const PackedWeights& view) {
    ASSERT_TRUE(view.format() == plain.format);
    ASSERT_EQ(view.rows(), plain.rows);
    ASSERT_EQ(view.columns(), plain.columns);
    const std::vector<float> unpacked = unpack(view);
    std::vector<float> one_row(plain.columns);
    for (size_t row = 0; row < plain.rows; ++row) {
        unpack_row(view, row, one_row.data());
        for (size_t column = 0; column < plain.columns; ++column) {
            const float expected = plain_weight(plain, row, column);
            ASSERT_EQ(unpacked[row * plain.columns + column], expected) << row << ", " << column;
            ASSERT_EQ(one_row[column], expected) << row << ", " << column;
        }
    }
}

void expect_same_scales(const PlainWeights& plain, const PackedWeights& view) {
    std::vector<float> scales(view.groups() * 16, -1), offsets(view.groups() * 16, -1);
    for (size_t block = 0; block < view.blocks(); ++block) {
        decode_scales(view, block, scales.data(), offsets.data());
        for (size_t group = 0; group < view.groups(); ++group) {
            for (size_t lane = 0; lane < 16; ++lane) {
                const size_t row = 16 * block + lane;
                ovfast::kernels::testing::ScaleAndOffset
                    expected;  // rows that do not exist have zeros
                if (row < plain.rows) expected = plain_scale(plain, row, group * view.group());
                ASSERT_EQ(scales[16 * group + lane], expected.scale) << row << ", group " << group;
                ASSERT_EQ(offsets[16 * group + lane], expected.offset)
                    << row << ", group " << group;
            }
        }
    }
}

TEST(PackedWeights, RoundTripIsExact) {
    size_t matrices = 0;
    std::set<std::string> seen;
    for (const uint32_t group : {16u, 32u, 64u, 128u, 256u, kAllColumns}) {
        for (const WeightFormat& format : all_formats(group)) {
            for (const size_t rows : {1, 15, 16, 17, 100}) {
                for (const size_t columns : {16, 32, 96, 256, 512, 1000}) {
                    if (!exists(format, rows, columns)) continue;
                    SCOPED_TRACE(format.text() + ", " + std::to_string(rows) + " x " +
                                 std::to_string(columns));
                    const auto seed = static_cast<unsigned>(rows * 1009 + columns);
                    const PlainWeights plain = random_weights(format, rows, columns, seed);
                    const Bytes bytes = packed(plain);
                    const PackedWeights view = PackedWeights::view(bytes.data(), bytes.size());
                    view.verify();
                    ASSERT_EQ(view.bytes(), bytes.size());
                    expect_same(plain, view);
                    expect_same_scales(plain, view);
                    if (HasFatalFailure()) return;
                    ++matrices;
                    seen.insert(format.text());
                }
            }
        }
    }
    // 80 kinds of codes in six sizes of groups, and two of floats: none may be refused throughout.
    EXPECT_EQ(seen.size(), 80u * 6 + 2);
    EXPECT_GT(matrices, 80u * 6 * 5);
}

TEST(PackedWeights, ExtremeNumbersSurvive) {
    PlainWeights plain = random_weights(kQ4, 16, 64, 1);
    const float infinity = std::numeric_limits<float>::infinity();
    const std::vector<float> extremes = {0x1p-24f, -0x1p-24f, 65504.0f, -65504.0f,
                                         0.0f,     -0.0f,     infinity, 0x1.ff8p-15f};
    std::copy(extremes.begin(), extremes.end(), plain.scales.begin());
    plain.scales[8] = std::numeric_limits<float>::quiet_NaN();
    const Bytes bytes = packed(plain);
    const PackedWeights view = PackedWeights::view(bytes.data(), bytes.size());
    std::vector<float> scales(2 * 16), offsets(2 * 16);
    decode_scales(view, 0, scales.data(), offsets.data());
    for (size_t i = 0; i < extremes.size(); ++i) {
        const size_t at = i % 2 * 16 + i / 2;  // [row][group] became [group][lane]
        EXPECT_EQ(scales[at], extremes[i]);
        EXPECT_EQ(offsets[at], -8 * extremes[i]);
        EXPECT_EQ(std::signbit(scales[at]), std::signbit(extremes[i]));
    }
    EXPECT_TRUE(std::isnan(scales[4]));
}

// ---- the bytes are those that the header describes
// -----------------------------------------------

/// Where the layout puts a bit of a code: byte of the code section, and bit within it.
std::pair<size_t, size_t> expected_place(int bits, size_t lane, size_t column, int bit) {
    const size_t chunk = column / 32, quad = column % 32 / 4, b = column % 4;
    const size_t begin = chunk * 64 * bits + 4 * lane + b;
    if (bits == 8) return {begin + 64 * quad, bit};
    if (bit < 4) return {begin + 64 * (quad / 2), 4 * (quad % 2) + bit};
    if (bits == 5) return {begin + 64 * 4, quad};
    return {begin + 64 * (4 + quad / 4), 2 * (quad % 4) + (bit - 4)};
}

TEST(PackedWeights, CodesAreWhereTheLayoutSays) {
    for (const int bits : {4, 5, 6, 8}) {
        const WeightFormat format{static_cast<uint8_t>(bits), ScaleKind::F16, OffsetKind::Symmetric,
                                  FloatKind::None, 64};
        PlainWeights plain = random_weights(format, 18, 64, 1);
        for (size_t row = 0; row < 18; ++row) {
            for (size_t column = 0; column < 64; ++column) {
                const int bit = static_cast<int>((row + column) % bits);
                std::fill(plain.codes.begin(), plain.codes.end(), uint8_t{0});
                plain.codes[row * 64 + column] = static_cast<uint8_t>(1 << bit);
                const Bytes bytes = packed(plain);
                const PackedWeights view = PackedWeights::view(bytes.data(), bytes.size());
                const auto [byte, place] = expected_place(bits, row % 16, column, bit);
                for (size_t block = 0; block < 2; ++block) {
                    for (size_t i = 0; i < 2 * view.chunk_bytes(); ++i) {
                        const bool here = block == row / 16 && i == byte;
                        ASSERT_EQ(std::to_integer<int>(view.codes(block)[i]), here ? 1 << place : 0)
                            << bits << " bits, " << row << ", " << column;
                    }
                }
            }
        }
    }
}

TEST(PackedWeights, FloatsAreWhereTheLayoutSays) {
    PlainWeights plain = random_weights(kF16, 17, 96, 1);
    const Bytes bytes = packed(plain);
    const PackedWeights view = PackedWeights::view(bytes.data(), bytes.size());
    EXPECT_EQ(view.groups(), 0u);
    for (size_t row = 0; row < 17; ++row) {
        for (size_t column = 0; column < 96; ++column) {
            uint16_t found;
            std::memcpy(&found,
                        view.codes(row / 16) + column / 32 * 1024 + column % 32 / 2 * 64 +
                            row % 16 * 4 + column % 2 * 2,
                        2);
            ASSERT_EQ(found, plain.floats[row * 96 + column]);
        }
    }
}

TEST(PackedWeights, SectionsAreWhereTheLayoutSays) {
    const PlainWeights plain = random_weights(kQ4K, 20, 512, 1);
    const Bytes bytes = packed(plain);
    const PackedWeights view = PackedWeights::view(bytes.data(), bytes.size());
    // 2 supers x 16 x f16 = 64, 16 groups x 16 codes = 256; twice; then 16 chunks of 256.
    EXPECT_EQ(view.scales(0) - view.header(), 64);
    EXPECT_EQ(view.offsets(0) - view.scales(0), 64 + 256);
    EXPECT_EQ(view.codes(0) - view.offsets(0), 64 + 256);
    EXPECT_EQ(view.block_bytes(), 2u * (64 + 256) + 16 * 256);
    EXPECT_EQ(view.scales(1) - view.scales(0), static_cast<ptrdiff_t>(view.block_bytes()));
    const auto at = [&](const std::byte* section, size_t offset) {
        return std::to_integer<int>(section[offset]);
    };
    for (const size_t row : {0, 7, 16, 19}) {
        const size_t block = row / 16, lane = row % 16;
        for (size_t group = 0; group < 16; ++group) {
            const size_t place = 64 + 16 * group + lane;
            EXPECT_EQ(at(view.scales(block), place), plain.scale_codes[row * 16 + group]);
            EXPECT_EQ(at(view.offsets(block), place), plain.offset_codes[row * 16 + group]);
        }
        for (size_t super = 0; super < 2; ++super) {
            uint16_t bits;
            std::memcpy(&bits, view.scales(block) + 2 * (16 * super + lane), 2);
            EXPECT_EQ(bits, to_f16(plain.scale_supers[row * 2 + super]));
            std::memcpy(&bits, view.offsets(block) + 2 * (16 * super + lane), 2);
            EXPECT_EQ(bits, to_f16(plain.offset_supers[row * 2 + super]));
        }
    }
}

// A change here needs a new layout version: files that exist would no longer be read.
TEST(PackedWeights, BytesOfVersionOneStayAsTheyAre) {
    PlainWeights plain;
    plain.format = kU4;
    plain.rows = 3;
    plain.columns = 128;
    for (size_t i = 0; i < 3 * 128; ++i) plain.codes.push_back(static_cast<uint8_t>(i * 7 % 16));
    plain.scales = {1, 2, 3, 4, 5, 6};
    plain.zero_points = {0, 1, 2, 13, 14, 15};
    const Bytes bytes = packed(plain);
    EXPECT_EQ(bytes.size(), 64u + 128 + 64 + 4 * 256);
    EXPECT_EQ(checksum(bytes.data(), bytes.size()), 0xDE207627BED1A7ADu);
}

// ---- bytes of others ---------------------------------------------------------------------------

bool accepted(const void* data, size_t bytes) {
    try {
        PackedWeights::view(data, bytes).verify();
        return true;
    } catch (const std::invalid_argument&) {
        return false;
    }
}

TEST(PackedWeights, EveryChangedBitIsNoticed) {
    for (const WeightFormat& format : {kQ4, kQ4K, kQ6K, kF16}) {
        Bytes bytes = packed(random_weights(format, 5, 256, 2));
        ASSERT_TRUE(accepted(bytes.data(), bytes.size()));
        for (size_t i = 0; i < bytes.size(); ++i) {
            for (int bit = 0; bit < 8; ++bit) {
                const auto flip = static_cast<std::byte>(1 << bit);
                bytes[i] ^= flip;
                ASSERT_FALSE(accepted(bytes.data(), bytes.size())) << "byte " << i;
                bytes[i] ^= flip;
            }
        }
    }
}

TEST(PackedWeights, EveryTruncationIsRefused) {
    for (const WeightFormat& format : {kQ4, kQ4K, kQ6K, kF16}) {
        const Bytes whole = packed(random_weights(format, 17, 256, 2));
        for (size_t size = 0; size < whole.size(); ++size) {
            // A copy of exactly this size: a sanitizer sees any byte read beyond it.
            const Bytes bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
            ASSERT_THROW(PackedWeights::view(bytes.data(), size), std::invalid_argument) << size;
        }
    }
}

TEST(PackedWeights, AnyOffsetBelow64IsFound) {
    const PlainWeights plain = random_weights(kQ6K, 17, 256, 3);
    const size_t size = packed_bytes(kQ6K, 17, 256);
    for (size_t move = 0; move < 64; ++move) {
        Bytes bytes(size + move);
        pack(plain, bytes.data() + move);
        const PackedWeights view = PackedWeights::view(bytes.data(), bytes.size());
        ASSERT_EQ(view.header(), bytes.data() + move);
        view.verify();
        expect_same(plain, view);
        ASSERT_THROW(PackedWeights::view(bytes.data(), bytes.size() - 1), std::invalid_argument);
    }
    Bytes far(size + 64);
    pack(plain, far.data() + 64);
    expect_refused([&] { PackedWeights::view(far.data(), far.size()); }, "expected a header");
}

TEST(PackedWeights, HostileHeadersAreRefused) {
    const Bytes good = packed(random_weights(kQ4, 16, 64, 1));
    const auto with = [&](const std::function<void(PackedHeader&)>& change) {
        return [&good, change] {
            Bytes bytes = good;
            PackedHeader header;
            std::memcpy(&header, bytes.data(), sizeof(header));
            change(header);
            std::memcpy(bytes.data(), &header, sizeof(header));
            PackedWeights::view(bytes.data(), bytes.size());
        };
    };
    const uint64_t most = std::numeric_limits<uint64_t>::max();
    expect_refused(with([](auto& h) { h.layout_version = 2; }), "layout version 1, found 2");
    expect_refused(with([](auto& h) { h.rows = 0; }), "got [0, 64]");
    expect_refused(with([](auto& h) { h.columns = 0; }), "got [16, 0]");
    expect_refused(with([&](auto& h) { h.rows = most; }), "1 to 2^30");
    expect_refused(with([&](auto& h) { h.columns = most; }), "1 to 2^30");
    expect_refused(with([](auto& h) { h.rows = uint64_t{1} << 30; }), "cut off");
    expect_refused(with([](auto& h) { h.rows = 17; }), "cut off");
    expect_refused(with([](auto& h) { h.columns = 96; }), "row blocks");
    expect_refused(with([](auto& h) { h.block_bytes = 0; }), "row blocks");
    // rows x block_bytes wraps around to almost nothing unless sizes are bounded first
    expect_refused(with([](auto& h) {
                       h.rows = uint64_t{1} << 60;
                       h.columns = uint64_t{1} << 40;
                   }),
                   "1 to 2^30");
    expect_refused(with([](auto& h) { h.group = 0; }), "got group 0");
    expect_refused(with([](auto& h) { h.group = 33; }), "got group 33");
    expect_refused(with([](auto& h) { h.bits = 7; }), "got 7");
    expect_refused(with([](auto& h) { h.bits = 16; }), "16 bits are f16 or bf16");
    expect_refused(with([](auto& h) { h.scales = ScaleKind{200}; }), "scales (200)");
    expect_refused(with([](auto& h) { h.offsets = OffsetKind{7}; }), "offsets (7)");
    expect_refused(with([](auto& h) { h.floats = FloatKind{3}; }), "floats (3)");
    expect_refused(with([](auto& h) { h.scales = ScaleKind::None; }), "need scales");
    expect_refused(with([](auto& h) { h.offsets = OffsetKind::None; }), "need scales and offsets");
    expect_refused(with([](auto& h) { h.floats = FloatKind::BF16; }), "are no floats");
    expect_refused([] { PackedWeights::view(nullptr, 0); }, "expected a header");
    expect_refused([] { PackedWeights().verify(); }, "nothing");
}

TEST(PackedWeights, FormatsThatDoNotExistAreRefused) {
    WeightFormat format = kQ4;
    expect_refused([&] { packed_bytes(format, 4, 80); }, "got group 32 and 80 columns");
    expect_refused([&] { packed_bytes(format, 4, 0); }, "got [4, 0]");
    format.group = 48;
    expect_refused([&] { packed_bytes(format, 4, 96); }, "got group 48");
    EXPECT_GT(packed_bytes(format, 4, 48), 0u);  // all columns in one group: any number
    format.group = 16;
    expect_refused([&] { packed_bytes(format, 4, 48); }, "of the group and of 32");
    format = kQ4K;
    format.group = 96;
    expect_refused([&] { packed_bytes(format, 4, 288); }, "cross a multiple of 256");
    format.group = 512;
    expect_refused([&] { packed_bytes(format, 4, 512); }, "cross a multiple of 256");
    EXPECT_GT(packed_bytes(format, 4, 256), 0u);
}

TEST(Pack, RefusesWhatDoesNotFit) {
    std::byte out[1 << 14] = {};
    const auto refuses = [&](const WeightFormat& format, const std::string& says,
                             const std::function<void(PlainWeights&)>& change) {
        PlainWeights plain = random_weights(format, 4, 256, 1);
        change(plain);
        expect_refused([&] { pack(plain, out); }, says);
        // Whatever is refused leaves nothing behind that looks packed.
        EXPECT_EQ(out[0], std::byte{0});
    };
    const WeightFormat q41{4, ScaleKind::F16, OffsetKind::F16, FloatKind::None, 32};
    refuses(kQ4, "expected 4 x 256 codes, got 1023", [](auto& w) { w.codes.pop_back(); });
    refuses(kQ4, "fit into 4 bits", [](auto& w) { w.codes[9] = 16; });
    refuses(kQ4, "expected 4 x 8 scales, got 31", [](auto& w) { w.scales.pop_back(); });
    refuses(kQ4, "f16 values in scales", [](auto& w) { w.scales[0] = 0.1f; });
    refuses(kQ4, "f16 values in scales", [](auto& w) { w.scales[0] = 70000.0f; });
    refuses(q41, "f16 values in offsets", [](auto& w) { w.offsets[0] = 0.1f; });
    refuses(q41, "expected 4 x 8 offsets, got 0", [](auto& w) { w.offsets.clear(); });
    refuses(kU4, "expected 4 x 4 zero_points, got 17", [](auto& w) { w.zero_points.resize(17); });
    refuses(kQ4K, "x 1 scale_supers, got 0", [](auto& w) { w.scale_supers.clear(); });
    refuses(kQ4K, "x 8 scale_codes, got 0", [](auto& w) { w.scale_codes.clear(); });
    refuses(kQ4K, "in 0..255, got -1", [](auto& w) { w.scale_codes[0] = -1; });
    refuses(kQ4K, "x 1 offset_supers, got 0", [](auto& w) { w.offset_supers.clear(); });
    refuses(kQ4K, "x 8 offset_codes, got 0", [](auto& w) { w.offset_codes.clear(); });
    refuses(kQ4K, "f16 values in offset_supers", [](auto& w) { w.offset_supers[0] = 0.1f; });
    refuses(kQ6K, "in -128..127, got 128", [](auto& w) { w.scale_codes[0] = 128; });
    refuses(kF16, "floats, got 0", [](auto& w) { w.floats.clear(); });
}

TEST(Pack, UnpackingARowThatDoesNotExistIsRefused) {
    const Bytes bytes = packed(random_weights(kQ4, 5, 32, 1));
    const PackedWeights view = PackedWeights::view(bytes.data(), bytes.size());
    float row[32];
    expect_refused([&] { unpack_row(view, 5, row); }, "row 5 of 5");
}

TEST(WeightFormat, Text) {
    EXPECT_EQ(kQ4.text(), "u4 g32 f16 symmetric");
    EXPECT_EQ(kU4.text(), "u4 g64 f32 zero-point");
    EXPECT_EQ(kQ4K.text(), "u4 g32 super-u8 super-u8");
    EXPECT_EQ(kQ6K.text(), "u6 g16 super-i8 symmetric");
    EXPECT_EQ(kF16.text(), "f16");
}

// ---- narrow ------------------------------------------------------------------------------------

TEST(Narrow, SymmetricCodesTakeTheFewestBits) {
    struct Range {
        int least, most, bits;
    };
    for (const auto& [least, most, bits] : std::vector<Range>{{-8, 7, 4},
                                                              {-9, 7, 5},
                                                              {-8, 8, 5},
                                                              {-16, 15, 5},
                                                              {-17, 0, 6},
                                                              {0, 16, 6},
                                                              {-32, 31, 6},
                                                              {-33, 0, 8},
                                                              {0, 32, 8},
                                                              {-128, 127, 8}}) {
        WeightFormat format = kQ4;
        format.bits = 8;
        PlainWeights plain = random_weights(format, 4, 64, 1);
        for (uint8_t& code : plain.codes) {
            code = static_cast<uint8_t>(128 + least + code % (most - least + 1));
        }
        plain.codes[0] = static_cast<uint8_t>(128 + least);
        plain.codes[1] = static_cast<uint8_t>(128 + most);
        const PlainWeights before = plain;
        narrow(plain);
        EXPECT_EQ(plain.format.bits, bits) << least << ".." << most;
        for (size_t i = 0; i < 4 * 64; ++i) {
            ASSERT_EQ(plain_weight(plain, i / 64, i % 64), plain_weight(before, i / 64, i % 64));
        }
    }
}

TEST(Narrow, ZeroPointsMustFitToo) {
    WeightFormat format = kU4;
    format.bits = 8;
    PlainWeights plain = random_weights(format, 4, 64, 1);
    for (uint8_t& code : plain.codes) code %= 16;
    for (uint8_t& zero : plain.zero_points) zero %= 16;
    PlainWeights wide = plain;
    narrow(plain);
    EXPECT_EQ(plain.format.bits, 4);
    EXPECT_EQ(plain.codes, wide.codes);
    wide.zero_points[3] = 17;
    narrow(wide);
    EXPECT_EQ(wide.format.bits, 5);
}

TEST(Narrow, LeavesEverythingElse) {
    for (const OffsetKind offsets : {OffsetKind::F16, OffsetKind::F32, OffsetKind::SuperU8}) {
        const WeightFormat format{8, ScaleKind::F16, offsets, FloatKind::None, 32};
        PlainWeights plain = random_weights(format, 2, 64, 1);
        std::fill(plain.codes.begin(), plain.codes.end(), uint8_t{0});
        narrow(plain);
        EXPECT_EQ(plain.format.bits, 8);
    }
    PlainWeights floats = random_weights(kF16, 2, 64, 1);
    narrow(floats);
    EXPECT_EQ(floats.format.bits, 16);
}

// ---- checksum ----------------------------------------------------------------------------------

TEST(Checksum, IsTheSameOnEveryMachine) {
    std::vector<uint8_t> bytes;
    for (size_t i = 0; i < 1000; ++i) bytes.push_back(static_cast<uint8_t>(i * 31 + i / 256));
    EXPECT_EQ(checksum(bytes.data(), 0), 0xA96F4447E43817CFu);
    EXPECT_EQ(checksum(bytes.data(), 64), 0x227418779D4B4FA6u);
    EXPECT_EQ(checksum(bytes.data(), 1000), 0x18E48134552004F0u);
    std::vector<uint8_t> moved(1001);
    std::copy(bytes.begin(), bytes.end(), moved.begin() + 1);
    EXPECT_EQ(checksum(moved.data() + 1, 1000), checksum(bytes.data(), 1000));
}

TEST(Checksum, NoticesBitsOrderAndLength) {
    for (const bool zeros : {false, true}) {
        std::vector<uint8_t> bytes(5 * 64 + 13);
        if (!zeros) {
            for (size_t i = 0; i < bytes.size(); ++i)
                bytes[i] = static_cast<uint8_t>(i * i + i / 64);
        }
        std::set<uint64_t> seen = {checksum(bytes.data(), bytes.size())};
        size_t changes = 1;
        const auto expect_new = [&](const char* what) {
            ++changes;
            ASSERT_TRUE(seen.insert(checksum(bytes.data(), bytes.size())).second) << what;
        };
        // Two bits of one chain, too: with a weaker step one cancels the other.
        for (size_t i = 0; i < 8 * bytes.size(); ++i) {
            bytes[i / 8] ^= static_cast<uint8_t>(1 << i % 8);
            expect_new("a bit");
            // The same bit of the next 64 bytes, and any other bit of that word.
            for (size_t other = i / 64 * 64 + 512; other < i / 64 * 64 + 576; ++other) {
                if (other >= 8 * bytes.size()) break;
                bytes[other / 8] ^= static_cast<uint8_t>(1 << other % 8);
                expect_new("two bits");
                bytes[other / 8] ^= static_cast<uint8_t>(1 << other % 8);
            }
            bytes[i / 8] ^= static_cast<uint8_t>(1 << i % 8);
        }
        if (!zeros) {
            for (size_t a = 0; a < 5; ++a) {
                for (size_t b = 0; b < a; ++b) {
                    const auto swap = [&] {
                        std::swap_ranges(bytes.begin() + 64 * static_cast<ptrdiff_t>(a),
                                         bytes.begin() + 64 * static_cast<ptrdiff_t>(a + 1),
                                         bytes.begin() + 64 * static_cast<ptrdiff_t>(b));
                    };
                    swap();
                    expect_new("swapped pieces");
                    swap();
                }
            }
        }
        while (bytes.size() > 1) {
            bytes.pop_back();
            expect_new("length");
        }
        EXPECT_EQ(seen.size(), changes);
    }
}

// ---- 16-bit floats -----------------------------------------------------------------------------

/// By the definition of the format, in double: sign, 5 bits of exponent, 10 of mantissa.
double f16_value(uint16_t bits) {
    const int exponent = bits >> 10 & 31;
    const int mantissa = bits & 1023;
    const double value =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    return bits & 0x8000 ? -value : value;
}

TEST(Float16, EveryValueAndEveryBoundary) {
    for (uint32_t i = 0; i < 0x7C00; ++i) {
        const auto bits = static_cast<uint16_t>(i);
        const float value = from_f16(bits);
        ASSERT_EQ(static_cast<double>(value), f16_value(bits)) << i;
        ASSERT_EQ(from_f16(bits | 0x8000), -value);
        ASSERT_EQ(to_f16(value), bits);
        ASSERT_EQ(to_f16(-value), bits | 0x8000);
        // Halfway to the next one goes to the even one; beyond halfway, to the nearer. Above the
        // last stands 65536, which does not exist: infinity.
        const double next = i + 1 < 0x7C00 ? f16_value(static_cast<uint16_t>(i + 1)) : 65536.0;
        const auto half = static_cast<float>((f16_value(bits) + next) / 2);
        ASSERT_EQ(to_f16(half), bits + (i & 1)) << i;
        ASSERT_EQ(to_f16(std::nextafterf(half, 0.0f)), bits) << i;
        ASSERT_EQ(to_f16(std::nextafterf(half, 1e9f)), bits + 1) << i;
    }
    const float infinity = std::numeric_limits<float>::infinity();
    EXPECT_EQ(from_f16(0x7C00), infinity);
    EXPECT_EQ(from_f16(0xFC00), -infinity);
    EXPECT_EQ(to_f16(infinity), 0x7C00);
    EXPECT_EQ(to_f16(-1e30f), 0xFC00);
    EXPECT_EQ(to_f16(-0.0f), 0x8000);
    EXPECT_EQ(to_f16(1e-44f), 0);
    for (uint32_t i = 0x7C01; i < 0x8000; ++i) {
        ASSERT_TRUE(std::isnan(from_f16(static_cast<uint16_t>(i))));
        ASSERT_TRUE(std::isnan(from_f16(to_f16(from_f16(static_cast<uint16_t>(i))))));
    }
}

TEST(BFloat16, EveryValueAndEveryBoundary) {
    const float infinity = std::numeric_limits<float>::infinity();
    for (uint32_t i = 0; i < 0x7F80; ++i) {
        const auto bits = static_cast<uint16_t>(i);
        const float value = from_bf16(bits);
        ASSERT_EQ(to_bf16(value), bits);
        ASSERT_EQ(to_bf16(-value), bits | 0x8000);
        const uint32_t half_bits = i << 16 | 0x8000;
        float half;
        std::memcpy(&half, &half_bits, sizeof(half));
        ASSERT_EQ(to_bf16(half), bits + (i & 1)) << i;
        ASSERT_EQ(to_bf16(std::nextafterf(half, 0.0f)), bits) << i;
        ASSERT_EQ(to_bf16(std::nextafterf(half, infinity)), bits + 1) << i;
    }
    EXPECT_EQ(from_bf16(0x3F80), 1.0f);
    EXPECT_EQ(from_bf16(0x7F80), infinity);
    EXPECT_EQ(to_bf16(infinity), 0x7F80);
    const uint32_t low_nan = 0x7F800001;  // all that tells it from infinity is cut off
    float nan;
    std::memcpy(&nan, &low_nan, sizeof(nan));
    EXPECT_TRUE(std::isnan(from_bf16(to_bf16(nan))));
}

}  // namespace
