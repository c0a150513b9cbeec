// What the AVX2 files of elementwise work share. Included by them alone, inside their anonymous
// namespaces, so that no copy compiled for AVX2 can stand in for code of another file.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace ovfast::kernels {
namespace {

// Lanes below `count`.
inline __m256i first_lanes(size_t count) {
    const int lanes = count < 8 ? static_cast<int>(count) : 8;
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline __m256 load(const float* at, size_t count) {
    return count >= 8 ? _mm256_loadu_ps(at) : _mm256_maskload_ps(at, first_lanes(count));
}

inline void store(float* at, size_t count, __m256 x) {
    if (count >= 8) {
        _mm256_storeu_ps(at, x);
    } else {
        _mm256_maskstore_ps(at, first_lanes(count), x);
    }
}

inline float reduce_add(__m256 x) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    sum = _mm_add_ss(sum, _mm_movehdup_ps(sum));
    return _mm_cvtss_f32(sum);
}

inline __m256 power_of_two(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

// e^x for |x| <= 150, to about one unit in the last place: x = n ln 2 + r with |r| <= ln 2 / 2, and
// Taylor's series in r (the first term left out is below 6e-9). 2^n is multiplied in two steps,
// which over- and underflow as they should.
inline __m256 exponential(__m256 x) {
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504F)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    // ln 2 in two parts, the first with few bits: its product with n is exact.
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375F), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4F), r);
    __m256 sum = _mm256_set1_ps(1.0F / 5040);
    for (const float coefficient :
         {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F}) {
        sum = _mm256_fmadd_ps(sum, r, _mm256_set1_ps(coefficient));
    }
    const __m256i whole = _mm256_cvtps_epi32(n);
    const __m256i first = _mm256_srai_epi32(whole, 1);
    return _mm256_mul_ps(_mm256_mul_ps(sum, power_of_two(first)),
                         power_of_two(_mm256_sub_epi32(whole, first)));
}

// Operands in this order let a NaN through.
inline __m256 at_least(float least, __m256 x) {
    return _mm256_max_ps(_mm256_set1_ps(least), x);
}

inline __m256 at_most(float most, __m256 x) {
    return _mm256_min_ps(_mm256_set1_ps(most), x);
}

// x / (1 + e^-u). Beyond 100 the sigmoid is 0 or 1 in f32.
inline __m256 times_sigmoid(__m256 x, __m256 u) {
    const __m256 bounded = at_least(-100.0F, at_most(100.0F, u));
    const __m256 decay = exponential(_mm256_sub_ps(_mm256_setzero_ps(), bounded));
    return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0F), decay));
}

}  // namespace
}  // namespace ovfast::kernels
