// Integer kernel for many rows of activations (prompts) on processors without AMX. Columns are
// worked through in stretches that leave the unpacked codes of a few row blocks in a near cache;
// tiles of six rows times 32 or 64 output columns run over them.
//
// Per output and span (columns with one scale of weights and one of activations) two instructions
// follow the integer sum: it begins at the bits of 1.5 * 2^23, where floats are integers, so its
// bits are those of the float 1.5 * 2^23 + sum and need no conversion, as long as |sum| < 2^22
// (128 columns of 8 bits: 4,145,280). One multiply-add then gives scale * sum, rounded once: with
// scales of 22 bits, 1.5 * 2^23 * scale is exact. Beyond 2^104 that overflows, and activations
// beyond 2^110 give NaNs.

#include "kernels/avx512_inl.hpp"
#include "kernels/registry.hpp"

namespace ovfast::kernels {
namespace {

constexpr int kTileRows = 6;
// Loads take time from 512-bit multiplications: long spans have tiles of four blocks, with 24 sums
// in registers and the totals in memory. Where totals are needed often, there are 12 of each.
constexpr size_t kBlocks = 4;
constexpr size_t kShortBlocks = 2;
constexpr size_t kLongSpan = 128;  // columns; the most that an integer sum may have, too
constexpr size_t kStretch = 1024;  // columns: the codes of two blocks fit in 32 KiB
constexpr size_t kSpans = 64;      // in a stretch, of 16 columns
constexpr size_t kMostRows = 512;
constexpr size_t kFewestRows = 96;
constexpr size_t kCacheBytes = size_t{1} << 20;  // for codes of activations
constexpr float kMagic = 0x1.8p23F;
constexpr int32_t kMagicBits = 0x4B400000;

// What a row of activations gives a span: where its integer sums begin, its scale, and the scale's
// product with -kMagic.
struct alignas(16) Span {
    int32_t start;
    float scale;
    float magic;
    float unused;
};

// The rows of a tile are neighbours, so that one pointer serves them all.
using TileSpan = Span[kTileRows];
using TileSums = float[kTileRows];

struct Scratch {
    std::byte* codes;  // [quads][blocks][64]
    float* scales;     // [spans][blocks][16]
    float* offsets;    // [groups][blocks][16]
    TileSpan* spans;   // [stretches][tiles][most spans of a stretch]
    TileSums* sums;    // the same, for the groups of weights that begin in a stretch
};

constexpr size_t kCodesBytes = kStretch / 4 * kBlocks * 64;
constexpr size_t kScalesBytes = kSpans * kShortBlocks * 64;  // four blocks have fewer spans
static_assert(kSpans * 16 == kStretch && kStretch / kLongSpan * kBlocks <= kSpans * kShortBlocks);

size_t divide_up(size_t value, size_t by) {
    return (value + by - 1) / by;
}

// Of one tile, in all stretches together.
size_t most_spans(const PackedWeights& weights) {
    const size_t stretches = divide_up(weights.padded(), kStretch);
    return (divide_up(weights.padded(), kLongSpan) + stretches) * (kLongSpan / 16);
}

Scratch lay_out(const PackedWeights& weights, size_t tiles, std::byte* at) {
    Scratch scratch{};
    scratch.codes = at;
    scratch.scales = reinterpret_cast<float*>(at += kCodesBytes);
    scratch.offsets = reinterpret_cast<float*>(at += kScalesBytes);
    scratch.spans = reinterpret_cast<TileSpan*>(at += kScalesBytes);
    scratch.sums = reinterpret_cast<TileSums*>(at + tiles * most_spans(weights) * sizeof(TileSpan));
    return scratch;
}

// Rows whose codes stay in the cache while all blocks pass by.
size_t most_rows(const PackedWeights& weights) {
    const size_t fit = kCacheBytes / weights.padded();
    return fit < kFewestRows ? kFewestRows : fit > kMostRows ? kMostRows : fit;
}

size_t most_tiles(const PackedWeights& weights, size_t rows) {
    const size_t most = most_rows(weights);
    return divide_up(rows < most ? rows : most, kTileRows);
}

size_t scratch_bytes(const PackedWeights& weights, size_t rows) {
    return kCodesBytes + 2 * kScalesBytes +
           most_tiles(weights, rows) * most_spans(weights) * (sizeof(TileSpan) + sizeof(TileSums));
}

// Columns [first, last) and how they are cut into spans and groups of weights. All of `span` and
// `group` columns, but for the last of them; groups belong to the stretch that they begin in.
struct Stretch {
    size_t first, last;
    size_t span;
    size_t spans;
    size_t first_group, groups;
};

Stretch stretch_of(const PackedWeights& weights, size_t span, size_t first, size_t last) {
    Stretch stretch{first, last, span, divide_up(last - first, span), 0, 0};
    stretch.first_group = divide_up(first, weights.group());
    const size_t end = divide_up(last, weights.group());
    stretch.groups = (end < weights.groups() ? end : weights.groups()) - stretch.first_group;
    return stretch;
}

// ---- Weights -----------------------------------------------------------------------------------

template <int Bits>
void unpack_codes(const std::byte* chunk, size_t chunks, size_t stride, std::byte* to) {
    for (size_t c = 0; c < chunks; ++c, chunk += size_t{64} * Bits) {
        __m512i quads[8];
        Quads<Bits>::unpack(chunk, quads);
        for (int j = 0; j < 8; ++j, to += stride) _mm512_store_si512(to, quads[j]);
    }
}

void unpack_block(const PackedWeights& weights, size_t block, size_t position, size_t blocks,
                  const Stretch& stretch, const Scratch& scratch) {
    const size_t chunks = (stretch.last - stretch.first) / kChunkColumns;
    const auto unpack = weights.format().bits == 4   ? unpack_codes<4>
                        : weights.format().bits == 5 ? unpack_codes<5>
                        : weights.format().bits == 6 ? unpack_codes<6>
                                                     : unpack_codes<8>;
    unpack(weights.codes(block) + stretch.first / kChunkColumns * weights.chunk_bytes(), chunks,
           blocks * 64, scratch.codes + position * 64);
    const BlockScales block_scales(weights, block);
    for (size_t s = 0; s < stretch.spans; ++s) {
        const size_t group = (stretch.first + s * stretch.span) / weights.group();
        // Behind the last group there is padding, with activations of zero.
        const __m512 scale =
            group < weights.groups() ? block_scales.scale(group) : _mm512_setzero_ps();
        _mm512_store_ps(scratch.scales + (s * blocks + position) * 16, scale);
    }
    if (weights.format().offsets == OffsetKind::Symmetric) return;
    for (size_t g = 0; g < stretch.groups; ++g) {
        const size_t group = stretch.first_group + g;
        _mm512_store_ps(scratch.offsets + (g * blocks + position) * 16,
                        block_scales.offset(group, block_scales.scale(group)));
    }
}

// ---- Activations -------------------------------------------------------------------------------

inline __mmask16 first_lanes(size_t count) {
    return count >= 16 ? __mmask16(0xFFFF) : static_cast<__mmask16>((1U << count) - 1);
}

// Sums of `count` neighbours in the first 16 / count lanes.
inline __m512i add_neighbours(__m512i x, size_t count) {
    if (count == 1) return x;
    x = _mm512_add_epi32(x, _mm512_shuffle_epi32(x, _MM_PERM_CDAB));
    if (count == 2) return _mm512_maskz_compress_epi32(0x5555, x);
    x = _mm512_add_epi32(x, _mm512_shuffle_epi32(x, _MM_PERM_BADC));
    return _mm512_maskz_compress_epi32(0x1111, x);
}

// The integer sums of codes, out of their sums in floating point: those are a scale times an
// integer below 2^12, so even an approximate division rounds to it. NaN scales give anything; the
// row becomes NaN anyway.
inline __m512i count_codes(__m512 sum, __m512 scale) {
    const __mmask16 some = _mm512_cmp_ps_mask(scale, _mm512_setzero_ps(), _CMP_GT_OQ);
    return _mm512_cvtps_epi32(_mm512_mul_ps(sum, _mm512_maskz_rcp14_ps(some, scale)));
}

void store_spans(__m512 start, __m512 scale, __m512 magic, size_t count, TileSpan* out,
                 size_t tile_row) {
    const auto pair = [](__m512 a, __m512 b, bool high) {
        return _mm512_castps_pd(high ? _mm512_unpackhi_ps(a, b) : _mm512_unpacklo_ps(a, b));
    };
    const __m512 zero = _mm512_setzero_ps();
    alignas(64) Span spans[16];  // lane i of vector j is span 4 * i + j
    for (int high = 0; high < 2; ++high) {
        const __m512d front = pair(start, scale, high != 0);
        const __m512d back = pair(magic, zero, high != 0);
        _mm512_store_pd(spans + 8 * high, _mm512_unpacklo_pd(front, back));
        _mm512_store_pd(spans + 8 * high + 4, _mm512_unpackhi_pd(front, back));
    }
    for (size_t s = 0; s < count; ++s) {
        out[s][tile_row] = spans[s % 4 * 4 + s / 4];
    }
}

void fill_row(const Int8Activations& in, size_t row_chunks, size_t row, int zero,
              const Stretch& stretch, TileSpan* out, size_t tile_row) {
    const size_t first_chunk = stretch.first / kChunkColumns;
    const float* chunk_scales = in.scales + row * row_chunks + first_chunk;
    const float* sums = in.sums + row * row_chunks + first_chunk;
    const float* half_sums = in.half_sums + (row * row_chunks + first_chunk) * 2;
    const size_t left = stretch.last / kChunkColumns - first_chunk;
    const __m512i minus_zero = _mm512_set1_epi32(-zero);
    const bool halves = stretch.span < kChunkColumns;
    const size_t together = halves ? 1 : stretch.span / kChunkColumns;
    const size_t step = 16 / together;
    const __m512i pick = halves ? _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0)
                                : _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8,
                                                                      7, 6, 5, 4, 3, 2, 1, 0),
                                                     _mm512_set1_epi32(static_cast<int>(together)));
    const size_t chunks_a_time = halves ? 8 : 16;
    size_t at = 0;
    for (size_t c = 0; c < left; c += chunks_a_time, at += step) {
        const __mmask16 mask = first_lanes(halves ? 2 * (left - c) : left - c);
        const __m512 by_chunk = _mm512_maskz_loadu_ps(
            first_lanes(left - c < chunks_a_time ? left - c : chunks_a_time), chunk_scales + c);
        const __m512 by_span = _mm512_permutexvar_ps(pick, by_chunk);
        const __m512 sum = _mm512_maskz_loadu_ps(mask, halves ? half_sums + 2 * c : sums + c);
        const __m512i counts =
            add_neighbours(count_codes(sum, halves ? by_span : by_chunk), together);
        const __m512i start =
            _mm512_add_epi32(_mm512_mullo_epi32(counts, minus_zero), _mm512_set1_epi32(kMagicBits));
        const __m512i rounded =
            _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(by_span), _mm512_set1_epi32(2)),
                             _mm512_set1_epi32(~3));
        const __m512 scale = _mm512_castsi512_ps(rounded);
        const __m512 magic = _mm512_mul_ps(scale, _mm512_set1_ps(-kMagic));
        store_spans(_mm512_castsi512_ps(start), scale, magic,
                    stretch.spans - at < step ? stretch.spans - at : step, out + at, tile_row);
    }
}

