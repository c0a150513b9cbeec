// Elementwise work, AVX2.

#include "kernels/avx2_inl.hpp"
#include "kernels/registry.hpp"

namespace ovfast::kernels {
namespace {

inline __m256i magnitude_bits(__m256 x) {
    return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7FFFFFFF));
}

inline int reduce_max(__m256i x) {
    __m128i max = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    max = _mm_max_epi32(max, _mm_shuffle_epi32(max, 0x4E));
    max = _mm_max_epi32(max, _mm_shuffle_epi32(max, 0xB1));
    return _mm_cvtsi128_si32(max);
}

inline int reduce_add(__m256i x) {
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
    return _mm_cvtsi128_si32(sum);
}

void quantize(const float* in, size_t columns, size_t group, int8_t* codes, float* scales,
              float* sums, float* half_sums) {
    constexpr int kInfinityBits = 0x7F800000;
    constexpr int kLeastBits = 27 << 23;  // 2^-100
    const size_t groups = (columns + 31) / 32;
    int max_bits = 0;
    for (size_t g = 0; g < groups; ++g, codes += 32) {
        __m256 x[4];
        for (size_t i = 0; i < 4; ++i) {
            const size_t at = g * 32 + 8 * i;
            x[i] = at < columns ? load(in + at, columns - at) : _mm256_setzero_ps();
        }
        if (g * 32 % group == 0) {
            // Bits of magnitudes order as the magnitudes do, with infinities and NaNs on top.
            __m256i largest =
                _mm256_max_epi32(_mm256_max_epi32(magnitude_bits(x[0]), magnitude_bits(x[1])),
                                 _mm256_max_epi32(magnitude_bits(x[2]), magnitude_bits(x[3])));
            for (size_t at = g * 32 + 32; at < g * 32 + group && at < columns; at += 8) {
                largest = _mm256_max_epi32(largest, magnitude_bits(load(in + at, columns - at)));
            }
            max_bits = reduce_max(largest);
        }
        auto* to = reinterpret_cast<__m256i*>(codes);
        if (max_bits < kLeastBits || max_bits >= kInfinityBits) {
            _mm256_storeu_si256(to, _mm256_setzero_si256());
            const float scale = max_bits < kLeastBits ? 0.0F : __builtin_nanf("");
            scales[g] = sums[g] = half_sums[2 * g] = half_sums[2 * g + 1] = scale;
            continue;
        }
        float max;
        __builtin_memcpy(&max, &max_bits, sizeof(max));
        const float scale = max / 127.0F;
        const __m256 inverse = _mm256_set1_ps(127.0F / max);
        __m256i rounded[4];
        for (int i = 0; i < 4; ++i) {
            rounded[i] = _mm256_cvtps_epi32(_mm256_mul_ps(x[i], inverse));
        }
        // Packing works within 128 bits: fours of columns 0 8 16 24 | 4 12 20 28.
        const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(rounded[0], rounded[1]),
                                                  _mm256_packs_epi32(rounded[2], rounded[3]));
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        _mm256_storeu_si256(to, _mm256_permutevar8x32_epi32(packed, order));
        const int low = reduce_add(_mm256_add_epi32(rounded[0], rounded[1]));
        const int high = reduce_add(_mm256_add_epi32(rounded[2], rounded[3]));
        scales[g] = scale;
        sums[g] = scale * static_cast<float>(low + high);
        half_sums[2 * g] = scale * static_cast<float>(low);
        half_sums[2 * g + 1] = scale * static_cast<float>(high);
    }
}

inline __m256i round_to_bf16(__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    // Rounding could carry a NaN into an infinity: NaNs are cut and made quiet instead.
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
}

void to_bf16(const float* in, size_t columns, uint16_t* out) {
    const size_t padded = (columns + 31) / 32 * 32;
    for (size_t k = 0; k < padded; k += 16) {
        const __m256 low = k < columns ? load(in + k, columns - k) : _mm256_setzero_ps();
        const __m256 high =
            k + 8 < columns ? load(in + k + 8, columns - k - 8) : _mm256_setzero_ps();
        const __m256i packed = _mm256_packus_epi32(round_to_bf16(low), round_to_bf16(high));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + k),
                            _mm256_permute4x64_epi64(packed, 0xD8));
    }
}

inline __m256 silu(__m256 x) {
    return times_sigmoid(x, x);
}

