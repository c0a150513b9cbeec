#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace ovfast::kernels {

/// Packed weights: a matrix [rows, columns] (a linear layer's [output, input]) in the layout that
/// the kernels read front to back, once. The same bytes serve every instruction set.
///
/// A weight is  scale * code + offset  with one scale and offset for each row and group of
/// consecutive columns, and an unsigned code of 4, 5, 6 or 8 bits; or it is a 16-bit float.
/// Narrower codes are stored in the narrowest width that holds them all, so nothing is rounded.
///
/// What is exact (the stored numbers are those of the source, and products are rounded to f32
/// once):
///   source                             bits     scales    offsets     group
///   i4 / i8 symmetric (NNCF)           4 / 8    F16, F32  Symmetric   32, 64, 128, ..., columns
///   u4 / u8 with zero points (NNCF)    4 / 8    F16, F32  ZeroPoint   the same
///   Q4_0, Q5_0, Q8_0                   4, 5, 8  F16       Symmetric   32
///   Q4_1, Q5_1                         4, 5     F16       F16         32
///   Q4_K, Q5_K                         4, 5     SuperU8   SuperU8     32
///   Q6_K                               6        SuperI8   Symmetric   16
///   f16, bf16                          16       -         -           -
///
/// Layout, version 1. All sections begin at multiples of 64 bytes from the header.
///   Header (64 bytes), then ceil(rows / 16) row blocks of `block_bytes` each. Row r is lane r % 16
///   of block r / 16. Missing rows of the last block have codes, scales and offsets of zero.
///   Columns are padded to a multiple of 32 (`padded`); padding has codes of zero, and activations
///   are padded with zeros, so it adds nothing. groups = ceil(columns / group).
///   A row block is three sections, each padded to 64 bytes:
///   1. scales:   F16, F32:  [groups][16 lanes].
///                SuperU8/I8: f16 [supers][16] (one for every 256 columns, supers =
///                ceil(columns / 256)), padded to 64 bytes, then u8 or i8 [groups][16]; the scale
///                is super * code.
///   2. offsets:  Symmetric: none; the offset is -2^(bits-1) * scale.
///                HalfSymmetric: none; it is -(2^(bits-1) - 1/2) * scale (the high halves of split
///                weights, see split.hpp).
///                ZeroPoint: u8 [groups][16]; the offset is -zero_point * scale.
///                F16, F32:  [groups][16].
///                SuperU8:   as for scales; the offset is -(super * code).
///   3. codes:    [padded / 32] chunks of 32 columns, 64 * bits bytes each. A chunk is made of
///                vectors of 64 bytes: byte 4 * lane + b. "Quad" j (0..7) of a chunk is its columns
///                4j .. 4j+3, with b counting them: exactly a row of an AMX B tile, and what
///                vpdpbusd multiplies with a broadcast quad of activations.
///                  8 bits: vectors 0..7 are the quads.
///                  4 bits: vector v (0..3) has quad 2v in its low nibbles, 2v+1 in the high ones.
///                  5 bits: the 4-bit vectors hold bits 0..3; vector 4 holds bit 4 of quad j in
///                          bit j.
///                  6 bits: the 4-bit vectors hold bits 0..3; vector 4 + p (p = 0, 1) holds bits 4
///                          and 5 of quad 4p + i (i = 0..3) in bits 2i and 2i+1.
///                 16 bits: vector p (0..15) has, for each lane, the floats of columns 2p and 2p+1.
///
/// Bytes in a file may be moved by up to 63 to align them: view() looks for the header in the first
/// 64 bytes it is given (packed_bytes() + 63 bytes hold the matrix wherever it begins).
inline constexpr uint32_t kLayoutVersion = 1;
inline constexpr size_t kBlockRows = 16;
inline constexpr size_t kChunkColumns = 32;
inline constexpr size_t kSuperColumns = 256;

