// Work whose limit is memory, AVX2.

#include "kernels/avx2_inl.hpp"
#include "kernels/registry.hpp"

namespace ovfast::kernels {
namespace {

// Floats before `out` is aligned to 32 bytes, at most `count`.
inline size_t to_vector(const float* out, size_t count) {
    const size_t floats = (32 - reinterpret_cast<uintptr_t>(out) % 32) % 32 / sizeof(float);
    return floats < count ? floats : count;
}

inline __m256 swiglu_lanes(const float* gate, const float* up, __m256 alpha, size_t count) {
    const __m256 x = _mm256_mul_ps(load(gate, count), alpha);
    return _mm256_mul_ps(times_sigmoid(x, x), load(up, count));
}

void swiglu(const float* gate, const float* up, float alpha, size_t count, bool past_cache,
            float* out) {
    const __m256 factor = _mm256_set1_ps(alpha);
    size_t i = 0;
    if (past_cache && reinterpret_cast<uintptr_t>(out) % sizeof(float) == 0) {
        i = to_vector(out, count);
        if (i != 0) store(out, i, swiglu_lanes(gate, up, factor, i));
        for (; i + 8 <= count; i += 8) {
            _mm256_stream_ps(out + i, swiglu_lanes(gate + i, up + i, factor, 8));
        }
        _mm_sfence();
    }
    for (; i < count; i += 8) {
        store(out + i, count - i, swiglu_lanes(gate + i, up + i, factor, count - i));
    }
}

void add_rms_norm(const float* x, const float* residual, const float* gamma, float epsilon,
                  size_t count, bool past_cache, float* out, float* sum) {
    __m256 squares[4];
    for (__m256& square : squares) square = _mm256_setzero_ps();
    for (size_t i = 0; i < count; i += 8) {
        const __m256 value = _mm256_add_ps(load(x + i, count - i), load(residual + i, count - i));
        __m256& square = squares[i / 8 % 4];
        square = _mm256_fmadd_ps(value, value, square);
    }
    const float total = reduce_add(_mm256_add_ps(_mm256_add_ps(squares[0], squares[1]),
                                                 _mm256_add_ps(squares[2], squares[3])));
    const float mean = total / static_cast<float>(count);
    const __m128 root = _mm_sqrt_ss(_mm_set_ss(mean + epsilon));
    const __m256 factor = _mm256_set1_ps(1.0F / _mm_cvtss_f32(root));
    // The row is in the cache by now: adding again costs less than a copy of the sum.
    const bool aligned =
        (reinterpret_cast<uintptr_t>(out) | reinterpret_cast<uintptr_t>(sum)) % 32 == 0;
    size_t i = 0;
    if (past_cache && aligned) {
        for (; i + 8 <= count; i += 8) {
            const __m256 value =
                _mm256_add_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(residual + i));
            _mm256_stream_ps(sum + i, value);
            _mm256_stream_ps(
                out + i, _mm256_mul_ps(_mm256_mul_ps(value, factor), _mm256_loadu_ps(gamma + i)));
        }
        _mm_sfence();
    }
    for (; i < count; i += 8) {
        const size_t left = count - i;
        const __m256 value = _mm256_add_ps(load(x + i, left), load(residual + i, left));
        store(sum + i, left, value);
        store(out + i, left, _mm256_mul_ps(_mm256_mul_ps(value, factor), load(gamma + i, left)));
    }
}

inline __m256 centered(__m256i codes, __m256 zero) {
    return _mm256_sub_ps(_mm256_cvtepi32_ps(codes), zero);
}

float int4_dot(const uint8_t* codes, const float* split, const float* scales, size_t columns,
               size_t group, float zero_point) {
    const __m256 zero = _mm256_set1_ps(zero_point);
    const __m256i nibble = _mm256_set1_epi32(15);
    __m256 total = _mm256_setzero_ps();
    for (size_t first = 0; first < columns; first += group) {
        __m256 sums[4];
        for (__m256& sum : sums) sum = _mm256_setzero_ps();
        for (size_t k = first; k < first + group; k += 32) {
            for (size_t half = 0; half < 2; ++half) {
                const uint8_t* at = codes + k / 2 + 8 * half;
                const __m256i both =
                    _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at)));
                const float* x = split + k + 8 * half;
                sums[half] = _mm256_fmadd_ps(centered(_mm256_and_si256(both, nibble), zero),
                                             _mm256_loadu_ps(x), sums[half]);
                sums[half + 2] = _mm256_fmadd_ps(centered(_mm256_srli_epi32(both, 4), zero),
                                                 _mm256_loadu_ps(x + 16), sums[half + 2]);
            }
        }
        const __m256 sum =
            _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
        total = _mm256_fmadd_ps(sum, _mm256_set1_ps(scales[first / group]), total);
    }
    return reduce_add(total);
}

void widen(const uint16_t* in, size_t count, float* out) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i));
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(bits));
    }
    for (; i < count; ++i) out[i] = _cvtsh_ss(in[i]);
}

void narrow(const float* in, size_t count, uint16_t* out) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m128i bits =
            _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), bits);
    }
    for (; i < count; ++i) out[i] = _cvtss_sh(in[i], _MM_FROUND_TO_NEAREST_INT);
}

}  // namespace

const StreamKernels& avx2_stream_kernels() {
    static const StreamKernels table{"avx2",   Isa::Avx2, swiglu, add_rms_norm,
                                     int4_dot, widen,     narrow};
    return table;
}

}  // namespace ovfast::kernels
