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

void quantize(const float* in, size_t columns, size_t group, int8_t* codes, float* scales,
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