// The sums of the groups of weights that begin in the stretch.
void fill_sums(const Int8Activations& in, const PackedWeights& weights, size_t row,
               const Stretch& stretch, TileSums* out, size_t tile_row) {
    const size_t unit = weights.group() < kChunkColumns ? kChunkColumns / 2 : kChunkColumns;
    const size_t units = weights.padded() / unit;
    const size_t many = weights.group() / unit;
    const float* sums = (unit < kChunkColumns ? in.half_sums : in.sums) + row * units;
    for (size_t g = 0; g < stretch.groups; ++g) {
        const size_t first = (stretch.first_group + g) * many;
        float sum = 0.0F;
        for (size_t i = first; i < first + many; ++i) sum += sums[i];
        out[g][tile_row] = sum;
    }
}

// ---- Tiles -------------------------------------------------------------------------------------

struct Tile {
    const std::byte* codes;
    const float* scales;
    const float* offsets;  // null when symmetric
    const int8_t* activations;
    size_t stride;
    const TileSpan* spans;
    const TileSums* sums;
    size_t quads;  // of all spans
    size_t span_quads;
    size_t groups;
    float* out;
    size_t out_stride;
    bool add;  // to what is in `out`
    __mmask16 masks[kBlocks];
};

inline __m512i broadcast(const int8_t* codes) {
    int32_t four;
    __builtin_memcpy(&four, codes, 4);
    return _mm512_set1_epi32(four);
}

