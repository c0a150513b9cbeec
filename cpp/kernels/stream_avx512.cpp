// Work whose limit is memory, AVX-512.

#include "kernels/avx512_inl.hpp"
#include "kernels/registry.hpp"

namespace ovfast::kernels {
namespace {

inline __mmask16 first_lanes(size_t count) {
    return count >= 16 ? __mmask16(0xFFFF) : static_cast<__mmask16>((1U << count) - 1);
}

// x / (1 + e^-x). A division takes 16 to 24 cycles, too many beside memory; the estimate with one
// step of Newton's is exact to a unit or two in the last place, and where the denominator is
// infinite or NaN it is left as it is.
inline __m512 silu(__m512 x) {
    const __m512 denominator =
        _mm512_add_ps(_mm512_set1_ps(1.0F), exponential(_mm512_sub_ps(_mm512_setzero_ps(), x)));
    const __m512 estimate = _mm512_rcp14_ps(denominator);
    const __m512 error = _mm512_fnmadd_ps(denominator, estimate, _mm512_set1_ps(2.0F));
    // 0 * infinity is NaN: e^100 is above all that matters, so nothing is infinite in range.
    const __mmask16 usual = _mm512_cmp_ps_mask(denominator, _mm512_set1_ps(0x1p125F), _CMP_LT_OQ);
    const __m512 inverse = _mm512_mask_mul_ps(estimate, usual, estimate, error);
    return _mm512_mul_ps(x, inverse);
}

// Floats before `out` is aligned to a cache line, at most `count`.
inline size_t to_line(const float* out, size_t count) {
    const size_t floats = (64 - reinterpret_cast<uintptr_t>(out) % 64) % 64 / sizeof(float);
    return floats < count ? floats : count;
}

inline void swiglu_lanes(const float* gate, const float* up, __m512 alpha, size_t count,
                         float* out) {
    const __mmask16 mask = first_lanes(count);
    const __m512 x = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, gate), alpha);
    _mm512_mask_storeu_ps(out, mask, _mm512_mul_ps(silu(x), _mm512_maskz_loadu_ps(mask, up)));
}

void swiglu(const float* gate, const float* up, float alpha, size_t count, bool past_cache,
            float* out) {
    const __m512 factor = _mm512_set1_ps(alpha);
    size_t i = 0;
    if (past_cache && reinterpret_cast<uintptr_t>(out) % sizeof(float) == 0) {
        i = to_line(out, count);
        if (i != 0) swiglu_lanes(gate, up, factor, i, out);
        for (; i + 16 <= count; i += 16) {
            const __m512 x = _mm512_mul_ps(_mm512_loadu_ps(gate + i), factor);
            _mm512_stream_ps(out + i, _mm512_mul_ps(silu(x), _mm512_loadu_ps(up + i)));
        }
        _mm_sfence();
    }
    for (; i < count; i += 16) swiglu_lanes(gate + i, up + i, factor, count - i, out + i);
}

void add_rms_norm(const float* x, const float* residual, const float* gamma, float epsilon,
                  size_t count, bool past_cache, float* out, float* sum) {
    __m512 squares[4];
    for (__m512& square : squares) square = _mm512_setzero_ps();
    for (size_t i = 0; i < count; i += 16) {
        const __mmask16 mask = first_lanes(count - i);
        const __m512 value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, x + i),
                                           _mm512_maskz_loadu_ps(mask, residual + i));
        __m512& square = squares[i / 16 % 4];
        square = _mm512_fmadd_ps(value, value, square);
    }
    const float total = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(squares[0], squares[1]),
                                                           _mm512_add_ps(squares[2], squares[3])));
    const float mean = total / static_cast<float>(count);
    const __m128 root = _mm_sqrt_ss(_mm_set_ss(mean + epsilon));
    const __m512 factor = _mm512_set1_ps(1.0F / _mm_cvtss_f32(root));
    // The row is in the cache by now: adding again costs less than a copy of the sum.
    const bool aligned =
        (reinterpret_cast<uintptr_t>(out) | reinterpret_cast<uintptr_t>(sum)) % 64 == 0;
    size_t i = 0;
    if (past_cache && aligned) {
        for (; i + 16 <= count; i += 16) {
            const __m512 value =
                _mm512_add_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(residual + i));
            _mm512_stream_ps(sum + i, value);
            _mm512_stream_ps(
                out + i, _mm512_mul_ps(_mm512_mul_ps(value, factor), _mm512_loadu_ps(gamma + i)));
        }
        _mm_sfence();
    }
    for (; i < count; i += 16) {
        const __mmask16 mask = first_lanes(count - i);
        const __m512 value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, x + i),
                                           _mm512_maskz_loadu_ps(mask, residual + i));
        _mm512_mask_storeu_ps(sum + i, mask, value);
        _mm512_mask_storeu_ps(
            out + i, mask,
            _mm512_mul_ps(_mm512_mul_ps(value, factor), _mm512_maskz_loadu_ps(mask, gamma + i)));
    }
}

float int4_dot(const uint8_t* codes, const float* split, const float* scales, size_t columns,
               size_t group, float zero_point) {
    const __m512 zero = _mm512_set1_ps(zero_point);
    __m512 total = _mm512_setzero_ps();
    for (size_t first = 0; first < columns; first += group) {
        __m512 even = _mm512_setzero_ps();
        __m512 odd = _mm512_setzero_ps();
        for (size_t k = first; k < first + group; k += 32) {
            const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + k / 2));
            const __m512i both = _mm512_cvtepu8_epi32(bytes);
            const __m512 low = _mm512_cvtepi32_ps(_mm512_and_si512(both, _mm512_set1_epi32(15)));
            const __m512 high = _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 4));
            even = _mm512_fmadd_ps(_mm512_sub_ps(low, zero), _mm512_loadu_ps(split + k), even);
            odd = _mm512_fmadd_ps(_mm512_sub_ps(high, zero), _mm512_loadu_ps(split + k + 16), odd);
        }
        total =
            _mm512_fmadd_ps(_mm512_add_ps(even, odd), _mm512_set1_ps(scales[first / group]), total);
    }
    return _mm512_reduce_add_ps(total);
}

void widen(const uint16_t* in, size_t count, float* out) {
    for (size_t i = 0; i < count; i += 16) {
        const __mmask16 mask = first_lanes(count - i);
        _mm512_mask_storeu_ps(out + i, mask,
                              _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, in + i)));
    }
}

void narrow(const float* in, size_t count, uint16_t* out) {
    for (size_t i = 0; i < count; i += 16) {
        const __mmask16 mask = first_lanes(count - i);
        const __m512 x = _mm512_maskz_loadu_ps(mask, in + i);
        _mm256_mask_storeu_epi16(out + i, mask,
                                 _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
}

}  // namespace

const StreamKernels& avx512_stream_kernels() {
    static const StreamKernels table{"avx512", Isa::Avx512Vnni, swiglu, add_rms_norm,
                                     int4_dot, widen,           narrow};
    return table;
}

}  // namespace ovfast::kernels