// 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3).
inline __m256 gelu_tanh(__m256 x) {
    const __m256 square = _mm256_mul_ps(x, x);
    const __m256 inner = _mm256_fmadd_ps(square, _mm256_set1_ps(0.044715F), _mm256_set1_ps(1.0F));
    const __m256 doubled = _mm256_mul_ps(x, _mm256_set1_ps(1.5957691216F));
    return times_sigmoid(x, _mm256_mul_ps(doubled, inner));
}

// x Phi(x). The probability beyond |x| is e^(-x^2 / 2) P(1 / (1 + 0.28 |x|)); P was fitted to that
// quotient for |x| <= 14.6 with a relative error below 3e-8, beyond which f32 has only zero.
inline __m256 gelu_erf(__m256 x) {
    const __m256 sign = _mm256_set1_ps(-0.0F);
    const __m256 one = _mm256_set1_ps(1.0F);
    const __m256 distance = at_most(14.6F, _mm256_andnot_ps(sign, x));
    const __m256 t = _mm256_div_ps(one, _mm256_fmadd_ps(distance, _mm256_set1_ps(0.28F), one));
    __m256 tail = _mm256_set1_ps(0.0179075447F);
    for (const float coefficient :
         {-0.057810728F, 0.0120962123F, 0.0943924922F, -0.00498046471F, 0.121713423F, 0.0912605765F,
          0.113942736F, 0.111467668F, 1.05537206e-05F}) {
        tail = _mm256_fmadd_ps(tail, t, _mm256_set1_ps(coefficient));
    }
    // What rounding takes from the square counts: e^-100 would be wrong by 6e-6 of itself.
    const __m256 square = _mm256_mul_ps(distance, distance);
    const __m256 lost = _mm256_fmsub_ps(distance, distance, square);
    const __m256 minus_half = _mm256_set1_ps(-0.5F);
    const __m256 decay = exponential(_mm256_mul_ps(square, minus_half));
    tail = _mm256_mul_ps(tail, _mm256_fmadd_ps(decay, _mm256_mul_ps(lost, minus_half), decay));
    // A negative x, by its sign bit, takes the tail itself.
    const __m256 phi = _mm256_blendv_ps(_mm256_sub_ps(one, tail), tail, x);
    return _mm256_mul_ps(x, phi);
}

template <__m256 (*Function)(__m256)>
void multiply(const float* gate, const float* up, float* out, size_t count) {
    for (size_t i = 0; i < count; i += 8) {
        const __m256 value = Function(load(gate + i, count - i));
        store(out + i, count - i, _mm256_mul_ps(value, load(up + i, count - i)));
    }
}

void rms_norm(const float* in, const float* gamma, float epsilon, size_t count, float* out) {
    __m256 squares[4];
    for (__m256& square : squares) square = _mm256_setzero_ps();
    for (size_t i = 0; i < count; i += 32) {
        // Four chains: one would wait four cycles for each addition.
        for (size_t chain = 0; chain < 4 && i + 8 * chain < count; ++chain) {
            const __m256 x = load(in + i + 8 * chain, count - i - 8 * chain);
            squares[chain] = _mm256_fmadd_ps(x, x, squares[chain]);
        }
    }
    const float sum = reduce_add(_mm256_add_ps(_mm256_add_ps(squares[0], squares[1]),
                                               _mm256_add_ps(squares[2], squares[3])));
    const float mean = sum / static_cast<float>(count);
    const float root = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean + epsilon)));
    const __m256 factor = _mm256_set1_ps(1.0F / root);
    for (size_t i = 0; i < count; i += 8) {
        const __m256 scaled = _mm256_mul_ps(load(in + i, count - i), factor);
        store(out + i, count - i, _mm256_mul_ps(scaled, load(gamma + i, count - i)));
    }
}

void add(const float* in, float* out, size_t count) {
    for (size_t i = 0; i < count; i += 8) {
        store(out + i, count - i, _mm256_add_ps(load(in + i, count - i), load(out + i, count - i)));
    }
}

}  // namespace

const VectorKernels& avx2_vector_kernels() {
    static const VectorKernels table{"avx2",
                                     Isa::Avx2,
                                     quantize,
                                     to_bf16,
                                     multiply<silu>,
                                     multiply<gelu_tanh>,
                                     multiply<gelu_erf>,
                                     rms_norm,
                                     add};
    return table;
}

}  // namespace ovfast::kernels