// Four quads: the least that a span has.
template <int Rows, int Blocks>
inline void multiply_quads(const std::byte* codes, const int8_t* activations, size_t stride,
                           __m512i (&dots)[Rows][Blocks]) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        __m512i weights[Blocks];
#pragma GCC unroll 4
        for (int b = 0; b < Blocks; ++b) weights[b] = load(codes + (j * Blocks + b) * 64);
#pragma GCC unroll 8
        for (int m = 0; m < Rows; ++m) {
            const __m512i quad = broadcast(activations + m * stride + 4 * j);
#pragma GCC unroll 4
            for (int b = 0; b < Blocks; ++b) {
                dots[m][b] = _mm512_dpbusd_epi32(dots[m][b], weights[b], quad);
            }
        }
    }
}

template <int Rows, int Blocks>
inline void add_offsets(const Tile& tile, __m512 (&totals)[Rows][Blocks]) {
    const float* offsets = tile.offsets;
    const TileSums* sums = tile.sums;
    for (size_t g = 0; g < tile.groups; ++g, offsets += Blocks * 16) {
#pragma GCC unroll 8
        for (int m = 0; m < Rows; ++m) {
            const __m512 sum = _mm512_set1_ps(sums[g][m]);
#pragma GCC unroll 4
            for (int b = 0; b < Blocks; ++b) {
                totals[m][b] = _mm512_fmadd_ps(_mm512_load_ps(offsets + 16 * b), sum, totals[m][b]);
            }
        }
    }
}

