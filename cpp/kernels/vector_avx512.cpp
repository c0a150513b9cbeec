// Elementwise work, AVX-512.

#include <cmath>

#include "kernels/avx512_inl.hpp"
#include "kernels/registry.hpp"

namespace ovfast::kernels {
namespace {

inline __mmask16 first_lanes(size_t count) {
    return count >= 16 ? __mmask16(0xFFFF) : static_cast<__mmask16>((1U << count) - 1);
}

inline __mmask16 is_not_finite(__m512 x) {
    return _mm512_fpclass_ps_mask(x, 0x01 | 0x08 | 0x10 | 0x80);  // NaNs and infinities
}

// ---- Quantizing ---------------------------------------------------------------------------------
// Sixteen groups at a time, so that what a group has one of (maximum, scale, sums) is computed in
// vectors, a lane for each group; the rest of a row, and what is not finite, group by group.

constexpr size_t kBatchGroups = 16;

template <typename Combine>
inline __m512i combine_neighbours(__m512i a, __m512i b, Combine combine) {
    return combine(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

// In each 128-bit part: lane i combines the four lanes that vectors[i] has there.
template <typename Combine>
inline __m512i combine_four(const __m512i* vectors, Combine combine) {
    const __m512i first = combine_neighbours(vectors[0], vectors[1], combine);
    const __m512i second = combine_neighbours(vectors[2], vectors[3], combine);
    return combine(_mm512_unpacklo_epi64(first, second), _mm512_unpackhi_epi64(first, second));
}

template <typename Combine>
inline __m512i combine_parts(__m512i a, __m512i b, Combine combine) {
    return combine(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xDD));
}

// Largest magnitude of each of 16 groups of 32 values, as bits: those of floats that are not
// negative are ordered as integers are, with infinities and NaNs above all others.
inline __m512i largest_magnitudes(const float* in) {
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
    const auto larger = [](__m512i a, __m512i b) { return _mm512_max_epi32(a, b); };
    __m512i quarters[4];
    for (size_t q = 0; q < 4; ++q) {
        __m512i groups[4];
        for (size_t g = 0; g < 4; ++g) {
            const float* from = in + (4 * q + g) * 32;
            groups[g] = larger(_mm512_and_si512(_mm512_loadu_si512(from), magnitude),
                               _mm512_and_si512(_mm512_loadu_si512(from + 16), magnitude));
        }
        quarters[q] = combine_four(groups, larger);
    }
    return combine_parts(combine_parts(quarters[0], quarters[1], larger),
                         combine_parts(quarters[2], quarters[3], larger), larger);
}

// False, and nothing written, when a value is not finite.
bool quantize_batch(const float* in, size_t group, int8_t* codes, float* scales, float* sums,
                    float* half_sums) {
    __m512i bits = largest_magnitudes(in);
    if (_mm512_cmpge_epi32_mask(bits, _mm512_set1_epi32(0x7F800000)) != 0) return false;
    if (group > 32) {  // four groups of 32 share a scale
        bits = _mm512_max_epi32(bits, _mm512_shuffle_epi32(bits, _MM_PERM_BADC));
        bits = _mm512_max_epi32(bits, _mm512_shuffle_epi32(bits, _MM_PERM_CDAB));
    }
    const __m512 max = _mm512_castsi512_ps(bits);
    const __m512 steps = _mm512_set1_ps(127.0F);
    const __mmask16 some = _mm512_cmp_ps_mask(max, _mm512_set1_ps(0x1p-100F), _CMP_GE_OQ);
    const __m512 scale = _mm512_maskz_div_ps(some, max, steps);
    alignas(64) float inverses[kBatchGroups];
    _mm512_store_ps(inverses, _mm512_maskz_div_ps(some, steps, max));

    const __m512i in_order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    const auto code = [&](size_t at, size_t g) {
        return _mm512_cvtps_epi32(
            _mm512_mul_ps(_mm512_loadu_ps(in + at), _mm512_set1_ps(inverses[g])));
    };
    __m512i fours[8];  // sums of four codes; a part is half a group
    for (size_t g = 0; g < kBatchGroups; g += 2) {
        const size_t at = g * 32;
        const __m512i packed =
            _mm512_packs_epi16(_mm512_packs_epi32(code(at, g), code(at + 16, g)),
                               _mm512_packs_epi32(code(at + 32, g + 1), code(at + 48, g + 1)));
        const __m512i ordered = _mm512_permutexvar_epi32(in_order, packed);
        _mm512_storeu_si512(codes + at, ordered);
        fours[g / 2] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), ordered);
    }
    const auto plus = [](__m512i a, __m512i b) { return _mm512_add_epi32(a, b); };
    const __m512i halves[2] = {_mm512_permutexvar_epi32(in_order, combine_four(fours, plus)),
                               _mm512_permutexvar_epi32(in_order, combine_four(fours + 4, plus))};
    const __m512i twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    const __m512i even =
        _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    const __m512i whole = plus(_mm512_permutex2var_epi32(halves[0], even, halves[1]),
                               _mm512_permutex2var_epi32(halves[0], odd, halves[1]));
    _mm512_storeu_ps(scales, scale);
    _mm512_storeu_ps(sums, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(whole)));
    for (int half = 0; half < 2; ++half) {
        const __m512i lanes = _mm512_add_epi32(twice, _mm512_set1_epi32(8 * half));
        _mm512_storeu_ps(half_sums + 16 * half, _mm512_mul_ps(_mm512_permutexvar_ps(lanes, scale),
                                                              _mm512_cvtepi32_ps(halves[half])));
    }
    return true;
}

