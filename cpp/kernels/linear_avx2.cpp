// AVX2: integer kernels with vpmaddubsw, and the exact one in f32.

#include <immintrin.h>

namespace ovfast::kernels {
namespace {

// vpmaddubsw adds two products of unsigned and signed bytes in 16 bits, and saturates:
//   4 bits: 2 * 15 * 127 = 3,810, so the eight quads of a chunk (30,480) fit into 16 bits;
//   5, 6 bits: 2 * 63 * 127 = 16,002: two quads fit;
//   8 bits: 2 * 255 * 127 = 64,770 do not fit. Codes are taken less 128 then: |code - 128| as the
//     unsigned side, activations with its sign as the signed one: 2 * 128 * 127 = 32,512.
struct Dot {
    static constexpr int kTileRows = 4;  // 8 sums, 4 registers of codes, ones, products

    static constexpr bool centred(int bits) { return bits == 8; }
    static constexpr int panel_bits(int bits) { return bits == 5 ? 6 : bits; }

    template <int Bits>
    static __m256i add(__m256i sums, __m256i w0, __m256i a0, __m256i w1, __m256i a1) {
        const __m256i ones = _mm256_set1_epi16(1);
        if (Bits == 8) {
            const __m256i first =
                _mm256_maddubs_epi16(_mm256_abs_epi8(w0), _mm256_sign_epi8(a0, w0));
            const __m256i second =
                _mm256_maddubs_epi16(_mm256_abs_epi8(w1), _mm256_sign_epi8(a1, w1));
            return _mm256_add_epi32(sums, _mm256_add_epi32(_mm256_madd_epi16(first, ones),
                                                           _mm256_madd_epi16(second, ones)));
        }
        const __m256i both =
            _mm256_add_epi16(_mm256_maddubs_epi16(w0, a0), _mm256_maddubs_epi16(w1, a1));
        if (Bits == 4) return _mm256_add_epi16(sums, both);
        return _mm256_add_epi32(sums, _mm256_madd_epi16(both, ones));
    }

    template <int Bits>
    static __m256i total(__m256i sums) {
        return Bits == 4 ? _mm256_madd_epi16(sums, _mm256_set1_epi16(1)) : sums;
    }
};

}  // namespace
}  // namespace ovfast::kernels

#include "kernels/linear_ymm_inl.hpp"

namespace ovfast::kernels {
namespace {

// ---- Exact: weights widened to f32 once per row block, in pieces that stay in the first cache
// ----

constexpr size_t kPieceChunks = 8;  // 256 columns of 16 rows: 16 KB
constexpr int kExactRows = 6;       // 12 sums, 2 registers of weights, an activation

using Widen = void (*)(const PackedWeights& weights, size_t block, size_t first_chunk,
                       size_t last_chunk, float* values);

inline __m256i byte_of_lanes(__m256i quad, int byte) {
    return _mm256_and_si256(_mm256_srli_epi32(quad, 8 * byte), _mm256_set1_epi32(0xFF));
}

// Values [columns][16 rows].
template <int Bits>
void widen_codes(const PackedWeights& weights, size_t block, size_t first_chunk, size_t last_chunk,
                 float* values) {
    const ScaleReader reader = scale_reader(weights, block);
    const bool symmetric = is_symmetric(weights);
    const __m256 zero = _mm256_set1_ps(-static_cast<float>(1 << (Bits - 1)));
    for (size_t c = first_chunk; c < last_chunk; ++c) {
        const std::byte* chunk = weights.codes(block) + c * Packed<Bits>::kChunkBytes;
        for (int half = 0; half < 2; ++half) {
            __m256 scale = _mm256_setzero_ps();
            __m256 offset = scale;
            for (int p = 0; p < 4; ++p) {
                if (p % 2 == 0) {
                    const size_t group = (c * 32 + 8 * static_cast<size_t>(p)) / weights.group();
                    const size_t at = 16 * group + 8 * static_cast<size_t>(half);
                    scale = reader.scale(at);
                    offset = symmetric ? _mm256_mul_ps(zero, scale) : reader.offset(at, scale, 0);
                }
                Pair pair = Packed<Bits>::pair(chunk, p, half);
                if (Dot::centred(Bits)) {  // exact weights begin from the codes as they are
                    const __m256i middle = _mm256_set1_epi8(static_cast<char>(0x80));
                    pair.even = _mm256_xor_si256(pair.even, middle);
                    pair.odd = _mm256_xor_si256(pair.odd, middle);
                }
                float* to = values + (c - first_chunk) * 512 + p * 128 + half * 8;
                for (int byte = 0; byte < 4; ++byte) {
                    const __m256 even = _mm256_cvtepi32_ps(byte_of_lanes(pair.even, byte));
                    const __m256 odd = _mm256_cvtepi32_ps(byte_of_lanes(pair.odd, byte));
                    _mm256_storeu_ps(to + 16 * byte, _mm256_fmadd_ps(scale, even, offset));
                    _mm256_storeu_ps(to + 64 + 16 * byte, _mm256_fmadd_ps(scale, odd, offset));
                }
            }
        }
    }
}

template <FloatKind Kind>
void widen_floats(const PackedWeights& weights, size_t block, size_t first_chunk, size_t last_chunk,
                  float* values) {
    const std::byte* from = weights.codes(block) + first_chunk * weights.chunk_bytes();
    // Each 64 bytes are columns 2p and 2p + 1 of 16 rows.
    for (size_t i = 0; i < (last_chunk - first_chunk) * 16; ++i, from += 64, values += 32) {
        for (int half = 0; half < 2; ++half) {
            const std::byte* at = from + 32 * half;
            __m256 even;
            __m256 odd;
            if (Kind == FloatKind::BF16) {
                const __m256i both = load(at);
                even = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
                odd = _mm256_castsi256_ps(
                    _mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xFFFF0000U))));
            } else {
                const __m256 low = widen_f16(at);        // rows 0..3, two columns each
                const __m256 high = widen_f16(at + 16);  // rows 4..7
                // Within 128 bits: rows 0 1 4 5 | 2 3 6 7.
                const auto in_order = [](__m256 x) {
                    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xD8));
                };
                even = in_order(_mm256_shuffle_ps(low, high, 0x88));
                odd = in_order(_mm256_shuffle_ps(low, high, 0xDD));
            }
            _mm256_storeu_ps(values + 8 * half, even);
            _mm256_storeu_ps(values + 16 + 8 * half, odd);
        }
    }
}