enum class ScaleKind : uint8_t { None = 0, F16 = 1, F32 = 2, SuperU8 = 3, SuperI8 = 4 };
enum class OffsetKind : uint8_t {
    None = 0,
    Symmetric = 1,
    ZeroPoint = 2,
    F16 = 3,
    F32 = 4,
    SuperU8 = 5,
    HalfSymmetric = 6
};
enum class FloatKind : uint8_t { None = 0, F16 = 1, BF16 = 2 };

/// How a matrix is stored; everything that a kernel is chosen by.
struct WeightFormat {
    uint8_t bits = 4;  ///< 4, 5, 6, 8, or 16 for floats
    ScaleKind scales = ScaleKind::F16;
    OffsetKind offsets = OffsetKind::Symmetric;
    FloatKind floats = FloatKind::None;
    /// Columns that share a scale: 16 or a multiple of 32, and columns are a multiple of it and of
    /// 32; or any number >= columns, for one group. Kernels use PackedWeights::group().
    uint32_t group = 32;

    bool operator==(const WeightFormat& other) const;
    /// "u4 g128 f16 symmetric", "u6 g16 super-i8 symmetric", "bf16": for people.
    std::string text() const;
};

struct PackedHeader {
    char magic[8];  ///< "OVFPACK", zero
    uint32_t layout_version;
    uint8_t bits;
    ScaleKind scales;
    OffsetKind offsets;
    FloatKind floats;
    uint32_t group;
    uint32_t reserved;
    uint64_t rows;
    uint64_t columns;
    uint64_t block_bytes;
    uint64_t checksum;  ///< of this header with the checksum of all row blocks in this place
    uint64_t reserved2;
};
static_assert(sizeof(PackedHeader) == 64);

/// A view of packed weights somewhere in memory. Cheap to copy; does not own the bytes.
class PackedWeights {
public:
    PackedWeights() = default;

    /// Checks the header and that the blocks lie within `bytes`. Throws std::invalid_argument that
    /// says what was expected and found: no header, another layout version, cut off, sizes that do
    /// not fit each other. Does not read the blocks: see verify().
    static PackedWeights view(const void* data, size_t bytes);

    /// Compares the checksum of all bytes. Throws std::invalid_argument when it differs.
    void verify() const;

    const WeightFormat& format() const { return format_; }
    size_t rows() const { return rows_; }
    size_t columns() const { return columns_; }
    size_t padded() const { return padded_; }  ///< columns, rounded up to 32
    size_t groups() const { return groups_; }  ///< padded() / group(); 0 for floats
    size_t blocks() const { return blocks_; }  ///< of 16 rows
    size_t block_bytes() const { return block_bytes_; }
    size_t bytes() const { return sizeof(PackedHeader) + blocks_ * block_bytes_; }
    /// Columns that share a scale: 16 or a multiple of 32; padded() where one group has them all.
    size_t group() const { return group_; }

    const std::byte* header() const { return data_; }
    const std::byte* scales(size_t block) const {
        return data_ + sizeof(PackedHeader) + block * block_bytes_;
    }
    const std::byte* offsets(size_t block) const { return scales(block) + offsets_at_; }
    const std::byte* codes(size_t block) const { return scales(block) + codes_at_; }
    size_t chunk_bytes() const { return size_t{64} * format_.bits; }  ///< of 32 columns

private:
    const std::byte* data_ = nullptr;
    WeightFormat format_;
    size_t rows_ = 0, columns_ = 0, padded_ = 0, groups_ = 0, group_ = 0, blocks_ = 0;
    size_t block_bytes_ = 0, offsets_at_ = 0, codes_at_ = 0;
};

/// Bytes of a packed matrix, header included. Throws std::invalid_argument for a format that does
/// not exist, for rows or columns outside 1..2^30, for columns that are no multiple of the group
/// and of 32 (unless one group has them all), naming both, and for a group with super scales or
/// offsets that crosses a multiple of 256 columns.
size_t packed_bytes(const WeightFormat& format, size_t rows, size_t columns);

/// Checksum of the layout: 64 bits, fast enough to run at the speed of memory (8 independent
/// lanes).
uint64_t checksum(const void* data, size_t bytes);

}  // namespace ovfast::kernels
