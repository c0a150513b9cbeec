#include <cstring>
#include <stdexcept>

#include "kernels/pack.hpp"

// GGML's block formats: what they hold, taken apart into codes and scales without rounding
// anything. Below, "d" is a block's f16 scale, and a super block is 256 columns.

namespace ovfast::kernels {
namespace {

using Bytes = const uint8_t*;

float f16_at(Bytes at) {
    uint16_t bits;
    std::memcpy(&bits, at, sizeof(bits));
    return from_f16(bits);
}

/// Where one block's numbers go.
struct BlockOut {
    uint8_t* codes;
    float* scale;
    float* offset;
    float* scale_super;
    int16_t* scale_codes;
    float* offset_super;
    uint8_t* offset_codes;
};

/// 16 bytes with columns i in the low nibbles and 16 + i in the high ones.
void nibbles_32(Bytes in, uint8_t* codes) {
    for (size_t i = 0; i < 16; ++i) {
        codes[i] = in[i] & 15;
        codes[16 + i] = in[i] >> 4;
    }
}

/// Bit i of the 32-bit word is the fifth bit of column i.
void fifth_bits_32(Bytes in, uint8_t* codes) {
    for (size_t i = 0; i < 32; ++i) {
        codes[i] = static_cast<uint8_t>(codes[i] | (in[i / 8] >> i % 8 & 1) << 4);
    }
}

// d, 16 bytes of nibbles: d * (code - 8)
void q4_0(Bytes in, const BlockOut& out) {
    *out.scale = f16_at(in);
    nibbles_32(in + 2, out.codes);
}

// d, m, 16 bytes of nibbles: d * code + m
void q4_1(Bytes in, const BlockOut& out) {
    *out.scale = f16_at(in);
    *out.offset = f16_at(in + 2);
    nibbles_32(in + 4, out.codes);
}

// d, 4 bytes of fifth bits, 16 bytes of nibbles: d * (code - 16)
void q5_0(Bytes in, const BlockOut& out) {
    *out.scale = f16_at(in);
    nibbles_32(in + 6, out.codes);
    fifth_bits_32(in + 2, out.codes);
}

// d, m, 4 bytes of fifth bits, 16 bytes of nibbles: d * code + m
void q5_1(Bytes in, const BlockOut& out) {
    *out.scale = f16_at(in);
    *out.offset = f16_at(in + 2);
    nibbles_32(in + 8, out.codes);
    fifth_bits_32(in + 4, out.codes);
}

// d, 32 signed bytes: d * byte
void q8_0(Bytes in, const BlockOut& out) {
    *out.scale = f16_at(in);
    for (size_t i = 0; i < 32; ++i) out.codes[i] = static_cast<uint8_t>(in[2 + i] ^ 0x80);
}

/// d, dmin and 12 bytes of eight 6-bit scales and eight 6-bit minimums, for 32 columns each: the
/// low six bits of bytes 0..3 and 4..7 are those of the first four; bytes 8..11 have the low four
/// bits of the others (scale low, minimum high), whose high two are on top of bytes 0..7.
void k_scales(Bytes in, const BlockOut& out) {
    *out.scale_super = f16_at(in);
    *out.offset_super = f16_at(in + 2);
    Bytes six = in + 4;
    for (size_t i = 0; i < 4; ++i) {
        out.scale_codes[i] = six[i] & 63;
        out.offset_codes[i] = six[4 + i] & 63;
        out.scale_codes[4 + i] = static_cast<int16_t>((six[8 + i] & 15) | six[i] >> 6 << 4);
        out.offset_codes[4 + i] = static_cast<uint8_t>(six[8 + i] >> 4 | six[4 + i] >> 6 << 4);
    }
}

/// 128 bytes; each 32 of them hold 64 columns, the first 32 in the low nibbles.
void k_nibbles(Bytes in, uint8_t* codes) {
    for (size_t part = 0; part < 4; ++part, in += 32, codes += 64) {
        for (size_t i = 0; i < 32; ++i) {
            codes[i] = in[i] & 15;
            codes[32 + i] = in[i] >> 4;
        }
    }
}

// scales (16 bytes), nibbles: d * scale * code - dmin * minimum
void q4_k(Bytes in, const BlockOut& out) {
    k_scales(in, out);
    k_nibbles(in + 16, out.codes);
}

// scales (16 bytes), 32 bytes of fifth bits (bit j of byte i: column 32 j + i), nibbles
void q5_k(Bytes in, const BlockOut& out) {
    k_scales(in, out);
    k_nibbles(in + 48, out.codes);
    for (size_t column = 0; column < 256; ++column) {
        const int bit = in[16 + column % 32] >> column / 32 & 1;
        out.codes[column] = static_cast<uint8_t>(out.codes[column] | bit << 4);
    }
}

// 128 bytes of nibbles, 64 bytes of high bits, 16 signed scales, d: d * scale * (code - 32).
// Each half of 128 columns is four parts of 32. Parts 0 and 1 are the low nibbles of its 64 bytes,
// 2 and 3 the high ones; part p has its high bits in bits 2p, 2p+1 of its 32 bytes.
void q6_k(Bytes in, const BlockOut& out) {
    for (size_t half = 0; half < 2; ++half) {
        Bytes low = in + 64 * half;
        Bytes high = in + 128 + 32 * half;
        for (size_t column = 0; column < 128; ++column) {
            const size_t part = column / 32;
            const int nibble = low[column % 64] >> 4 * (part / 2) & 15;
            const int top = high[column % 32] >> 2 * part & 3;
            out.codes[128 * half + column] = static_cast<uint8_t>(nibble | top << 4);
        }
    }
    for (size_t i = 0; i < 16; ++i) out.scale_codes[i] = static_cast<int8_t>(in[192 + i]);
    *out.scale_super = f16_at(in + 208);
}

struct BlockType {
    const char* name;
    size_t bytes;
    size_t columns;
    WeightFormat format;
    void (*read)(Bytes in, const BlockOut& out);  ///< null: floats, as they are
};

constexpr auto kNoFloats = FloatKind::None;
constexpr BlockType kTypes[] = {
    {"Q4_0", 18, 32, {4, ScaleKind::F16, OffsetKind::Symmetric, kNoFloats, 32}, q4_0},
    {"Q4_1", 20, 32, {4, ScaleKind::F16, OffsetKind::F16, kNoFloats, 32}, q4_1},
    {"Q5_0", 22, 32, {5, ScaleKind::F16, OffsetKind::Symmetric, kNoFloats, 32}, q5_0},
    {"Q5_1", 24, 32, {5, ScaleKind::F16, OffsetKind::F16, kNoFloats, 32}, q5_1},
    {"Q8_0", 34, 32, {8, ScaleKind::F16, OffsetKind::Symmetric, kNoFloats, 32}, q8_0},
    {"Q4_K", 144, 256, {4, ScaleKind::SuperU8, OffsetKind::SuperU8, kNoFloats, 32}, q4_k},
    {"Q5_K", 176, 256, {5, ScaleKind::SuperU8, OffsetKind::SuperU8, kNoFloats, 32}, q5_k},
    {"Q6_K", 210, 256, {6, ScaleKind::SuperI8, OffsetKind::Symmetric, kNoFloats, 16}, q6_k},
    {"F16", 2, 1, {16, ScaleKind::None, OffsetKind::None, FloatKind::F16, 32}, nullptr},
    {"BF16", 2, 1, {16, ScaleKind::None, OffsetKind::None, FloatKind::BF16, 32}, nullptr},
};

const BlockType* find_type(const std::string& name) {
    for (const BlockType& type : kTypes) {
        if (name == type.name) return &type;
    }
    return nullptr;
}

[[noreturn]] void refuse(const std::string& type, const std::string& what) {
    throw std::invalid_argument("GGUF weights of type " + type + ": " + what);
}

}  // namespace

bool gguf_type_packs(const std::string& type) {
    return find_type(type) != nullptr;
}

PlainWeights from_gguf(const std::string& type, const void* data, size_t bytes, size_t rows,
                       size_t columns) {
    const BlockType* block = find_type(type);
    if (block == nullptr) {
        std::string known;
        for (const BlockType& each : kTypes) known += std::string(" ") + each.name;
        refuse(type, "cannot be packed; these can:" + known);
    }
    if (columns % block->columns != 0) {
        refuse(type, "columns must be a multiple of " + std::to_string(block->columns) + ", got " +
                         std::to_string(columns));
    }
    packed_bytes(block->format, rows, columns);  // refuses sizes whose products overflow
    const size_t blocks = rows * (columns / block->columns);
    if (bytes != blocks * block->bytes) {
        refuse(type, "[" + std::to_string(rows) + ", " + std::to_string(columns) + "] takes " +
                         std::to_string(blocks * block->bytes) + " bytes, got " +
                         std::to_string(bytes));
    }

    PlainWeights weights;
    weights.format = block->format;
    weights.rows = rows;
    weights.columns = columns;
    if (block->read == nullptr) {
        weights.floats.resize(rows * columns);
        std::memcpy(weights.floats.data(), data, bytes);
        return weights;
    }
    // No row of these types begins within a block, so groups and super blocks count on from row to
    // row and a block's index finds everything that is its own.
    const WeightFormat& format = block->format;
    const size_t groups = block->columns / format.group;
    weights.codes.resize(rows * columns);
    if (format.scales == ScaleKind::F16) {
        weights.scales.resize(blocks);
    } else {
        weights.scale_supers.resize(blocks);
        weights.scale_codes.resize(blocks * groups);
    }
    if (format.offsets == OffsetKind::F16) weights.offsets.resize(blocks);
    if (format.offsets == OffsetKind::SuperU8) {
        weights.offset_supers.resize(blocks);
        weights.offset_codes.resize(blocks * groups);
    }
    const auto at = [](auto& values, size_t index) {
        return values.empty() ? nullptr : values.data() + index;
    };
    const auto* in = static_cast<Bytes>(data);
    for (size_t i = 0; i < blocks; ++i, in += block->bytes) {
        block->read(in, {at(weights.codes, i * block->columns), at(weights.scales, i),
                         at(weights.offsets, i), at(weights.scale_supers, i),
                         at(weights.scale_codes, i * groups), at(weights.offset_supers, i),
                         at(weights.offset_codes, i * groups)});
    }
    return weights;
}

}  // namespace ovfast::kernels
