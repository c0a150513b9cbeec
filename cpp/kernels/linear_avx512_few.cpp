// Integer kernel for few rows of activations: weights are read once, front to back, and unpacked in
// registers. One row is bound by memory, eight by vpdpbusd.

#include "kernels/avx512_inl.hpp"
#include "kernels/registry.hpp"

namespace ovfast::kernels {
namespace {

// As many rows as find room in registers beside the eight quads of a chunk.
constexpr size_t kTileRows = 8;
// Far enough for the next page: hardware prefetchers stop at its border.
constexpr size_t kPrefetchBytes = 2048;

struct Tile {
    const int8_t* codes;
    const float* scales;
    const float* sums;
    const float* half_sums;
    size_t stride;  // columns, padded
    size_t chunks;
};

inline __m512i dot4(const __m512i* quads, const int8_t* codes) {
    // Two chains: one would wait five cycles for each vpdpbusd.
    const auto quad = [&](int j) {
        int32_t four;
        __builtin_memcpy(&four, codes + 4 * j, 4);
        return _mm512_set1_epi32(four);
    };
    __m512i even = _mm512_dpbusd_epi32(_mm512_setzero_si512(), quads[0], quad(0));
    __m512i odd = _mm512_dpbusd_epi32(_mm512_setzero_si512(), quads[1], quad(1));
    even = _mm512_dpbusd_epi32(even, quads[2], quad(2));
    odd = _mm512_dpbusd_epi32(odd, quads[3], quad(3));
    return _mm512_add_epi32(even, odd);
}

inline __m512i dot8(const __m512i* quads, const int8_t* codes) {
    const auto quad = [&](int j) {
        int32_t four;
        __builtin_memcpy(&four, codes + 4 * j, 4);
        return _mm512_set1_epi32(four);
    };
    __m512i even = _mm512_dpbusd_epi32(_mm512_setzero_si512(), quads[0], quad(0));
    __m512i odd = _mm512_dpbusd_epi32(_mm512_setzero_si512(), quads[1], quad(1));
    for (int j = 2; j < 8; j += 2) {
        even = _mm512_dpbusd_epi32(even, quads[j], quad(j));
        odd = _mm512_dpbusd_epi32(odd, quads[j + 1], quad(j + 1));
    }
    return _mm512_add_epi32(even, odd);
}

inline __m512 add_group(__m512 total, __m512i dot, float activation_scale, float sum, __m512 scale,
                        __m512 offset) {
    const __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(dot), _mm512_set1_ps(activation_scale));
    total = _mm512_fmadd_ps(scale, value, total);
    return _mm512_fmadd_ps(offset, _mm512_set1_ps(sum), total);
}

template <int Bits, int Rows>
void multiply_block(const PackedWeights& weights, size_t block, const Tile& tile, float* out,
                    size_t out_stride) {
    constexpr size_t chunk_bytes = size_t{64} * Bits;
    const BlockScales block_scales(weights, block);
    const std::byte* chunk = weights.codes(block);
    const size_t group_chunks = weights.group() / kChunkColumns;  // 0: groups of 16
    __m512 totals[Rows];
    for (__m512& total : totals) total = _mm512_setzero_ps();
    __m512 scale = _mm512_setzero_ps();
    __m512 offset = _mm512_setzero_ps();
    size_t group = 0;
    size_t left_in_group = 0;
    for (size_t c = 0; c < tile.chunks; ++c, chunk += chunk_bytes) {
        for (size_t line = 0; line < chunk_bytes; line += 64) {
            _mm_prefetch(reinterpret_cast<const char*>(chunk + kPrefetchBytes + line), _MM_HINT_T0);
        }
        __m512i quads[8];
        Quads<Bits>::unpack(chunk, quads);
        const int8_t* codes = tile.codes + c * kChunkColumns;
        if (group_chunks == 0) {
            const __m512 scale0 = block_scales.scale(2 * c);
            const __m512 offset0 = block_scales.offset(2 * c, scale0);
            // Columns may end in the middle of the last chunk: then there is no second group.
            const bool second = 2 * c + 1 < weights.groups();
            const __m512 scale1 = second ? block_scales.scale(2 * c + 1) : _mm512_setzero_ps();
            const __m512 offset1 =
                second ? block_scales.offset(2 * c + 1, scale1) : _mm512_setzero_ps();
            for (int m = 0; m < Rows; ++m) {
                const int8_t* row = codes + m * tile.stride;
                const float activation_scale = tile.scales[m * tile.chunks + c];
                const float* sums = tile.half_sums + (m * tile.chunks + c) * 2;
                totals[m] = add_group(totals[m], dot4(quads, row), activation_scale, sums[0],
                                      scale0, offset0);
                totals[m] = add_group(totals[m], dot4(quads + 4, row + 16), activation_scale,
                                      sums[1], scale1, offset1);
            }
            continue;
        }
        if (left_in_group == 0) {
            scale = block_scales.scale(group);
            offset = block_scales.offset(group, scale);
            ++group;
            left_in_group = group_chunks;
        }
        --left_in_group;
        for (int m = 0; m < Rows; ++m) {
            totals[m] = add_group(totals[m], dot8(quads, codes + m * tile.stride),
                                  tile.scales[m * tile.chunks + c], tile.sums[m * tile.chunks + c],
                                  scale, offset);
        }
    }
    const __mmask16 mask = rows_of_block(weights, block);
    for (int m = 0; m < Rows; ++m) {
        _mm512_mask_storeu_ps(out + m * out_stride, mask, totals[m]);
    }
}

using MultiplyBlock = void (*)(const PackedWeights&, size_t, const Tile&, float*, size_t);

template <int Bits>
MultiplyBlock for_rows(size_t rows) {
    static constexpr MultiplyBlock table[kTileRows] = {
        multiply_block<Bits, 1>, multiply_block<Bits, 2>, multiply_block<Bits, 3>,
        multiply_block<Bits, 4>, multiply_block<Bits, 5>, multiply_block<Bits, 6>,
        multiply_block<Bits, 7>, multiply_block<Bits, 8>};
    return table[rows - 1];
}

MultiplyBlock for_bits_and_rows(int bits, size_t rows) {
    switch (bits) {
        case 4:
            return for_rows<4>(rows);
        case 5:
            return for_rows<5>(rows);
        case 6:
            return for_rows<6>(rows);
        default:
            return for_rows<8>(rows);
    }
}

void run(const LinearArgs& args) {
    const PackedWeights& weights = *args.weights;
    const Activations& in = *args.activations;
    const size_t chunks = in.padded / kChunkColumns;
    const size_t rows = args.last_row - args.first_row;
    // Equal tiles: 9 rows are 5 + 4, not 8 + 1.
    const size_t tiles = (rows + kTileRows - 1) / kTileRows;
    for (size_t block = args.first_block; block < args.last_block; ++block) {
        for (size_t t = 0; t < tiles; ++t) {
            const size_t first = args.first_row + rows * t / tiles;
            const size_t last = args.first_row + rows * (t + 1) / tiles;
            const Tile tile{in.int8.codes + first * in.padded,
                            in.int8.scales + first * chunks,
                            in.int8.sums + first * chunks,
                            in.int8.half_sums + first * chunks * 2,
                            in.padded,
                            chunks};
            for_bits_and_rows(weights.format().bits, last - first)(
                weights, block, tile, args.out + first * args.out_stride + block * kBlockRows,
                args.out_stride);
        }
    }
}

bool supports(const WeightFormat& format) {
    return format.bits != 16;
}

size_t no_scratch(const PackedWeights&, size_t) {
    return 0;
}

constexpr LinearKernel kFewRows{"avx512_vnni_int8_few_rows",
                                Isa::Avx512Vnni,
                                ActivationKind::Int8,
                                1,
                                SIZE_MAX,
                                200,
                                supports,
                                no_scratch,
                                run};

}  // namespace

extern const LinearKernel avx512_int8_many_rows;
extern const LinearKernel avx512_exact;

const LinearKernel* const* avx512_linear_kernels() {
    static const LinearKernel* const kernels[] = {&kFewRows, &avx512_int8_many_rows, &avx512_exact,
                                                  nullptr};
    return kernels;
}

}  // namespace ovfast::kernels
