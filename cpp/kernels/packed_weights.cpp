#include "kernels/packed_weights.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>

namespace ovfast::kernels {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ && sizeof(size_t) == 8,
              "packed weights are little endian and may exceed 4 GB");

constexpr char kMagic[8] = "OVFPACK";
constexpr size_t kAlignment = 64;
// Far above any model, and low enough that no size computed from two of them overflows: a column of
// a row block takes less than 64 bytes, so a matrix takes less than 2^62.
constexpr size_t kMaxSize = size_t{1} << 30;

size_t round_up(size_t value, size_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

[[noreturn]] void refuse(const std::string& what) {
    throw std::invalid_argument("packed weights: " + what);
}

const char* name(ScaleKind kind) {
    switch (kind) {
        case ScaleKind::None:
            return "none";
        case ScaleKind::F16:
            return "f16";
        case ScaleKind::F32:
            return "f32";
        case ScaleKind::SuperU8:
            return "super-u8";
        case ScaleKind::SuperI8:
            return "super-i8";
    }
    return nullptr;
}

const char* name(OffsetKind kind) {
    switch (kind) {
        case OffsetKind::None:
            return "none";
        case OffsetKind::Symmetric:
            return "symmetric";
        case OffsetKind::ZeroPoint:
            return "zero-point";
        case OffsetKind::F16:
            return "f16";
        case OffsetKind::F32:
            return "f32";
        case OffsetKind::SuperU8:
            return "super-u8";
        case OffsetKind::HalfSymmetric:
            return "half-symmetric";
    }
    return nullptr;
}

const char* name(FloatKind kind) {
    switch (kind) {
        case FloatKind::None:
            return "none";
        case FloatKind::F16:
            return "f16";
        case FloatKind::BF16:
            return "bf16";
    }
    return nullptr;
}

struct Layout {
    size_t padded = 0, groups = 0, group = 0, blocks = 0;
    size_t offsets_at = 0, codes_at = 0, block_bytes = 0;
};

void check_kinds(const WeightFormat& format) {
    if (name(format.scales) == nullptr || name(format.offsets) == nullptr ||
        name(format.floats) == nullptr) {
        refuse("no such kind of scales (" + std::to_string(int(format.scales)) + "), offsets (" +
               std::to_string(int(format.offsets)) + ") or floats (" +
               std::to_string(int(format.floats)) + ")");
    }
    if (format.bits == 16) {
        if (format.floats == FloatKind::None || format.scales != ScaleKind::None ||
            format.offsets != OffsetKind::None) {
            refuse("16 bits are f16 or bf16 without scales and offsets, got " + format.text());
        }
        return;
    }
    if (format.bits != 4 && format.bits != 5 && format.bits != 6 && format.bits != 8) {
        refuse("bits must be 4, 5, 6, 8 or 16, got " + std::to_string(format.bits));
    }
    if (format.floats != FloatKind::None || format.scales == ScaleKind::None ||
        format.offsets == OffsetKind::None) {
        refuse("codes of " + std::to_string(format.bits) +
               " bits need scales and offsets and are no floats, got " + format.text());
    }
}

void check_group(const WeightFormat& format, size_t columns) {
    const size_t group = format.group;
    const std::string got =
        "got group " + std::to_string(group) + " and " + std::to_string(columns) + " columns";
    const bool one_group = group >= columns;
    if (!one_group && group != 16 && (group == 0 || group % kChunkColumns != 0)) {
        refuse("a group is 16 columns, a multiple of 32 or all of them, " + got);
    }
    if (!one_group && (columns % group != 0 || columns % kChunkColumns != 0)) {
        refuse("columns must be a multiple of the group and of 32, unless one group has all, " +
               got);
    }
    const bool supers = format.scales == ScaleKind::SuperU8 ||
                        format.scales == ScaleKind::SuperI8 ||
                        format.offsets == OffsetKind::SuperU8;
    if (supers && (one_group ? columns > kSuperColumns : kSuperColumns % group != 0)) {
        refuse("a group with super scales must not cross a multiple of 256 columns, " + got);
    }
}

size_t super_section_bytes(size_t columns, size_t groups) {
    const size_t supers = (columns + kSuperColumns - 1) / kSuperColumns;
    return round_up(supers * kBlockRows * 2, kAlignment) + groups * kBlockRows;
}

size_t scale_bytes(ScaleKind kind, size_t columns, size_t groups) {
    switch (kind) {
        case ScaleKind::None:
            return 0;
        case ScaleKind::F16:
            return groups * kBlockRows * 2;
        case ScaleKind::F32:
            return groups * kBlockRows * 4;
        case ScaleKind::SuperU8:
        case ScaleKind::SuperI8:
            return super_section_bytes(columns, groups);
    }
    return 0;
}

size_t offset_bytes(OffsetKind kind, size_t columns, size_t groups) {
    switch (kind) {
        case OffsetKind::None:
        case OffsetKind::Symmetric:
        case OffsetKind::HalfSymmetric:
            return 0;
        case OffsetKind::ZeroPoint:
            return groups * kBlockRows;
        case OffsetKind::F16:
            return groups * kBlockRows * 2;
        case OffsetKind::F32:
            return groups * kBlockRows * 4;
        case OffsetKind::SuperU8:
            return super_section_bytes(columns, groups);
    }
    return 0;
}

Layout layout_of(const WeightFormat& format, size_t rows, size_t columns) {
    if (rows == 0 || columns == 0 || rows > kMaxSize || columns > kMaxSize) {
        refuse("rows and columns must be 1 to 2^30, got [" + std::to_string(rows) + ", " +
               std::to_string(columns) + "]");
    }
    check_kinds(format);
    Layout layout;
    layout.padded = round_up(columns, kChunkColumns);
    layout.group = layout.padded;
    if (format.floats == FloatKind::None) {
        check_group(format, columns);
        if (format.group < columns) layout.group = format.group;
        layout.groups = layout.padded / layout.group;
    }
    layout.blocks = (rows + kBlockRows - 1) / kBlockRows;
    layout.offsets_at = round_up(scale_bytes(format.scales, columns, layout.groups), kAlignment);
    layout.codes_at = layout.offsets_at +
                      round_up(offset_bytes(format.offsets, columns, layout.groups), kAlignment);
    layout.block_bytes = layout.codes_at + layout.padded / kChunkColumns * 64 * format.bits;
    return layout;
}

uint64_t load64(const std::byte* at) {
    uint64_t value;
    std::memcpy(&value, at, sizeof(value));
    return value;
}

/// One step of a chain. For any word it maps states one to one, and for any state words, so damage
/// within one word always shows at the end. The first product is off the chain. It spreads a word's
/// bits upwards, the rotation brings the high ones down and the second product spreads those: with
/// only one of the products, some bit of the state would stay a single bit, which a flip of a
/// single bit of the next word cancels.
uint64_t mix(uint64_t state, uint64_t word) {
    state ^= word * 0x9FB21C651E98DF25u;
    return (state << 29 | state >> 35) * 0xD1342543DE82EF95u;
}

}  // namespace

