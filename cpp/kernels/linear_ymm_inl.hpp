// Integer kernels on 256-bit registers: what AVX2 and AVX-VNNI share. Included by their files
// alone, after a struct Dot that says how four codes are multiplied with four activations.
//
//   Dot::kTileRows            rows of activations whose sums find room in 16 registers
//   Dot::centred(bits)        codes are taken less 2^(bits-1), as signed bytes
//   Dot::panel_bits(bits)     which Bytes<...> multiplies unpacked codes of so many bits
//   Dot::add<Bits>(sums, w0, a0, w1, a1)  adds two quads
//   Dot::total<Bits>(sums)    int32 of the sums of up to eight quads
//
// 16 output rows are two registers ("halves") of 8 lanes.

#include <immintrin.h>

#include "kernels/packed_weights.hpp"
#include "kernels/registry.hpp"

namespace ovfast::kernels {
namespace {

inline __m256i load(const std::byte* at) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}

// ---- Codes: quads 2p and 2p + 1 of one half ----------------------------------------------------

struct Pair {
    __m256i even, odd;
};

inline Pair nibbles(const std::byte* chunk, int p, int half) {
    const __m256i mask = _mm256_set1_epi8(0x0F);
    const __m256i both = load(chunk + 64 * p + 32 * half);
    return {_mm256_and_si256(both, mask), _mm256_and_si256(_mm256_srli_epi16(both, 4), mask)};
}

// Bits `from` and above of each byte moved to bit 4. Shifts of 16 bits carry strangers in from the
// neighbour, never under the mask.
inline __m256i high_bits(__m256i bits, int from, __m256i mask) {
    const __m256i moved =
        from < 4 ? _mm256_slli_epi16(bits, 4 - from) : _mm256_srli_epi16(bits, from - 4);
    return _mm256_and_si256(moved, mask);
}

template <int Bits>
struct Packed;

template <>
struct Packed<4> {
    static constexpr int kBits = 4;
    static constexpr size_t kChunkBytes = 256;
    static constexpr bool kStreamed = true;
    static Pair pair(const std::byte* chunk, int p, int half) { return nibbles(chunk, p, half); }
};

template <>
struct Packed<5> {
    static constexpr int kBits = 5;
    static constexpr size_t kChunkBytes = 320;
    static constexpr bool kStreamed = true;
    static Pair pair(const std::byte* chunk, int p, int half) {
        const Pair low = nibbles(chunk, p, half);
        const __m256i high = load(chunk + 256 + 32 * half);
        const __m256i mask = _mm256_set1_epi8(0x10);
        return {_mm256_or_si256(low.even, high_bits(high, 2 * p, mask)),
                _mm256_or_si256(low.odd, high_bits(high, 2 * p + 1, mask))};
    }
};

template <>
struct Packed<6> {
    static constexpr int kBits = 6;
    static constexpr size_t kChunkBytes = 384;
    static constexpr bool kStreamed = true;
    static Pair pair(const std::byte* chunk, int p, int half) {
        const Pair low = nibbles(chunk, p, half);
        const __m256i high = load(chunk + 256 + 64 * (p / 2) + 32 * half);
        const __m256i mask = _mm256_set1_epi8(0x30);
        return {_mm256_or_si256(low.even, high_bits(high, p % 2 * 4, mask)),
                _mm256_or_si256(low.odd, high_bits(high, p % 2 * 4 + 2, mask))};
    }
};

// A byte a code, laid out as 8-bit weights are: those themselves, and panels of unpacked ones,
// whose codes have at most Bits bits.
template <int Bits, bool Streamed>
struct Bytes {
    static constexpr int kBits = Bits;
    static constexpr size_t kChunkBytes = 512;
    static constexpr bool kStreamed = Streamed;
    static Pair pair(const std::byte* chunk, int p, int half) {
        const std::byte* at = chunk + 128 * p + 32 * half;
        const Pair codes{load(at), load(at + 64)};
        if (!Dot::centred(Bits)) return codes;
        const __m256i middle = _mm256_set1_epi8(static_cast<char>(0x80));
        return {_mm256_xor_si256(codes.even, middle), _mm256_xor_si256(codes.odd, middle)};
    }
};

template <>
struct Packed<8> : Bytes<8, true> {};

template <int Bits>
void unpack(const std::byte* codes, size_t chunks, std::byte* panel) {
    for (size_t c = 0; c < chunks; ++c, codes += Packed<Bits>::kChunkBytes, panel += 512) {
#pragma GCC unroll 4
        for (int p = 0; p < 4; ++p) {
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                const Pair pair = Packed<Bits>::pair(codes, p, half);
                auto* to = reinterpret_cast<__m256i*>(panel + 128 * p + 32 * half);
                _mm256_storeu_si256(to, pair.even);
                _mm256_storeu_si256(to + 2, pair.odd);
            }
        }
    }
}