void quantize_groups(const float* in, size_t columns, size_t group, int8_t* codes, float* scales,
                     float* sums, float* half_sums) {
    const size_t groups = (columns + 31) / 32;
    float max = 0.0F;
    bool finite = true;
    for (size_t g = 0; g < groups; ++g, in += 32, codes += 32) {
        const size_t left = columns - g * 32;
        const __m512 low = _mm512_maskz_loadu_ps(first_lanes(left), in);
        const __m512 high = left > 16 ? _mm512_maskz_loadu_ps(first_lanes(left - 16), in + 16)
                                      : _mm512_setzero_ps();
        if (g * 32 % group == 0) {
            __m512 largest = _mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high));
            __mmask16 bad = is_not_finite(low) | is_not_finite(high);
            for (size_t k = 32; k < group && k < left; k += 16) {
                const __m512 x = _mm512_maskz_loadu_ps(first_lanes(left - k), in + k);
                largest = _mm512_max_ps(largest, _mm512_abs_ps(x));
                bad |= is_not_finite(x);
            }
            max = _mm512_reduce_max_ps(largest);
            finite = bad == 0;
        }
        if (!finite || !(max >= 0x1p-100F)) {
            const float scale = finite ? 0.0F : NAN;
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), _mm256_setzero_si256());
            scales[g] = scale;
            sums[g] = scale;
            half_sums[2 * g] = scale;
            half_sums[2 * g + 1] = scale;
            continue;
        }
        const __m512 inverse = _mm512_set1_ps(127.0F / max);
        const __m512i low_codes = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
        const __m512i high_codes = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), _mm512_cvtsepi32_epi8(low_codes));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + 16), _mm512_cvtsepi32_epi8(high_codes));
        const int low_sum = _mm512_reduce_add_epi32(low_codes);
        const int high_sum = _mm512_reduce_add_epi32(high_codes);
        const float scale = max / 127.0F;
        scales[g] = scale;
        sums[g] = scale * static_cast<float>(low_sum + high_sum);
        half_sums[2 * g] = scale * static_cast<float>(low_sum);
        half_sums[2 * g + 1] = scale * static_cast<float>(high_sum);
    }
}

void quantize(const float* in, size_t columns, size_t group, int8_t* codes, float* scales,
              float* sums, float* half_sums) {
    constexpr size_t batch = kBatchGroups * 32;
    size_t done = 0;
    for (; done + batch <= columns; done += batch) {
        const size_t groups = done / 32;
        if (!quantize_batch(in + done, group, codes + done, scales + groups, sums + groups,
                            half_sums + 2 * groups)) {
            quantize_groups(in + done, batch, group, codes + done, scales + groups, sums + groups,
                            half_sums + 2 * groups);
        }
    }
    if (done == columns) return;
    const size_t groups = done / 32;
    quantize_groups(in + done, columns - done, group, codes + done, scales + groups, sums + groups,
                    half_sums + 2 * groups);
}