bool WeightFormat::operator==(const WeightFormat& other) const {
    return bits == other.bits && scales == other.scales && offsets == other.offsets &&
           floats == other.floats && group == other.group;
}

std::string WeightFormat::text() const {
    const auto known = [](const char* kind) { return std::string(kind != nullptr ? kind : "?"); };
    if (floats != FloatKind::None) return known(name(floats));
    return "u" + std::to_string(bits) + " g" + std::to_string(group) + " " + known(name(scales)) +
           " " + known(name(offsets));
}

PackedWeights PackedWeights::view(const void* data, size_t bytes) {
    const auto* begin = static_cast<const std::byte*>(data);
    size_t at = 0;
    while (at < kAlignment && at + sizeof(PackedHeader) <= bytes &&
           std::memcmp(begin + at, kMagic, sizeof(kMagic)) != 0) {
        ++at;
    }
    if (at == kAlignment || at + sizeof(PackedHeader) > bytes) {
        refuse("expected a header in the first 64 of " + std::to_string(bytes) +
               " bytes, found none");
    }
    PackedHeader header;
    std::memcpy(&header, begin + at, sizeof(header));
    if (header.layout_version != kLayoutVersion) {
        refuse("expected layout version " + std::to_string(kLayoutVersion) + ", found " +
               std::to_string(header.layout_version));
    }
    PackedWeights weights;
    weights.format_ = {header.bits, header.scales, header.offsets, header.floats, header.group};
    const Layout layout = layout_of(weights.format_, header.rows, header.columns);
    if (header.block_bytes != layout.block_bytes) {
        refuse("expected row blocks of " + std::to_string(layout.block_bytes) + " bytes, found " +
               std::to_string(header.block_bytes));
    }
    weights.data_ = begin + at;
    weights.rows_ = header.rows;
    weights.columns_ = header.columns;
    weights.padded_ = layout.padded;
    weights.groups_ = layout.groups;
    weights.group_ = layout.group;
    weights.blocks_ = layout.blocks;
    weights.block_bytes_ = layout.block_bytes;
    weights.offsets_at_ = layout.offsets_at;
    weights.codes_at_ = layout.codes_at;
    if (weights.bytes() > bytes - at) {
        refuse("cut off: expected " + std::to_string(weights.bytes()) + " bytes, found " +
               std::to_string(bytes - at));
    }
    return weights;
}

void PackedWeights::verify() const {
    if (data_ == nullptr) refuse("nothing to verify");
    PackedHeader header;
    std::memcpy(&header, data_, sizeof(header));
    const uint64_t found = header.checksum;
    header.checksum = checksum(data_ + sizeof(header), blocks_ * block_bytes_);
    if (checksum(&header, sizeof(header)) != found) {
        refuse("the checksum differs: the bytes are damaged");
    }
}

size_t packed_bytes(const WeightFormat& format, size_t rows, size_t columns) {
    const Layout layout = layout_of(format, rows, columns);
    return sizeof(PackedHeader) + layout.blocks * layout.block_bytes;
}

// Eight chains, each over every eighth word of 64 bits, the last piece of 64 bytes filled up with
// zeros; then a chain over the length and the ends of the eight. A chain waits for a product and a
// rotation at each word; eight of them keep the multiplier busy instead.
uint64_t checksum(const void* data, size_t bytes) {
    const auto* at = static_cast<const std::byte*>(data);
    std::array<uint64_t, 8> lanes;
    for (size_t i = 0; i < lanes.size(); ++i) lanes[i] = 0xD6E8FEB86659FD93u * (2 * i + 1);

    const std::byte* const whole = at + bytes / 64 * 64;
    for (; at != whole; at += 64) {
        for (size_t i = 0; i < lanes.size(); ++i) lanes[i] = mix(lanes[i], load64(at + 8 * i));
    }
    if (bytes % 64 != 0) {
        std::array<std::byte, 64> tail{};
        std::memcpy(tail.data(), at, bytes % 64);
        for (size_t i = 0; i < lanes.size(); ++i) {
            lanes[i] = mix(lanes[i], load64(tail.data() + 8 * i));
        }
    }
    uint64_t result = mix(0xA0761D6478BD642Fu, bytes);
    for (const uint64_t lane : lanes) result = mix(result, lane);
    // The last words must reach the low bits, too.
    return mix(result ^ (result >> 32), 0);
}

}  // namespace ovfast::kernels