// ---- Scales ------------------------------------------------------------------------------------

inline __m256 widen_f16(const std::byte* at) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

inline __m256 widen_u8(const std::byte* at) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
}

inline __m256 widen_i8(const std::byte* at) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}

// Eight lanes at a time: `at` is group * 16 + lane.
struct ScaleReader {
    const std::byte* scales;
    const std::byte* offsets;
    ScaleKind scale_kind;
    OffsetKind offset_kind;
    size_t group;
    size_t super_bytes;
    float half_symmetric;  // HalfSymmetric: what stands for zero, between two codes

    size_t super(size_t at) const { return at / 16 * group / kSuperColumns * 16 + at % 16; }

    __m256 scale(size_t at) const {
        switch (scale_kind) {
            case ScaleKind::F16:
                return widen_f16(scales + 2 * at);
            case ScaleKind::F32:
                return _mm256_loadu_ps(reinterpret_cast<const float*>(scales + 4 * at));
            case ScaleKind::SuperU8:
                return _mm256_mul_ps(widen_f16(scales + 2 * super(at)),
                                     widen_u8(scales + super_bytes + at));
            default:
                return _mm256_mul_ps(widen_f16(scales + 2 * super(at)),
                                     widen_i8(scales + super_bytes + at));
        }
    }

    // Of codes that `zero` was subtracted from. Symmetric ones are not asked for.
    __m256 offset(size_t at, __m256 scale, float zero) const {
        const __m256 moved = _mm256_mul_ps(scale, _mm256_set1_ps(zero));
        switch (offset_kind) {
            case OffsetKind::HalfSymmetric:
                return _mm256_mul_ps(_mm256_set1_ps(zero - half_symmetric), scale);
            case OffsetKind::ZeroPoint: {
                const __m256 point = _mm256_sub_ps(_mm256_set1_ps(zero), widen_u8(offsets + at));
                return _mm256_mul_ps(point, scale);
            }
            case OffsetKind::F16:
                return _mm256_add_ps(widen_f16(offsets + 2 * at), moved);
            case OffsetKind::F32:
                return _mm256_add_ps(
                    _mm256_loadu_ps(reinterpret_cast<const float*>(offsets + 4 * at)), moved);
            default:
                return _mm256_sub_ps(moved, _mm256_mul_ps(widen_f16(offsets + 2 * super(at)),
                                                          widen_u8(offsets + super_bytes + at)));
        }
    }
};

inline ScaleReader scale_reader(const PackedWeights& weights, size_t block) {
    const size_t supers = (weights.columns() + kSuperColumns - 1) / kSuperColumns;
    return {weights.scales(block),
            weights.offsets(block),
            weights.format().scales,
            weights.format().offsets,
            weights.group(),
            (supers * kBlockRows * 2 + 63) / 64 * 64,
            static_cast<float>(1 << (weights.format().bits - 1)) - 0.5F};
}

// ---- A tile: a few rows of activations by one row block ----------------------------------------

struct Tile {
    const std::byte* codes;  // of the row block, packed or a panel
    const float* scales;     // [groups][16]
    const float* offsets;    // the same; null when symmetric
    float middle;            // symmetric: the code that stands for zero, else 0
    size_t group_chunks;     // 0: groups of 16 columns
    size_t chunks;
    const int8_t* activations;  // [rows][chunks * 32]
    const float* activation_scales;
    const float* sums;  // of chunks, or of their halves when groups have 16 columns
    float* out;
    size_t out_stride;
    size_t lanes;  // of the row block that exist
};

// Far enough for the next page: hardware prefetchers stop at its border.
constexpr size_t kPrefetchBytes = 2048;

inline __m256i broadcast_quad(const int8_t* codes) {
    int32_t quad;
    __builtin_memcpy(&quad, codes, sizeof(quad));
    return _mm256_set1_epi32(quad);
}

