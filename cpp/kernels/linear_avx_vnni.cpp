// Integer kernels for processors that have vpdpbusd without AVX-512.

#include <immintrin.h>

namespace ovfast::kernels {
namespace {

struct Dot {
    static constexpr int kTileRows = 6;  // 12 sums, 2 registers of codes, a quad, a mask

    // vpdpbusd takes unsigned codes of 8 bits and does not saturate.
    static constexpr bool centred(int) { return false; }
    static constexpr int panel_bits(int) { return 8; }

    template <int>
    static __m256i add(__m256i sums, __m256i w0, __m256i a0, __m256i w1, __m256i a1) {
        return _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(sums, w0, a0), w1, a1);
    }

    template <int>
    static __m256i total(__m256i sums) {
        return sums;
    }
};

}  // namespace
}  // namespace ovfast::kernels

#include "kernels/linear_ymm_inl.hpp"

namespace ovfast::kernels {
namespace {

constexpr LinearKernel kFew{"avx_vnni_int8_few_rows",
                            Isa::AvxVnni,
                            ActivationKind::Int8,
                            1,
                            Dot::kTileRows,
                            80,
                            is_quantized,
                            few_scratch_bytes,
                            run<false>};
constexpr LinearKernel kMany{"avx_vnni_int8_many_rows",
                             Isa::AvxVnni,
                             ActivationKind::Int8,
                             Dot::kTileRows + 1,
                             SIZE_MAX,
                             80,
                             is_quantized,
                             many_scratch_bytes,
                             run<true>};

}  // namespace

const LinearKernel* const* avx_vnni_linear_kernels() {
    static const LinearKernel* const kernels[] = {&kFew, &kMany, nullptr};
    return kernels;
}

}  // namespace ovfast::kernels
