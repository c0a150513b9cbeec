// Integer kernel for many rows of activations (prompts) on processors without AMX: the codes of two
// row blocks are unpacked once into scratch that stays in the L1 or L2 cache, and tiles of six rows
// times 32 output columns run over them. Twelve independent chains hide vpdpbusd's latency.

#include <cmath>

#include "kernels/avx512_inl.hpp"
#include "kernels/registry.hpp"

namespace ovfast::kernels {
namespace {

constexpr int kTileRows = 6;
constexpr int kBlocks = 2;  // 32 output columns
constexpr size_t kChunkCodes = 8 * 64;

// Scratch: codes of both blocks, chunk by chunk [chunks][2][8][64]; scales and offsets
// [groups][2][16]; and what makes up for the zero point of symmetric codes, for each activation row
// and half chunk: -zero * (sum of its codes).
struct Panel {
    std::byte* codes;
    float* scales;
    float* offsets;
    int32_t* start;  // [rows][2 * chunks]
    size_t chunks;
    size_t groups;
};

size_t aligned(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

Panel lay_out(const PackedWeights& weights, std::byte* scratch) {
    Panel panel{};
    panel.chunks = weights.padded() / kChunkColumns;
    panel.groups = weights.groups();
    panel.codes = scratch;
    std::byte* at = scratch + panel.chunks * kBlocks * kChunkCodes;
    panel.scales = reinterpret_cast<float*>(at);
    at += panel.groups * kBlocks * 64;
    panel.offsets = reinterpret_cast<float*>(at);
    at += panel.groups * kBlocks * 64;
    panel.start = reinterpret_cast<int32_t*>(at);
    return panel;
}

size_t scratch_bytes(const PackedWeights& weights, size_t rows) {
    const size_t chunks = weights.padded() / kChunkColumns;
    return chunks * kBlocks * kChunkCodes + weights.groups() * kBlocks * 128 +
           aligned(rows * chunks * 2 * sizeof(int32_t));
}

template <int Bits>
void unpack_codes(const PackedWeights& weights, size_t block, size_t position, const Panel& panel) {
    const std::byte* chunk = weights.codes(block);
    for (size_t c = 0; c < panel.chunks; ++c, chunk += size_t{64} * Bits) {
        __m512i quads[8];
        Quads<Bits>::unpack(chunk, quads);
        std::byte* to = panel.codes + (c * kBlocks + position) * kChunkCodes;
        for (int j = 0; j < 8; ++j) _mm512_storeu_si512(to + 64 * j, quads[j]);
    }
}

void unpack_block(const PackedWeights& weights, size_t block, size_t position, const Panel& panel) {
    switch (weights.format().bits) {
        case 4:
            unpack_codes<4>(weights, block, position, panel);
            break;
        case 5:
            unpack_codes<5>(weights, block, position, panel);
            break;
        case 6:
            unpack_codes<6>(weights, block, position, panel);
            break;
        default:
            unpack_codes<8>(weights, block, position, panel);
    }
    const BlockScales block_scales(weights, block);
    for (size_t g = 0; g < panel.groups; ++g) {
        const __m512 scale = block_scales.scale(g);
        _mm512_storeu_ps(panel.scales + (g * kBlocks + position) * 16, scale);
        _mm512_storeu_ps(panel.offsets + (g * kBlocks + position) * 16,
                         block_scales.offset(g, scale));
    }
}

// The integer sums of codes, out of their sums in floating point: those are a scale times an
// integer below 2^12, so the division rounds to it. NaN scales give anything; the row becomes NaN
// anyway.
void fill_start(const Activations& in, size_t first_row, size_t rows, int zero,
                const Panel& panel) {
    const __m512 minus_zero = _mm512_set1_ps(-static_cast<float>(zero));
    for (size_t m = 0; m < rows; ++m) {
        const float* scales = in.int8.scales + (first_row + m) * panel.chunks;
        const float* sums = in.int8.half_sums + (first_row + m) * panel.chunks * 2;
        int32_t* start = panel.start + m * panel.chunks * 2;
        const size_t halves = panel.chunks * 2;
        const __m512i twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
        for (size_t h = 0; h < halves; h += 16) {
            const size_t left = halves - h;
            const __mmask16 mask =
                left >= 16 ? __mmask16(0xFFFF) : static_cast<__mmask16>((1U << left) - 1);
            const __mmask16 half_mask =
                static_cast<__mmask16>(left >= 16 ? 0xFF : (1U << (left / 2)) - 1);
            const __m512 scale =
                _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(half_mask, scales + h / 2));
            const __m512 sum = _mm512_maskz_loadu_ps(mask, sums + h);
            const __mmask16 some = _mm512_cmp_ps_mask(scale, _mm512_setzero_ps(), _CMP_GT_OQ);
            const __m512 count = _mm512_roundscale_ps(_mm512_maskz_div_ps(some, sum, scale),
                                                      _MM_FROUND_TO_NEAREST_INT);
            _mm512_mask_storeu_epi32(start + h, mask,
                                     _mm512_cvtps_epi32(_mm512_mul_ps(count, minus_zero)));
        }
    }
}

struct Tile {
    const int8_t* codes;
    const float* scales;
    const float* half_sums;
    size_t stride;
    const int32_t* start;
};

inline __m512i broadcast(const int8_t* codes) {
    int32_t four;
    __builtin_memcpy(&four, codes, 4);
    return _mm512_set1_epi32(four);
}

// Quads [First, First + Count) of a chunk: adds to `totals` what the group gives.
template <int Rows, bool Symmetric, int First, int Count>
inline void multiply_group(const Panel& panel, const Tile& tile, size_t c, size_t group,
                           __m512 (&totals)[Rows][kBlocks]) {
    const std::byte* chunk = panel.codes + c * kBlocks * kChunkCodes;
    const int8_t* codes = tile.codes + c * kChunkColumns + First * 4;
    constexpr bool half = Count == 4;
    constexpr size_t which = First / 4;
    __m512i dots[Rows][kBlocks];
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) {
        __m512i start = _mm512_setzero_si512();
        if constexpr (Symmetric) {
            const int32_t* at = tile.start + (m * panel.chunks + c) * 2;
            start = _mm512_set1_epi32(half ? at[which] : at[0] + at[1]);
        }
        dots[m][0] = start;
        dots[m][1] = start;
    }
#pragma GCC unroll 8
    for (int j = 0; j < Count; ++j) {
        const __m512i left = load(chunk + 64 * (First + j));
        const __m512i right = load(chunk + kChunkCodes + 64 * (First + j));
#pragma GCC unroll 8
        for (int m = 0; m < Rows; ++m) {
            const __m512i quad = broadcast(codes + m * tile.stride + 4 * j);
            dots[m][0] = _mm512_dpbusd_epi32(dots[m][0], left, quad);
            dots[m][1] = _mm512_dpbusd_epi32(dots[m][1], right, quad);
        }
    }
    const float* scales = panel.scales + group * kBlocks * 16;
    const float* offsets = panel.offsets + group * kBlocks * 16;
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) {
        const __m512 activation_scale = _mm512_set1_ps(tile.scales[m * panel.chunks + c]);
#pragma GCC unroll 2
        for (int b = 0; b < kBlocks; ++b) {
            const __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(dots[m][b]), activation_scale);
            totals[m][b] = _mm512_fmadd_ps(value, _mm512_loadu_ps(scales + 16 * b), totals[m][b]);
            if constexpr (!Symmetric) {
                const float* sums = tile.half_sums + (m * panel.chunks + c) * 2;
                const float sum = half ? sums[which] : sums[0] + sums[1];
                totals[m][b] = _mm512_fmadd_ps(_mm512_loadu_ps(offsets + 16 * b),
                                               _mm512_set1_ps(sum), totals[m][b]);
            }
        }
    }
}