// Integer sums of pairs [First, Last) of a chunk.
template <class Weights, int Rows, int First, int Last>
inline void multiply(const std::byte* chunk, const int8_t* activations, size_t stride,
                     __m256i (&sums)[Rows][2]) {
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int p = First; p < Last; ++p) {
        const Pair low = Weights::pair(chunk, p, 0);
        const Pair high = Weights::pair(chunk, p, 1);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
            const int8_t* quads = activations + r * stride + 8 * p;
            const __m256i even = broadcast_quad(quads);
            const __m256i odd = broadcast_quad(quads + 4);
            constexpr int bits = Weights::kBits;
            sums[r][0] = Dot::add<bits>(sums[r][0], low.even, even, low.odd, odd);
            sums[r][1] = Dot::add<bits>(sums[r][1], high.even, even, high.odd, odd);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
        sums[r][0] = Dot::total<Weights::kBits>(sums[r][0]);
        sums[r][1] = Dot::total<Weights::kBits>(sums[r][1]);
    }
}

// products += activation scale * integer sum
template <int Rows>
inline void add_products(const __m256i (&sums)[Rows][2], const float* activation_scales,
                         size_t stride, __m256 (&products)[Rows][2]) {
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
        const __m256 scale = _mm256_broadcast_ss(activation_scales + r * stride);
        for (int half = 0; half < 2; ++half) {
            products[r][half] =
                _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[r][half]), scale, products[r][half]);
        }
    }
}

// A group begins with what its codes are too large by: symmetric ones have no offsets.
template <int Rows>
inline void begin_group(const Tile& tile, const float* sums, size_t stride,
                        __m256 (&products)[Rows][2]) {
    const __m256 minus_middle = _mm256_set1_ps(-tile.middle);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
        products[r][0] = products[r][1] =
            _mm256_mul_ps(minus_middle, _mm256_broadcast_ss(sums + r * stride));
    }
}

template <int Rows>
inline void end_group(const Tile& tile, size_t group, const float* sums, size_t stride,
                      const __m256 (&products)[Rows][2], __m256 (&totals)[Rows][2]) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
        const __m256 scale = _mm256_loadu_ps(tile.scales + 16 * group + 8 * half);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
            totals[r][half] = _mm256_fmadd_ps(scale, products[r][half], totals[r][half]);
        }
    }
    if (tile.offsets == nullptr) return;
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
        const __m256 offset = _mm256_loadu_ps(tile.offsets + 16 * group + 8 * half);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
            totals[r][half] =
                _mm256_fmadd_ps(offset, _mm256_broadcast_ss(sums + r * stride), totals[r][half]);
        }
    }
}

template <class Weights>
inline void prefetch(const std::byte* chunk) {
    if (!Weights::kStreamed) return;
    for (size_t line = 0; line < Weights::kChunkBytes; line += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(chunk + kPrefetchBytes + line), _MM_HINT_T0);
    }
}

// A group that lies within a chunk, in its pairs [First, Last). `sums` are those of the group.
template <class Weights, int Rows, int First, int Last>
inline void multiply_group(const Tile& tile, const std::byte* chunk, size_t c, size_t group,
                           size_t sums_stride, __m256 (&totals)[Rows][2]) {
    const float* group_sums = tile.sums + group;
    __m256 products[Rows][2];
    begin_group<Rows>(tile, group_sums, sums_stride, products);
    __m256i sums[Rows][2];
    multiply<Weights, Rows, First, Last>(chunk, tile.activations + c * kChunkColumns,
                                         tile.chunks * kChunkColumns, sums);
    add_products<Rows>(sums, tile.activation_scales + c, tile.chunks, products);
    end_group<Rows>(tile, group, group_sums, sums_stride, products, totals);
}