template <int Rows, int Blocks>
void multiply_tile(const Tile& tile) {
    __m512 totals[Rows][Blocks];
    float* const out = tile.out;
    const size_t out_stride = tile.out_stride;
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 4
        for (int b = 0; b < Blocks; ++b) {
            totals[m][b] = _mm512_setzero_ps();
            if (tile.add) {
                totals[m][b] = _mm512_maskz_loadu_ps(tile.masks[b], out + m * out_stride + 16 * b);
            }
        }
    }
    const std::byte* codes = tile.codes;
    const int8_t* activations = tile.activations;
    const float* scales = tile.scales;
    const TileSpan* spans = tile.spans;
    const size_t stride = tile.stride;
    const size_t span_quads = tile.span_quads;
    for (size_t left = tile.quads; left > 0; ++spans, scales += Blocks * 16) {
        __m512i dots[Rows][Blocks];
#pragma GCC unroll 8
        for (int m = 0; m < Rows; ++m) {
            const __m512i start = _mm512_set1_epi32((*spans)[m].start);
#pragma GCC unroll 4
            for (int b = 0; b < Blocks; ++b) dots[m][b] = start;
        }
        const size_t quads = span_quads < left ? span_quads : left;
        left -= quads;
        for (size_t j = 0; j < quads; j += 4) {
            multiply_quads(codes, activations, stride, dots);
            codes += 4 * Blocks * 64;
            activations += 16;
        }
#pragma GCC unroll 8
        for (int m = 0; m < Rows; ++m) {
            const __m512 scale = _mm512_set1_ps((*spans)[m].scale);
            const __m512 magic = _mm512_set1_ps((*spans)[m].magic);
#pragma GCC unroll 4
            for (int b = 0; b < Blocks; ++b) {
                const __m512 product =
                    _mm512_fmadd_ps(_mm512_castsi512_ps(dots[m][b]), scale, magic);
                totals[m][b] =
                    _mm512_fmadd_ps(_mm512_load_ps(scales + 16 * b), product, totals[m][b]);
            }
        }
    }
    if (tile.offsets != nullptr) add_offsets(tile, totals);
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) {
#pragma GCC unroll 4
        for (int b = 0; b < Blocks; ++b) {
            _mm512_mask_storeu_ps(out + m * out_stride + 16 * b, tile.masks[b], totals[m][b]);
        }
    }
}

using MultiplyTile = void (*)(const Tile&);

template <int Blocks>
MultiplyTile for_rows(size_t rows) {
    static constexpr MultiplyTile table[kTileRows] = {
        multiply_tile<1, Blocks>, multiply_tile<2, Blocks>, multiply_tile<3, Blocks>,
        multiply_tile<4, Blocks>, multiply_tile<5, Blocks>, multiply_tile<6, Blocks>};
    return table[rows - 1];
}

// How the work is cut: columns into equal stretches, in whole units of the longest spans, and rows
// into equal tiles (7 rows are 4 + 3, not 6 + 1).
struct Plan {
    const PackedWeights& weights;
    size_t span;
    size_t stretches;
    size_t first_row = 0, rows = 0, tiles = 0;

    Stretch stretch(size_t index) const {
        const size_t units = divide_up(weights.padded(), kLongSpan);
        const size_t last = units * (index + 1) / stretches * kLongSpan;
        return stretch_of(weights, span, units * index / stretches * kLongSpan,
                          last < weights.padded() ? last : weights.padded());
    }
    size_t tile_row(size_t tile) const { return rows * tile / tiles; }
    // Of a tile's spans in scratch.
    size_t spans_at(size_t stretch, size_t tile) const {
        const size_t units = divide_up(divide_up(weights.padded(), kLongSpan), stretches);
        return (stretch * tiles + tile) * units * (kLongSpan / span);
    }
};

