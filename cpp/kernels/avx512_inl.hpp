// What the AVX-512 files share. Included by them alone, inside their anonymous namespaces, so that
// no copy compiled for AVX-512 can stand in for code of another file.

#include <immintrin.h>

#include "kernels/packed_weights.hpp"

namespace ovfast::kernels {
namespace {

// The eight quads of a chunk as unsigned bytes; quad j is columns 4j .. 4j+3 of 16 rows.
template <int Bits>
struct Quads;

inline __m512i load(const std::byte* at) {
    return _mm512_loadu_si512(at);
}

// low | (high & mask)
inline __m512i or_and(__m512i low, __m512i high, __m512i mask) {
    return _mm512_ternarylogic_epi32(low, high, mask, 0xF8);
}

template <>
struct Quads<8> {
    static void unpack(const std::byte* chunk, __m512i* quads) {
        for (int j = 0; j < 8; ++j) quads[j] = load(chunk + 64 * j);
    }
};

inline void unpack_nibbles(const std::byte* chunk, __m512i* quads) {
    const __m512i nibble = _mm512_set1_epi8(0x0F);
    for (int v = 0; v < 4; ++v) {
        const __m512i both = load(chunk + 64 * v);
        quads[2 * v] = _mm512_and_si512(both, nibble);
        quads[2 * v + 1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
    }
}

template <>
struct Quads<4> {
    static void unpack(const std::byte* chunk, __m512i* quads) { unpack_nibbles(chunk, quads); }
};

template <>
struct Quads<5> {
    static void unpack(const std::byte* chunk, __m512i* quads) {
        unpack_nibbles(chunk, quads);
        const __m512i mask = _mm512_set1_epi8(0x10);
        const __m512i high = load(chunk + 256);
        quads[0] = or_and(quads[0], _mm512_slli_epi16(high, 4), mask);
        quads[1] = or_and(quads[1], _mm512_slli_epi16(high, 3), mask);
        quads[2] = or_and(quads[2], _mm512_slli_epi16(high, 2), mask);
        quads[3] = or_and(quads[3], _mm512_slli_epi16(high, 1), mask);
        quads[4] = or_and(quads[4], high, mask);
        quads[5] = or_and(quads[5], _mm512_srli_epi16(high, 1), mask);
        quads[6] = or_and(quads[6], _mm512_srli_epi16(high, 2), mask);
        quads[7] = or_and(quads[7], _mm512_srli_epi16(high, 3), mask);
    }
};

template <>
struct Quads<6> {
    static void unpack(const std::byte* chunk, __m512i* quads) {
        unpack_nibbles(chunk, quads);
        const __m512i mask = _mm512_set1_epi8(0x30);
        for (int p = 0; p < 2; ++p) {
            const __m512i high = load(chunk + 256 + 64 * p);
            __m512i* of = quads + 4 * p;
            of[0] = or_and(of[0], _mm512_slli_epi16(high, 4), mask);
            of[1] = or_and(of[1], _mm512_slli_epi16(high, 2), mask);
            of[2] = or_and(of[2], high, mask);
            of[3] = or_and(of[3], _mm512_srli_epi16(high, 2), mask);
        }
    }
};

inline __m512 widen_f16(const std::byte* at) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}

inline __m512 widen_u8(const std::byte* at) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}

inline __m512 widen_i8(const std::byte* at) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}

// Scales and offsets of one row block, decoded a group at a time: 16 rows in a register. The
// branches are the same for every group of a matrix, so they cost next to nothing.
class BlockScales {
public:
    BlockScales(const PackedWeights& weights, size_t block)
        : scales_(weights.scales(block)),
          offsets_(weights.offsets(block)),
          group_(weights.group()),
          scale_kind_(weights.format().scales),
          offset_kind_(weights.format().offsets),
          zero_(_mm512_set1_ps(-static_cast<float>(1 << (weights.format().bits - 1)) +
                               (offset_kind_ == OffsetKind::HalfSymmetric ? 0.5F : 0.0F))) {
        const size_t supers = (weights.columns() + kSuperColumns - 1) / kSuperColumns;
        super_bytes_ = (supers * kBlockRows * 2 + 63) / 64 * 64;
    }

    __m512 scale(size_t group) const {
        switch (scale_kind_) {
            case ScaleKind::F16:
                return widen_f16(scales_ + group * 32);
            case ScaleKind::F32:
                return _mm512_loadu_ps(scales_ + group * 64);
            case ScaleKind::SuperU8:
                return _mm512_mul_ps(widen_f16(scales_ + super(group) * 32),
                                     widen_u8(scales_ + super_bytes_ + group * 16));
            default:
                return _mm512_mul_ps(widen_f16(scales_ + super(group) * 32),
                                     widen_i8(scales_ + super_bytes_ + group * 16));
        }
    }

    // `scale` is that of the same group: most offsets are a multiple of it.
    __m512 offset(size_t group, __m512 scale) const {
        switch (offset_kind_) {
            case OffsetKind::Symmetric:
            case OffsetKind::HalfSymmetric:
                return _mm512_mul_ps(zero_, scale);
            case OffsetKind::ZeroPoint: {
                const __m512 product = _mm512_mul_ps(scale, widen_u8(offsets_ + group * 16));
                return _mm512_sub_ps(_mm512_setzero_ps(), product);
            }
            case OffsetKind::F16:
                return widen_f16(offsets_ + group * 32);
            case OffsetKind::F32:
                return _mm512_loadu_ps(offsets_ + group * 64);
            default: {
                const __m512 product =
                    _mm512_mul_ps(widen_f16(offsets_ + super(group) * 32),
                                  widen_u8(offsets_ + super_bytes_ + group * 16));
                return _mm512_sub_ps(_mm512_setzero_ps(), product);
            }
        }
    }

private:
    size_t super(size_t group) const { return group * group_ / kSuperColumns; }

    const std::byte* scales_;
    const std::byte* offsets_;
    size_t group_;
    size_t super_bytes_;
    ScaleKind scale_kind_;
    OffsetKind offset_kind_;
    __m512 zero_;
};

// e^x to about one unit in the last place: x = n ln 2 + r with |r| <= ln 2 / 2, Taylor's series in
// r (the first term left out is below 6e-9), and scalef for 2^n, which over- and underflows
// rightly. The bounds, beyond which e^x is 0 or infinity, keep r small; as first operands they let
// a NaN pass.
inline __m512 exponential(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-150.0F), x);
    x = _mm512_min_ps(_mm512_set1_ps(150.0F), x);
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504F)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375F), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4F), r);
    __m512 sum = _mm512_set1_ps(1.0F / 5040);
    for (const float coefficient :
         {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F}) {
        sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(coefficient));
    }
    return _mm512_scalef_ps(sum, n);
}

// Rows of a block that exist: the last one may have fewer than 16.
inline __mmask16 rows_of_block(const PackedWeights& weights, size_t block) {
    const size_t left = weights.rows() - block * kBlockRows;
    return left >= kBlockRows ? __mmask16(0xFFFF) : static_cast<__mmask16>((1U << left) - 1);
}

}  // namespace
}  // namespace ovfast::kernels