// Groups of several chunks: each has its scale of activations, so they are added in f32.
template <class Weights, int Rows>
inline void multiply_long_groups(const Tile& tile, __m256 (&totals)[Rows][2]) {
    const std::byte* chunk = tile.codes;
    size_t c = 0;
    for (size_t group = 0; c < tile.chunks; ++group) {
        const size_t end = c + tile.group_chunks;
        float group_sums[Rows] = {};
        for (size_t i = c; i < end; ++i) {
#pragma GCC unroll 8
            for (int r = 0; r < Rows; ++r) group_sums[r] += tile.sums[r * tile.chunks + i];
        }
        __m256 products[Rows][2];
        begin_group<Rows>(tile, group_sums, 1, products);
        for (; c < end; ++c, chunk += Weights::kChunkBytes) {
            prefetch<Weights>(chunk);
            __m256i sums[Rows][2];
            multiply<Weights, Rows, 0, 4>(chunk, tile.activations + c * kChunkColumns,
                                          tile.chunks * kChunkColumns, sums);
            add_products<Rows>(sums, tile.activation_scales + c, tile.chunks, products);
        }
        end_group<Rows>(tile, group, group_sums, 1, products, totals);
    }
}

template <class Weights, int Rows>
void multiply_tile(const Tile& tile) {
    __m256 totals[Rows][2];
    for (auto& total : totals) total[0] = total[1] = _mm256_setzero_ps();
    if (tile.group_chunks > 1) {
        multiply_long_groups<Weights, Rows>(tile, totals);
    } else {
        const std::byte* chunk = tile.codes;
        for (size_t c = 0; c < tile.chunks; ++c, chunk += Weights::kChunkBytes) {
            prefetch<Weights>(chunk);
            if (tile.group_chunks == 1) {
                multiply_group<Weights, Rows, 0, 4>(tile, chunk, c, c, tile.chunks, totals);
            } else {
                const size_t halves = 2 * tile.chunks;
                multiply_group<Weights, Rows, 0, 2>(tile, chunk, c, 2 * c, halves, totals);
                multiply_group<Weights, Rows, 2, 4>(tile, chunk, c, 2 * c + 1, halves, totals);
            }
        }
    }
    for (int r = 0; r < Rows; ++r) {
        float* out = tile.out + r * tile.out_stride;
        if (tile.lanes == kBlockRows) {
            _mm256_storeu_ps(out, totals[r][0]);
            _mm256_storeu_ps(out + 8, totals[r][1]);
        } else {
            __builtin_memcpy(out, totals[r], tile.lanes * sizeof(float));
        }
    }
}

using MultiplyTile = void (*)(const Tile&);

template <class Weights>
MultiplyTile for_rows(size_t rows) {
    static constexpr MultiplyTile table[] = {multiply_tile<Weights, 1>, multiply_tile<Weights, 2>,
                                             multiply_tile<Weights, 3>, multiply_tile<Weights, 4>,
                                             // Not made where no tile is so high.
                                             multiply_tile < Weights, Dot::kTileRows < 5 ? 4 : 5 >,
                                             multiply_tile < Weights,
                                             Dot::kTileRows < 6 ? 4 : 6 > };
    static_assert(Dot::kTileRows == 4 || Dot::kTileRows == 6);
    return table[rows - 1];
}

// ---- Kernels -----------------------------------------------------------------------------------

// Panels of a few row blocks stay in the second-level cache with room for activations, which are
// then read once for all of them.
constexpr size_t kPanelBytes = 192 * 1024;
constexpr size_t kMostPanels = 8;

inline size_t scale_count(const PackedWeights& weights) {
    return weights.groups() * kBlockRows;
}

inline bool is_symmetric(const PackedWeights& weights) {
    return weights.format().offsets == OffsetKind::Symmetric;
}

// Of one row block: scales, offsets, and a panel where codes are unpacked.
inline size_t block_scratch(const PackedWeights& weights, bool panel) {
    const size_t scales = scale_count(weights) * sizeof(float) * (is_symmetric(weights) ? 1 : 2);
    const bool unpacks = panel && weights.format().bits != 8;
    return scales + (unpacks ? weights.padded() * kBlockRows : 0);
}

inline size_t panels(const PackedWeights& weights) {
    const size_t fit = kPanelBytes / (weights.padded() * kBlockRows);
    return fit < 1 ? 1 : fit < kMostPanels ? fit : kMostPanels;
}

inline void decode_scales_of(const PackedWeights& weights, size_t block, float* scales,
                             float* offsets, float zero) {
    const ScaleReader reader = scale_reader(weights, block);
    for (size_t at = 0; at < scale_count(weights); at += 8) {
        const __m256 scale = reader.scale(at);
        _mm256_storeu_ps(scales + at, scale);
        if (offsets != nullptr) _mm256_storeu_ps(offsets + at, reader.offset(at, scale, zero));
    }
}