void to_bf16(const float* in, size_t columns, uint16_t* out) {
    const size_t padded = (columns + 31) / 32 * 32;
    for (size_t k = 0; k < padded; k += 16) {
        const __mmask16 mask = k < columns ? first_lanes(columns - k) : __mmask16(0);
        const __m512 x = _mm512_maskz_loadu_ps(mask, in + (mask != 0 ? k : 0));
        const __m512i bits = _mm512_castps_si512(x);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        const __m512i rounded =
            _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
        // Rounding could carry a NaN into an infinity: NaNs are cut and made quiet instead.
        const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
        const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
        const __m512i chosen = _mm512_mask_mov_epi32(rounded, nan, quiet);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + k),
                            _mm512_cvtepi32_epi16(_mm512_srli_epi32(chosen, 16)));
    }
}

inline __m512 sigmoid(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0F);
    const __m512 minus = _mm512_sub_ps(_mm512_setzero_ps(), x);
    return _mm512_div_ps(one, _mm512_add_ps(one, exponential(minus)));
}

inline __m512 silu(__m512 x) {
    return _mm512_mul_ps(x, sigmoid(x));
}

// 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3).
inline __m512 gelu_tanh(__m512 x) {
    const __m512 square = _mm512_mul_ps(x, x);
    const __m512 inner = _mm512_fmadd_ps(square, _mm512_set1_ps(0.044715F), _mm512_set1_ps(1.0F));
    const __m512 u = _mm512_mul_ps(_mm512_mul_ps(x, inner), _mm512_set1_ps(1.5957691216F));
    return _mm512_mul_ps(x, sigmoid(u));
}

// x Phi(x); erfc by Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
inline __m512 gelu_erf(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0F);
    const __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678F));
    const __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911F), one));
    __m512 sum = _mm512_set1_ps(1.061405429F);
    for (const float coefficient : {-1.453152027F, 1.421413741F, -0.284496736F, 0.254829592F}) {
        sum = _mm512_fmadd_ps(sum, t, _mm512_set1_ps(coefficient));
    }
    const __m512 square = _mm512_mul_ps(z, z);
    const __m512 decay = exponential(_mm512_sub_ps(_mm512_setzero_ps(), square));
    // Half of erfc(|z|): the probability beyond |x|.
    const __m512 tail =
        _mm512_mul_ps(_mm512_mul_ps(_mm512_mul_ps(sum, t), decay), _mm512_set1_ps(0.5F));
    const __mmask16 positive = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ);
    const __m512 phi = _mm512_mask_sub_ps(tail, positive, one, tail);
    return _mm512_mul_ps(x, phi);
}

template <__m512 (*Function)(__m512)>
void multiply(const float* gate, const float* up, float* out, size_t count) {
    for (size_t i = 0; i < count; i += 16) {
        const __mmask16 mask = first_lanes(count - i);
        const __m512 value = Function(_mm512_maskz_loadu_ps(mask, gate + i));
        _mm512_mask_storeu_ps(out + i, mask,
                              _mm512_mul_ps(value, _mm512_maskz_loadu_ps(mask, up + i)));
    }
}

void rms_norm(const float* in, const float* gamma, float epsilon, size_t count, float* out) {
    __m512 squares[4];
    for (__m512& square : squares) square = _mm512_setzero_ps();
    for (size_t i = 0; i < count; i += 16) {
        const __m512 x = _mm512_maskz_loadu_ps(first_lanes(count - i), in + i);
        __m512& square = squares[i / 16 % 4];
        square = _mm512_fmadd_ps(x, x, square);
    }
    const float sum = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(squares[0], squares[1]),
                                                         _mm512_add_ps(squares[2], squares[3])));
    const float factor = 1.0F / std::sqrt(sum / static_cast<float>(count) + epsilon);
    for (size_t i = 0; i < count; i += 16) {
        const __mmask16 mask = first_lanes(count - i);
        const __m512 x = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, in + i), _mm512_set1_ps(factor));
        _mm512_mask_storeu_ps(out + i, mask,
                              _mm512_mul_ps(x, _mm512_maskz_loadu_ps(mask, gamma + i)));
    }
}

void add(const float* in, float* out, size_t count) {
    for (size_t i = 0; i < count; i += 16) {
        const __mmask16 mask = first_lanes(count - i);
        _mm512_mask_storeu_ps(out + i, mask,
                              _mm512_add_ps(_mm512_maskz_loadu_ps(mask, in + i),
                                            _mm512_maskz_loadu_ps(mask, out + i)));
    }
}

}  // namespace

const VectorKernels& avx512_vector_kernels() {
    static const VectorKernels table{
        "avx512",           Isa::Avx512Vnni, quantize, to_bf16, multiply<silu>, multiply<gelu_tanh>,
        multiply<gelu_erf>, rms_norm,        add};
    return table;
}

}  // namespace ovfast::kernels