Widen widen_for(const WeightFormat& format) {
    switch (format.bits) {
        case 4:
            return widen_codes<4>;
        case 5:
            return widen_codes<5>;
        case 6:
            return widen_codes<6>;
        case 8:
            return widen_codes<8>;
        default:
            return format.floats == FloatKind::F16 ? widen_floats<FloatKind::F16>
                                                   : widen_floats<FloatKind::BF16>;
    }
}

// totals[r][16] += activations[r] * values over `columns`.
template <int Rows>
void multiply_exact(const float* values, size_t columns, const float* activations, size_t stride,
                    float* totals) {
    __m256 sums[Rows][2];
    for (int r = 0; r < Rows; ++r) {
        sums[r][0] = _mm256_loadu_ps(totals + 16 * r);
        sums[r][1] = _mm256_loadu_ps(totals + 16 * r + 8);
    }
    for (size_t k = 0; k < columns; ++k) {
        const __m256 low = _mm256_loadu_ps(values + 16 * k);
        const __m256 high = _mm256_loadu_ps(values + 16 * k + 8);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
            const __m256 activation = _mm256_broadcast_ss(activations + r * stride + k);
            sums[r][0] = _mm256_fmadd_ps(activation, low, sums[r][0]);
            sums[r][1] = _mm256_fmadd_ps(activation, high, sums[r][1]);
        }
    }
    for (int r = 0; r < Rows; ++r) {
        _mm256_storeu_ps(totals + 16 * r, sums[r][0]);
        _mm256_storeu_ps(totals + 16 * r + 8, sums[r][1]);
    }
}

// For a tile of rows the piece of weights is one chunk, which never leaves the nearest cache.
size_t piece_chunks(size_t rows) {
    return rows <= kExactRows ? 1 : kPieceChunks;
}

void run_exact(const LinearArgs& args) {
    static constexpr decltype(&multiply_exact<1>) table[kExactRows] = {
        multiply_exact<1>, multiply_exact<2>, multiply_exact<3>,
        multiply_exact<4>, multiply_exact<5>, multiply_exact<6>};
    const PackedWeights& weights = *args.weights;
    const Activations& in = *args.activations;
    const Widen widen = widen_for(weights.format());
    const size_t rows = args.last_row - args.first_row;
    const size_t chunks = weights.padded() / kChunkColumns;
    const size_t piece = piece_chunks(rows);
    auto* values = reinterpret_cast<float*>(args.scratch);
    float* totals = values + piece * kChunkColumns * kBlockRows;

    for (size_t block = args.first_block; block < args.last_block; ++block) {
        __builtin_memset(totals, 0, rows * kBlockRows * sizeof(float));
        for (size_t c = 0; c < chunks; c += piece) {
            const size_t last = c + piece < chunks ? c + piece : chunks;
            widen(weights, block, c, last, values);
            for (size_t m = 0; m < rows;) {
                const size_t count = rows - m < kExactRows ? rows - m : kExactRows;
                table[count - 1](values, (last - c) * kChunkColumns,
                                 in.f32 + (args.first_row + m) * in.padded + c * kChunkColumns,
                                 in.padded, totals + m * kBlockRows);
                m += count;
            }
        }
        const size_t left = weights.rows() - block * kBlockRows;
        const size_t lanes = left < kBlockRows ? left : kBlockRows;
        for (size_t m = 0; m < rows; ++m) {
            __builtin_memcpy(args.out + (args.first_row + m) * args.out_stride + block * kBlockRows,
                             totals + m * kBlockRows, lanes * sizeof(float));
        }
    }
}

size_t exact_scratch_bytes(const PackedWeights&, size_t rows) {
    return (piece_chunks(rows) * kChunkColumns + rows) * kBlockRows * sizeof(float);
}

bool is_anything(const WeightFormat&) {
    return true;
}

constexpr LinearKernel kFew{
    "avx2_int8_few_rows", Isa::Avx2, ActivationKind::Int8, 1, Dot::kTileRows, 60, is_quantized,
    few_scratch_bytes,    run<false>};
constexpr LinearKernel kMany{"avx2_int8_many_rows", Isa::Avx2,          ActivationKind::Int8,
                             Dot::kTileRows + 1,    SIZE_MAX,           60,
                             is_quantized,          many_scratch_bytes, run<true>};
constexpr LinearKernel kExact{"avx2_exact", Isa::Avx2,   ActivationKind::F32, 1,        SIZE_MAX,
                              50,           is_anything, exact_scratch_bytes, run_exact};

}  // namespace

const LinearKernel* const* avx2_linear_kernels() {
    static const LinearKernel* const kernels[] = {&kFew, &kMany, &kExact, nullptr};
    return kernels;
}

}  // namespace ovfast::kernels