void fill_tiles(const Int8Activations& in, const Plan& plan, const Scratch& scratch) {
    const PackedWeights& weights = plan.weights;
    const bool symmetric = weights.format().offsets == OffsetKind::Symmetric;
    const int zero = symmetric ? 1 << (weights.format().bits - 1) : 0;
    for (size_t s = 0; s < plan.stretches; ++s) {
        const Stretch stretch = plan.stretch(s);
        for (size_t t = 0; t < plan.tiles; ++t) {
            const size_t at = plan.spans_at(s, t);
            const size_t first = plan.tile_row(t);
            for (size_t m = first; m < plan.tile_row(t + 1); ++m) {
                const size_t row = plan.first_row + m;
                fill_row(in, weights.padded() / kChunkColumns, row, zero, stretch,
                         scratch.spans + at, m - first);
                if (symmetric) continue;
                fill_sums(in, weights, row, stretch, scratch.sums + at, m - first);
            }
        }
    }
}

// Some rows by all columns of a few blocks.
void multiply_blocks(const LinearArgs& args, size_t block, size_t blocks, const Plan& plan,
                     const Scratch& scratch) {
    const PackedWeights& weights = plan.weights;
    const Activations& in = *args.activations;
    const size_t left = args.last_block - block;
    for (size_t s = 0; s < plan.stretches; ++s) {
        const Stretch stretch = plan.stretch(s);
        Tile tile{};
        for (size_t b = 0; b < blocks; ++b) {
            // Blocks that are not there are multiplied as the last one is, rather than by code of
            // their own, and not stored.
            const size_t source = block + (b < left ? b : left - 1);
            unpack_block(weights, source, b, blocks, stretch, scratch);
            tile.masks[b] = b < left ? rows_of_block(weights, source) : __mmask16(0);
        }
        tile.codes = scratch.codes;
        tile.scales = scratch.scales;
        tile.offsets =
            weights.format().offsets == OffsetKind::Symmetric ? nullptr : scratch.offsets;
        tile.stride = in.padded;
        tile.quads = (stretch.last - stretch.first) / 4;
        tile.span_quads = stretch.span / 4;
        tile.groups = stretch.groups;
        tile.out_stride = args.out_stride;
        tile.add = s > 0;
        for (size_t t = 0; t < plan.tiles; ++t) {
            const size_t first = plan.tile_row(t);
            const size_t rows = plan.tile_row(t + 1) - first;
            const size_t row = plan.first_row + first;
            const size_t at = plan.spans_at(s, t);
            tile.activations = in.int8.codes + row * in.padded + stretch.first;
            tile.spans = scratch.spans + at;
            tile.sums = scratch.sums + at;
            tile.out = args.out + row * args.out_stride + block * kBlockRows;
            (blocks == kBlocks ? for_rows<kBlocks>(rows) : for_rows<kShortBlocks>(rows))(tile);
        }
    }
}

void run(const LinearArgs& args) {
    const PackedWeights& weights = *args.weights;
    const size_t rows = args.last_row - args.first_row;
    const size_t passes = divide_up(rows, most_rows(weights));
    const Scratch scratch = lay_out(weights, most_tiles(weights, rows), args.scratch);
    // The longest span that no group of weights or activations ends in.
    size_t span = args.activations->int8.group < kLongSpan ? kChunkColumns : kLongSpan;
    while (weights.group() % span != 0) span /= 2;
    const bool is_long = span == kLongSpan;
    Plan plan{weights, span, divide_up(weights.padded(), kStretch)};
    for (size_t pass = 0; pass < passes; ++pass) {
        const size_t first = rows * pass / passes;
        plan.first_row = args.first_row + first;
        plan.rows = rows * (pass + 1) / passes - first;
        plan.tiles = divide_up(plan.rows, kTileRows);
        fill_tiles(args.activations->int8, plan, scratch);
        for (size_t block = args.first_block; block < args.last_block;) {
            const bool many = is_long && args.last_block - block > kShortBlocks;
            const size_t blocks = many ? kBlocks : kShortBlocks;
            multiply_blocks(args, block, blocks, plan, scratch);
            block += blocks;
        }
    }
}

bool supports(const WeightFormat& format) {
    return format.bits != 16;
}

}  // namespace

extern const LinearKernel avx512_int8_many_rows;
const LinearKernel avx512_int8_many_rows{"avx512_vnni_int8_many_rows",
                                         Isa::Avx512Vnni,
                                         ActivationKind::Int8,
                                         13,
                                         SIZE_MAX,
                                         210,
                                         supports,
                                         scratch_bytes,
                                         run};

}  // namespace ovfast::kernels