template <int Rows, bool Symmetric>
void multiply_tile(const Panel& panel, const Tile& tile, size_t group_columns, float* out,
                   size_t out_stride, __mmask16 left_mask, __mmask16 right_mask) {
    __m512 totals[Rows][kBlocks];
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) {
        totals[m][0] = _mm512_setzero_ps();
        totals[m][1] = _mm512_setzero_ps();
    }
    if (group_columns >= kChunkColumns) {
        const size_t group_chunks = group_columns / kChunkColumns;
        size_t c = 0;
        for (size_t group = 0; c < panel.chunks; ++group) {
            const size_t end = c + group_chunks < panel.chunks ? c + group_chunks : panel.chunks;
            for (; c < end; ++c) {
                multiply_group<Rows, Symmetric, 0, 8>(panel, tile, c, group, totals);
            }
        }
    } else {
        for (size_t c = 0; c < panel.chunks; ++c) {
            multiply_group<Rows, Symmetric, 0, 4>(panel, tile, c, 2 * c, totals);
            if (2 * c + 1 < panel.groups) {
                multiply_group<Rows, Symmetric, 4, 4>(panel, tile, c, 2 * c + 1, totals);
            }
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < Rows; ++m) {
        _mm512_mask_storeu_ps(out + m * out_stride, left_mask, totals[m][0]);
        if (right_mask != 0) {
            _mm512_mask_storeu_ps(out + m * out_stride + 16, right_mask, totals[m][1]);
        }
    }
}

using MultiplyTile = void (*)(const Panel&, const Tile&, size_t, float*, size_t, __mmask16,
                              __mmask16);

template <bool Symmetric>
MultiplyTile for_rows(size_t rows) {
    static constexpr MultiplyTile table[kTileRows] = {
        multiply_tile<1, Symmetric>, multiply_tile<2, Symmetric>, multiply_tile<3, Symmetric>,
        multiply_tile<4, Symmetric>, multiply_tile<5, Symmetric>, multiply_tile<6, Symmetric>};
    return table[rows - 1];
}

void run(const LinearArgs& args) {
    const PackedWeights& weights = *args.weights;
    const Activations& in = *args.activations;
    const Panel panel = lay_out(weights, args.scratch);
    const size_t rows = args.last_row - args.first_row;
    const bool symmetric = weights.format().offsets == OffsetKind::Symmetric;
    if (symmetric) {
        fill_start(in, args.first_row, rows, 1 << (weights.format().bits - 1), panel);
    }
    for (size_t block = args.first_block; block < args.last_block; block += kBlocks) {
        const bool two = block + 1 < args.last_block;
        unpack_block(weights, block, 0, panel);
        // An odd last block is multiplied twice rather than by code of its own.
        unpack_block(weights, two ? block + 1 : block, 1, panel);
        const __mmask16 left_mask = rows_of_block(weights, block);
        const __mmask16 right_mask = two ? rows_of_block(weights, block + 1) : __mmask16(0);
        for (size_t m = 0; m < rows;) {
            const size_t count = rows - m < kTileRows ? rows - m : kTileRows;
            const size_t row = args.first_row + m;
            const Tile tile{in.int8.codes + row * in.padded, in.int8.scales + row * panel.chunks,
                            in.int8.half_sums + row * panel.chunks * 2, in.padded,
                            panel.start + m * panel.chunks * 2};
            const MultiplyTile multiply =
                symmetric ? for_rows<true>(count) : for_rows<false>(count);
            multiply(panel, tile, weights.group(),
                     args.out + row * args.out_stride + block * kBlockRows, args.out_stride,
                     left_mask, right_mask);
            m += count;
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
