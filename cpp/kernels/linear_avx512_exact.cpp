// Kernel for f32 activations and exact weights: for checks, for models whose activations must not
// be quantized, and for weights that are 16-bit floats.
//
// Quantized weights: within a group the codes themselves are multiplied (they are exact in f32),
// and scale and offset once a group: sum(w x) = scale * sum(code x) + offset * sum(x).

#include "kernels/avx512_inl.hpp"
#include "kernels/registry.hpp"

namespace ovfast::kernels {
namespace {

constexpr size_t kTileRows = 8;

// 32 columns of 16 rows in f32, column by column.
using Columns = float[kChunkColumns * 16];

template <int Bits>
void widen_chunk(const std::byte* chunk, float* columns) {
    __m512i quads[8];
    Quads<Bits>::unpack(chunk, quads);
    const __m512i low = _mm512_set1_epi32(0xFF);
    for (int j = 0; j < 8; ++j) {
        float* to = columns + j * 64;
        const __m512i quad = quads[j];
        _mm512_storeu_ps(to, _mm512_cvtepi32_ps(_mm512_and_si512(quad, low)));
        _mm512_storeu_ps(to + 16,
                         _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(quad, 8), low)));
        _mm512_storeu_ps(to + 32,
                         _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(quad, 16), low)));
        _mm512_storeu_ps(to + 48, _mm512_cvtepi32_ps(_mm512_srli_epi32(quad, 24)));
    }
}

void widen_bf16(const std::byte* chunk, float* columns) {
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xFFFF0000U));
    for (int p = 0; p < 16; ++p) {
        const __m512i pair = load(chunk + 64 * p);
        _mm512_storeu_si512(columns + 32 * p, _mm512_slli_epi32(pair, 16));
        _mm512_storeu_si512(columns + 32 * p + 16, _mm512_and_si512(pair, high));
    }
}

void widen_f16_pairs(const std::byte* chunk, float* columns) {
    for (int p = 0; p < 16; ++p) {
        const __m512i pair = load(chunk + 64 * p);
        _mm512_storeu_ps(columns + 32 * p, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(pair)));
        _mm512_storeu_ps(columns + 32 * p + 16,
                         _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(pair, 16))));
    }
}

using Widen = void (*)(const std::byte*, float*);

Widen widen_for(const WeightFormat& format) {
    switch (format.bits) {
        case 4:
            return widen_chunk<4>;
        case 5:
            return widen_chunk<5>;
        case 6:
            return widen_chunk<6>;
        case 8:
            return widen_chunk<8>;
        default:
            return format.floats == FloatKind::BF16 ? widen_bf16 : widen_f16_pairs;
    }
}

// Columns [first, last) of a chunk for a tile of rows.
template <int Rows>
inline void multiply_columns(const float* columns, const float* in, size_t stride, int first,
                             int last, __m512 (&sums)[Rows], float (&totals)[Rows]) {
    for (int k = first; k < last; ++k) {
        const __m512 column = _mm512_loadu_ps(columns + 16 * k);
#pragma GCC unroll 8
        for (int m = 0; m < Rows; ++m) {
            const float x = in[m * stride + k];
            sums[m] = _mm512_fmadd_ps(column, _mm512_set1_ps(x), sums[m]);
            totals[m] += x;
        }
    }
}

template <int Rows>
void multiply_block(const PackedWeights& weights, size_t block, Widen widen, const float* in,
                    size_t stride, float* out, size_t out_stride) {
    alignas(64) Columns columns;
    const size_t chunks = weights.padded() / kChunkColumns;
    const bool floats = weights.format().bits == 16;
    const size_t group = floats ? weights.padded() : weights.group();
    const BlockScales block_scales(weights, block);
    __m512 results[Rows];
    __m512 sums[Rows];
    float totals[Rows];
    for (int m = 0; m < Rows; ++m) {
        results[m] = _mm512_setzero_ps();
        sums[m] = _mm512_setzero_ps();
        totals[m] = 0.0F;
    }
    const auto end_group = [&](size_t index) {
        if (floats) return;
        const __m512 scale = block_scales.scale(index);
        const __m512 offset = block_scales.offset(index, scale);
        for (int m = 0; m < Rows; ++m) {
            results[m] = _mm512_fmadd_ps(scale, sums[m], results[m]);
            results[m] = _mm512_fmadd_ps(offset, _mm512_set1_ps(totals[m]), results[m]);
            sums[m] = _mm512_setzero_ps();
            totals[m] = 0.0F;
        }
    };
    const std::byte* chunk = weights.codes(block);
    size_t done = 0;
    for (size_t c = 0; c < chunks; ++c, chunk += weights.chunk_bytes()) {
        widen(chunk, columns);
        const float* x = in + c * kChunkColumns;
        if (group < kChunkColumns) {
            multiply_columns<Rows>(columns, x, stride, 0, 16, sums, totals);
            end_group(done++);
            if (done == weights.groups()) break;
            multiply_columns<Rows>(columns, x, stride, 16, 32, sums, totals);
            end_group(done++);
            continue;
        }
        multiply_columns<Rows>(columns, x, stride, 0, 32, sums, totals);
        if ((c + 1) * kChunkColumns % group == 0 || c + 1 == chunks) end_group(done++);
    }
    const __mmask16 mask = rows_of_block(weights, block);
    for (int m = 0; m < Rows; ++m) {
        _mm512_mask_storeu_ps(out + m * out_stride, mask, floats ? sums[m] : results[m]);
    }
}

using MultiplyBlock = void (*)(const PackedWeights&, size_t, Widen, const float*, size_t, float*,
                               size_t);

void run(const LinearArgs& args) {
    static constexpr MultiplyBlock table[kTileRows] = {
        multiply_block<1>, multiply_block<2>, multiply_block<3>, multiply_block<4>,
        multiply_block<5>, multiply_block<6>, multiply_block<7>, multiply_block<8>};
    const PackedWeights& weights = *args.weights;
    const Activations& in = *args.activations;
    const Widen widen = widen_for(weights.format());
    for (size_t block = args.first_block; block < args.last_block; ++block) {
        for (size_t m = args.first_row; m < args.last_row;) {
            const size_t left = args.last_row - m;
            const size_t count = left < kTileRows ? left : kTileRows;
            table[count - 1](weights, block, widen, in.f32 + m * in.padded, in.padded,
                             args.out + m * args.out_stride + block * kBlockRows, args.out_stride);
            m += count;
        }
    }
}

bool supports(const WeightFormat&) {
    return true;
}

size_t no_scratch(const PackedWeights&, size_t) {
    return 0;
}

}  // namespace

extern const LinearKernel avx512_exact;
const LinearKernel avx512_exact{"avx512_f32", Isa::Avx512Vnni, ActivationKind::F32, 1,  SIZE_MAX,
                                100,          supports,        no_scratch,          run};

}  // namespace ovfast::kernels