// Everything of a row block that does not depend on activations, in `scratch`.
inline Tile prepare(const PackedWeights& weights, size_t block, bool panel, std::byte* scratch) {
    const int bits = weights.format().bits;
    const float half_range = static_cast<float>(1 << (bits - 1));
    const float zero = Dot::centred(bits) ? half_range : 0.0F;
    auto* scales = reinterpret_cast<float*>(scratch);
    float* offsets = is_symmetric(weights) ? nullptr : scales + scale_count(weights);
    decode_scales_of(weights, block, scales, offsets, zero);

    Tile tile{};
    tile.codes = weights.codes(block);
    if (panel && bits != 8) {
        std::byte* unpacked = scratch + block_scratch(weights, false);
        const auto unpack_codes = bits == 4 ? unpack<4> : bits == 5 ? unpack<5> : unpack<6>;
        unpack_codes(weights.codes(block), weights.padded() / kChunkColumns, unpacked);
        tile.codes = unpacked;
    }
    tile.scales = scales;
    tile.offsets = offsets;
    tile.middle = is_symmetric(weights) ? half_range - zero : 0.0F;
    tile.group_chunks = weights.group() / kChunkColumns;
    tile.chunks = weights.padded() / kChunkColumns;
    const size_t left = weights.rows() - block * kBlockRows;
    tile.lanes = left < kBlockRows ? left : kBlockRows;
    return tile;
}

inline MultiplyTile packed_tile(int bits, size_t rows) {
    switch (bits) {
        case 4:
            return for_rows<Packed<4>>(rows);
        case 5:
            return for_rows<Packed<5>>(rows);
        case 6:
            return for_rows<Packed<6>>(rows);
        default:
            return for_rows<Packed<8>>(rows);
    }
}

inline MultiplyTile panel_tile(int bits, size_t rows) {
    if (Dot::panel_bits(bits) == 8) return for_rows<Bytes<8, false>>(rows);
    if (Dot::panel_bits(bits) == 4) return for_rows<Bytes<Dot::panel_bits(4), false>>(rows);
    return for_rows<Bytes<Dot::panel_bits(6), false>>(rows);
}

template <bool Panel>
void run(const LinearArgs& args) {
    const PackedWeights& weights = *args.weights;
    const Activations& in = *args.activations;
    const int bits = weights.format().bits;
    const size_t rows = args.last_row - args.first_row;
    // Equal tiles: 7 rows are 4 + 3, not 6 + 1.
    const size_t tiles = (rows + Dot::kTileRows - 1) / Dot::kTileRows;
    const size_t together = Panel ? panels(weights) : 1;
    for (size_t first = args.first_block; first < args.last_block; first += together) {
        const size_t left = args.last_block - first;
        const size_t count = left < together ? left : together;
        Tile blocks[kMostPanels];
        for (size_t b = 0; b < count; ++b) {
            blocks[b] = prepare(weights, first + b, Panel,
                                args.scratch + b * block_scratch(weights, Panel));
        }
        for (size_t t = 0; t < tiles; ++t) {
            const size_t begin = rows * t / tiles;
            const size_t tile_rows = rows * (t + 1) / tiles - begin;
            const size_t row = args.first_row + begin;
            const auto multiply_rows =
                Panel ? panel_tile(bits, tile_rows) : packed_tile(bits, tile_rows);
            for (size_t b = 0; b < count; ++b) {
                Tile tile = blocks[b];
                tile.activations = in.int8.codes + row * in.padded;
                tile.activation_scales = in.int8.scales + row * tile.chunks;
                tile.sums = tile.group_chunks == 0 ? in.int8.half_sums + row * tile.chunks * 2
                                                   : in.int8.sums + row * tile.chunks;
                tile.out = args.out + row * args.out_stride + (first + b) * kBlockRows;
                tile.out_stride = args.out_stride;
                multiply_rows(tile);
            }
        }
    }
}

bool is_quantized(const WeightFormat& format) {
    return format.bits != 16;
}

size_t few_scratch_bytes(const PackedWeights& weights, size_t) {
    return block_scratch(weights, false);
}

size_t many_scratch_bytes(const PackedWeights& weights, size_t) {
    return panels(weights) * block_scratch(weights, true);
}

}  // namespace
}  // namespace ovfast::kernels
