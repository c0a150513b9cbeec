#include "kernels/pack.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace ovfast::kernels {
namespace {

constexpr size_t kLanes = kBlockRows;

[[noreturn]] void refuse(const std::string& what) {
    throw std::invalid_argument("packing weights: " + what);
}

template <typename To, typename From>
To bit_cast(const From& from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

template <typename T>
T load(const std::byte* at) {
    T value;
    std::memcpy(&value, at, sizeof(value));
    return value;
}

template <typename T>
void store(std::byte* at, T value) {
    std::memcpy(at, &value, sizeof(value));
}

}  // namespace

// None of these lets the processor see a denormal: the flags that flush them may be set.

uint16_t to_f16(float value) {
    const uint32_t bits = bit_cast<uint32_t>(value);
    const uint32_t sign = bits >> 16 & 0x8000;
    const uint32_t magnitude = bits & 0x7FFFFFFF;
    uint32_t result;
    if (magnitude > 0x7F800000) {
        result = 0x7E00 | (magnitude >> 13 & 0x1FF);
    } else if (magnitude >= 0x477FF000) {  // 65520: halfway to 65536, which rounds to infinity
        result = 0x7C00;
    } else if (magnitude < 0x33000000) {  // below 2^-25, half of the least denormal
        result = 0;
    } else {
        const uint32_t exponent = magnitude >> 23;
        // Normal numbers drop 13 bits; denormal ones (exponent below 113) lose one more a step.
        const bool normal = exponent >= 113;
        const uint32_t drop = normal ? 13 : 126 - exponent;
        const uint32_t from = normal ? magnitude - (112u << 23) : (magnitude & 0x7FFFFF) | 0x800000;
        const uint32_t half = (1u << (drop - 1)) - 1;
        result = (from + half + (from >> drop & 1)) >> drop;
    }
    return static_cast<uint16_t>(sign | result);
}

float from_f16(uint16_t bits) {
    // All three cases are computed and one is chosen: without branches this vectorizes.
    const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
    const uint32_t magnitude = bits & 0x7FFFu;
    const auto denormal =
        bit_cast<uint32_t>(static_cast<float>(static_cast<int>(magnitude)) * 0x1p-24f);
    const uint32_t normal = (magnitude << 13) + (112u << 23);
    const uint32_t special = magnitude << 13 | 0x7F800000u;
    const uint32_t result = magnitude < 0x400 ? denormal : magnitude < 0x7C00 ? normal : special;
    return bit_cast<float>(sign | result);
}

uint16_t to_bf16(float value) {
    const uint32_t bits = bit_cast<uint32_t>(value);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
    return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float from_bf16(uint16_t bits) {
    return bit_cast<float>(uint32_t{bits} << 16);
}

namespace {

bool is_super(ScaleKind kind) {
    return kind == ScaleKind::SuperU8 || kind == ScaleKind::SuperI8;
}

size_t super_count(const PackedWeights& weights) {
    return (weights.columns() + kSuperColumns - 1) / kSuperColumns;
}

/// Where the codes of a section with super scales begin.
size_t super_codes_at(const PackedWeights& weights) {
    return (super_count(weights) * kLanes * sizeof(uint16_t) + 63) / 64 * 64;
}

size_t super_of(const PackedWeights& weights, size_t group) {
    return group * weights.group() / kSuperColumns;
}

// ---- checks ----------------------------------------------------------------------------------

template <typename T>
void check_size(const char* member, const std::vector<T>& values, size_t rows, size_t per_row) {
    if (values.size() != rows * per_row) {
        refuse("expected " + std::to_string(rows) + " x " + std::to_string(per_row) + " " + member +
               ", got " + std::to_string(values.size()));
    }
}

void check_f16(const char* member, const std::vector<float>& values) {
    for (const float value : values) {
        if (from_f16(to_f16(value)) != value && !std::isnan(value)) {
            refuse("expected f16 values in " + std::string(member) + ", got " +
                   std::to_string(value));
        }
    }
}

void check_supers(const char* member, const std::vector<float>& values, size_t rows,
                  size_t supers) {
    check_size(member, values, rows, supers);
    check_f16(member, values);
}

void check_scales(const PlainWeights& weights, size_t groups, size_t supers) {
    const ScaleKind kind = weights.format.scales;
    if (!is_super(kind)) {
        check_size("scales", weights.scales, weights.rows, groups);
        if (kind == ScaleKind::F16) check_f16("scales", weights.scales);
        return;
    }
    check_supers("scale_supers", weights.scale_supers, weights.rows, supers);
    check_size("scale_codes", weights.scale_codes, weights.rows, groups);
    const int low = kind == ScaleKind::SuperU8 ? 0 : -128;
    const int high = kind == ScaleKind::SuperU8 ? 255 : 127;
    for (const int16_t code : weights.scale_codes) {
        if (code < low || code > high) {
            refuse("expected scale_codes in " + std::to_string(low) + ".." + std::to_string(high) +
                   ", got " + std::to_string(code));
        }
    }
}

void check_offsets(const PlainWeights& weights, size_t groups, size_t supers) {
    const size_t rows = weights.rows;
    switch (weights.format.offsets) {
        case OffsetKind::ZeroPoint:
            check_size("zero_points", weights.zero_points, rows, groups);
            break;
        case OffsetKind::F16:
            check_f16("offsets", weights.offsets);
            [[fallthrough]];
        case OffsetKind::F32:
            check_size("offsets", weights.offsets, rows, groups);
            break;
        case OffsetKind::SuperU8:
            check_supers("offset_supers", weights.offset_supers, rows, supers);
            check_size("offset_codes", weights.offset_codes, rows, groups);
            break;
        case OffsetKind::None:
        case OffsetKind::Symmetric:
        case OffsetKind::HalfSymmetric:
            break;
    }
}

void check_codes(const PlainWeights& weights) {
    check_size("codes", weights.codes, weights.rows, weights.columns);
    uint8_t used = 0;
    for (const uint8_t code : weights.codes) used |= code;
    if (used >> weights.format.bits != 0) {
        refuse("a code does not fit into " + std::to_string(weights.format.bits) + " bits");
    }
}

void check(const PlainWeights& weights) {
    const size_t columns = weights.columns;
    if (weights.format.floats != FloatKind::None) {
        check_size("floats", weights.floats, weights.rows, columns);
        return;
    }
    const size_t groups = weights.format.group >= columns ? 1 : columns / weights.format.group;
    const size_t supers = (columns + kSuperColumns - 1) / kSuperColumns;
    check_codes(weights);
    check_scales(weights, groups, supers);
    check_offsets(weights, groups, supers);
}

// ---- one row block ----------------------------------------------------------------------------

/// Writes values[first_row + lane][i], converted, to section[i][lane].
template <typename Stored, typename Value, typename Convert>
void put_lanes(std::byte* section, const std::vector<Value>& values, size_t per_row,
               size_t first_row, size_t lanes, Convert convert) {
    for (size_t lane = 0; lane < lanes; ++lane) {
        const Value* row = values.data() + (first_row + lane) * per_row;
        for (size_t i = 0; i < per_row; ++i) {
            store<Stored>(section + (i * kLanes + lane) * sizeof(Stored), convert(row[i]));
        }
    }
}

float same(float value) {
    return value;
}
uint8_t low_byte(int value) {
    return static_cast<uint8_t>(value);
}

void put_scales(const PlainWeights& plain, const PackedWeights& view, size_t row, size_t lanes,
                std::byte* section) {
    const size_t groups = view.groups();
    switch (plain.format.scales) {
        case ScaleKind::F16:
            put_lanes<uint16_t>(section, plain.scales, groups, row, lanes, to_f16);
            break;
        case ScaleKind::F32:
            put_lanes<float>(section, plain.scales, groups, row, lanes, same);
            break;
        case ScaleKind::SuperU8:
        case ScaleKind::SuperI8:
            put_lanes<uint16_t>(section, plain.scale_supers, super_count(view), row, lanes, to_f16);
            put_lanes<uint8_t>(section + super_codes_at(view), plain.scale_codes, groups, row,
                               lanes, low_byte);
            break;
        case ScaleKind::None:
            break;
    }
}

void put_offsets(const PlainWeights& plain, const PackedWeights& view, size_t row, size_t lanes,
                 std::byte* section) {
    const size_t groups = view.groups();
    switch (plain.format.offsets) {
        case OffsetKind::ZeroPoint:
            put_lanes<uint8_t>(section, plain.zero_points, groups, row, lanes, low_byte);
            break;
        case OffsetKind::F16:
            put_lanes<uint16_t>(section, plain.offsets, groups, row, lanes, to_f16);
            break;
        case OffsetKind::F32:
            put_lanes<float>(section, plain.offsets, groups, row, lanes, same);
            break;
        case OffsetKind::SuperU8:
            put_lanes<uint16_t>(section, plain.offset_supers, super_count(view), row, lanes,
                                to_f16);
            put_lanes<uint8_t>(section + super_codes_at(view), plain.offset_codes, groups, row,
                               lanes, low_byte);
            break;
        case OffsetKind::None:
        case OffsetKind::Symmetric:
        case OffsetKind::HalfSymmetric:
            break;
    }
}

/// One lane's 32 codes of a chunk, see the layout in packed_weights.hpp.
void put_codes(int bits, size_t lane, const uint8_t* codes, std::byte* chunk) {
    auto* out = reinterpret_cast<uint8_t*>(chunk) + 4 * lane;
    if (bits == 8) {
        for (size_t quad = 0; quad < 8; ++quad) std::memcpy(out + 64 * quad, codes + 4 * quad, 4);
        return;
    }
    for (size_t v = 0; v < 4; ++v) {
        const uint8_t* quads = codes + 8 * v;
        for (size_t b = 0; b < 4; ++b) {
            out[64 * v + b] = static_cast<uint8_t>((quads[b] & 15) | (quads[4 + b] & 15) << 4);
        }
    }
    for (size_t quad = 0; quad < 8; ++quad) {
        for (size_t b = 0; b < 4; ++b) {
            const int high = codes[4 * quad + b] >> 4;
            if (bits == 5) out[64 * 4 + b] |= static_cast<uint8_t>(high << quad);
            if (bits == 6) {
                out[64 * (4 + quad / 4) + b] |= static_cast<uint8_t>(high << 2 * (quad % 4));
            }
        }
    }
}

void get_codes(int bits, size_t lane, const std::byte* chunk, uint8_t* codes) {
    const auto* in = reinterpret_cast<const uint8_t*>(chunk) + 4 * lane;
    if (bits == 8) {
        for (size_t quad = 0; quad < 8; ++quad) std::memcpy(codes + 4 * quad, in + 64 * quad, 4);
        return;
    }
    for (size_t quad = 0; quad < 8; ++quad) {
        for (size_t b = 0; b < 4; ++b) {
            int code = in[64 * (quad / 2) + b] >> 4 * (quad % 2) & 15;
            if (bits == 5) code |= (in[64 * 4 + b] >> quad & 1) << 4;
            if (bits == 6) code |= (in[64 * (4 + quad / 4) + b] >> 2 * (quad % 4) & 3) << 4;
            codes[4 * quad + b] = static_cast<uint8_t>(code);
        }
    }
}

void put_row(const PlainWeights& plain, size_t row, size_t lane, size_t chunk_bytes,
             std::byte* chunks) {
    const size_t columns = plain.columns;
    for (size_t first = 0; first < columns; first += kChunkColumns, chunks += chunk_bytes) {
        const size_t count = std::min(kChunkColumns, columns - first);
        if (plain.format.bits == 16) {
            const uint16_t* floats = plain.floats.data() + row * columns + first;
            for (size_t i = 0; i < count; ++i) {
                store(chunks + 64 * (i / 2) + 4 * lane + 2 * (i % 2), floats[i]);
            }
        } else {
            const uint8_t* codes = plain.codes.data() + row * columns + first;
            uint8_t padded[kChunkColumns] = {};
            if (count < kChunkColumns) {
                std::memcpy(padded, codes, count);
                codes = padded;
            }
            put_codes(plain.format.bits, lane, codes, chunks);
        }
    }
}

/// super * code for `count` lanes of one group; the code is Code, u8 or i8.
template <typename Code, size_t count>
void super_products(const PackedWeights& weights, const std::byte* section, size_t group,
                    size_t lane, float* out) {
    const std::byte* supers = section + (super_of(weights, group) * kLanes + lane) * 2;
    const std::byte* codes = section + super_codes_at(weights) + group * kLanes + lane;
    for (size_t i = 0; i < count; ++i) {
        out[i] =
            from_f16(load<uint16_t>(supers + 2 * i)) * static_cast<float>(load<Code>(codes + i));
    }
}

/// Scales and offsets of one group of `count` rows, which begin at `lane` of a block.
template <size_t count>
void decode_group(const PackedWeights& weights, size_t block, size_t group, size_t lane,
                  float* scales, float* offsets) {
    const size_t at = group * kLanes + lane;
    const std::byte* section = weights.scales(block);
    switch (weights.format().scales) {
        case ScaleKind::F16:
            for (size_t i = 0; i < count; ++i) {
                scales[i] = from_f16(load<uint16_t>(section + 2 * (at + i)));
            }
            break;
        case ScaleKind::F32:
            std::memcpy(scales, section + 4 * at, 4 * count);
            break;
        case ScaleKind::SuperU8:
            super_products<uint8_t, count>(weights, section, group, lane, scales);
            break;
        case ScaleKind::SuperI8:
            super_products<int8_t, count>(weights, section, group, lane, scales);
            break;
        case ScaleKind::None:
            break;
    }
    section = weights.offsets(block);
    switch (weights.format().offsets) {
        case OffsetKind::Symmetric:
        case OffsetKind::HalfSymmetric: {
            const auto middle = static_cast<float>(1 << (weights.format().bits - 1));
            const bool half = weights.format().offsets == OffsetKind::HalfSymmetric;
            const float zero = half ? middle - 0.5F : middle;
            for (size_t i = 0; i < count; ++i) offsets[i] = -zero * scales[i];
            break;
        }
        case OffsetKind::ZeroPoint:
            for (size_t i = 0; i < count; ++i) {
                offsets[i] = -static_cast<float>(load<uint8_t>(section + at + i)) * scales[i];
            }
            break;
        case OffsetKind::F16:
            for (size_t i = 0; i < count; ++i) {
                offsets[i] = from_f16(load<uint16_t>(section + 2 * (at + i)));
            }
            break;
        case OffsetKind::F32:
            std::memcpy(offsets, section + 4 * at, 4 * count);
            break;
        case OffsetKind::SuperU8:
            super_products<uint8_t, count>(weights, section, group, lane, offsets);
            for (size_t i = 0; i < count; ++i) offsets[i] = -offsets[i];
            break;
        case OffsetKind::None:
            break;
    }
}

}  // namespace

void write_header(const WeightFormat& format, size_t rows, size_t columns, void* out) {
    const size_t bytes = packed_bytes(format, rows, columns);
    PackedHeader header{};
    std::memcpy(header.magic, "OVFPACK", sizeof(header.magic));
    header.layout_version = kLayoutVersion;
    header.bits = format.bits;
    header.scales = format.scales;
    header.offsets = format.offsets;
    header.floats = format.floats;
    header.group = format.group;
    header.rows = rows;
    header.columns = columns;
    const size_t blocks = (rows + kBlockRows - 1) / kBlockRows;
    header.block_bytes = (bytes - sizeof(header)) / blocks;
    store(static_cast<std::byte*>(out), header);
}

void seal(void* out) {
    auto* begin = static_cast<std::byte*>(out);
    auto header = load<PackedHeader>(begin);
    const size_t blocks = (header.rows + kBlockRows - 1) / kBlockRows;
    header.checksum = checksum(begin + sizeof(header), blocks * header.block_bytes);
    header.checksum = checksum(&header, sizeof(header));
    store(begin, header);
}

void pack(const PlainWeights& weights, void* out) {
    const WeightFormat& format = weights.format;
    const size_t bytes = packed_bytes(format, weights.rows, weights.columns);
    check(weights);
    write_header(format, weights.rows, weights.columns, out);
    auto* begin = static_cast<std::byte*>(out);
    const size_t blocks = (weights.rows + kBlockRows - 1) / kBlockRows;
    const PackedWeights view = PackedWeights::view(out, bytes);

    for (size_t block = 0; block < blocks; ++block) {
        const size_t row = block * kBlockRows;
        const size_t lanes = std::min(kBlockRows, weights.rows - row);
        const auto section = [&](const std::byte* at) { return begin + (at - view.header()); };
        std::memset(section(view.scales(block)), 0, view.block_bytes());
        put_scales(weights, view, row, lanes, section(view.scales(block)));
        put_offsets(weights, view, row, lanes, section(view.offsets(block)));
        for (size_t lane = 0; lane < lanes; ++lane) {
            put_row(weights, row + lane, lane, view.chunk_bytes(), section(view.codes(block)));
        }
    }
    seal(out);
}

std::vector<float> unpack(const PackedWeights& weights) {
    std::vector<float> out(weights.rows() * weights.columns());
    for (size_t row = 0; row < weights.rows(); ++row) {
        unpack_row(weights, row, out.data() + row * weights.columns());
    }
    return out;
}

void unpack_row(const PackedWeights& weights, size_t row, float* out) {
    if (row >= weights.rows()) {
        throw std::invalid_argument("unpacking row " + std::to_string(row) + " of " +
                                    std::to_string(weights.rows()));
    }
    const size_t block = row / kBlockRows;
    const size_t lane = row % kBlockRows;
    const size_t columns = weights.columns();
    const std::byte* chunk = weights.codes(block);
    if (weights.format().floats != FloatKind::None) {
        const auto widen = weights.format().floats == FloatKind::F16 ? from_f16 : from_bf16;
        // Two columns a vector of 64 bytes, chunk after chunk without gaps.
        for (size_t i = 0; i < columns; ++i) {
            out[i] = widen(load<uint16_t>(chunk + 64 * (i / 2) + 4 * lane + 2 * (i % 2)));
        }
        return;
    }
    uint8_t codes[kChunkColumns];
    const size_t run = std::min(weights.group(), kChunkColumns);
    float scale = 0, offset = 0;
    for (size_t first = 0; first < columns; first += run) {
        if (first % kChunkColumns == 0) {
            get_codes(weights.format().bits, lane, chunk, codes);
            chunk += weights.chunk_bytes();
        }
        if (first % weights.group() == 0) {
            decode_group<1>(weights, block, first / weights.group(), lane, &scale, &offset);
        }
        const size_t last = std::min(first + run, columns);
        for (size_t i = first; i < last; ++i) {
            out[i] = std::fma(scale, static_cast<float>(codes[i % kChunkColumns]), offset);
        }
    }
}

void decode_scales(const PackedWeights& weights, size_t block, float* scales, float* offsets) {
    for (size_t group = 0; group < weights.groups(); ++group) {
        decode_group<kLanes>(weights, block, group, 0, scales + group * kLanes,
                             offsets + group * kLanes);
    }
}

void narrow(PlainWeights& weights) {
    WeightFormat& format = weights.format;
    const bool symmetric = format.offsets == OffsetKind::Symmetric;
    if (format.floats != FloatKind::None ||
        (!symmetric && format.offsets != OffsetKind::ZeroPoint) || weights.codes.empty()) {
        return;
    }
    // Not std::minmax_element: this loop vectorizes, and nearly half of packing's time was that.
    uint8_t low = 255;
    uint8_t high = 0;
    for (const uint8_t code : weights.codes) {
        low = std::min(low, code);
        high = std::max(high, code);
    }
    const int least = low;
    int most = high;
    if (!symmetric && !weights.zero_points.empty()) {
        most = std::max<int>(
            most, *std::max_element(weights.zero_points.begin(), weights.zero_points.end()));
    }
    for (const int bits : {4, 5, 6}) {
        // Zero sits in the middle of symmetric codes, and moves there with the width.
        const int shift = symmetric ? (1 << (format.bits - 1)) - (1 << (bits - 1)) : 0;
        if (bits >= format.bits) return;
        if (least < shift || most - shift >= 1 << bits) continue;
        for (uint8_t& code : weights.codes) code = static_cast<uint8_t>(code - shift);
        format.bits = static_cast<uint8_t>(bits);
        return;
    }
}

}  // namespace ovfast::kernels
