#include "kernels/peak_rate.hpp"

#include <immintrin.h>

#include "kernels/cpu_features.hpp"

// Latency times ports is 10 on all processors so far: more chains than that wait for nothing. As
// intrinsics, the instructions would come with moves that halve the rate.
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define AVX2 __attribute__((target("avx2,fma")))

namespace ovfast::kernels {

PeakLoop amx_peak_loop();  // peak_rate_amx.cpp

namespace {

constexpr int kWideChains = 20;    // of 32 registers
constexpr int kNarrowChains = 12;  // of 16

// Numbers as kernels have them: they decide the power, it the clock.
constexpr int kUnsigned = 0x0B050E02;
constexpr int kSigned = 0x5B15D3A0;

AVX512 void vnni_wide(int64_t iterations) {
    __m512i chains[kWideChains];
#pragma GCC unroll 20
    for (__m512i& chain : chains) chain = _mm512_setzero_si512();
    const __m512i a = _mm512_set1_epi32(kUnsigned);
    const __m512i b = _mm512_set1_epi32(kSigned);
    for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 20
        for (__m512i& chain : chains) {
            asm volatile("vpdpbusd %2, %1, %0" : "+v"(chain) : "v"(a), "v"(b));
        }
    }
}

AVX2 void vnni_narrow(int64_t iterations) {
    __m256i chains[kNarrowChains];
#pragma GCC unroll 12
    for (__m256i& chain : chains) chain = _mm256_setzero_si256();
    const __m256i a = _mm256_set1_epi32(kUnsigned);
    const __m256i b = _mm256_set1_epi32(kSigned);
    for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
        for (__m256i& chain : chains) {
            asm volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(chain) : "x"(a), "x"(b));
        }
    }
}

AVX2 void int8_avx2(int64_t iterations) {
    __m256i chains[kNarrowChains];
#pragma GCC unroll 12
    for (__m256i& chain : chains) chain = _mm256_setzero_si256();
    const __m256i a = _mm256_set1_epi32(kUnsigned);
    const __m256i b = _mm256_set1_epi32(kSigned);
    const __m256i ones = _mm256_set1_epi16(1);
    for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
        for (__m256i& chain : chains) {
            __m256i products;
            asm volatile("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"
                         : "+x"(chain), "=&x"(products)
                         : "x"(a), "x"(b), "x"(ones));
        }
    }
}

AVX512 void fma_wide(int64_t iterations) {
    __m512 chains[kWideChains];
#pragma GCC unroll 20
    for (__m512& chain : chains) chain = _mm512_setzero_ps();
    const __m512 a = _mm512_set1_ps(0.75F);
    const __m512 b = _mm512_set1_ps(0.011F);
    for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 20
        for (__m512& chain : chains) {
            asm volatile("vfmadd231ps %2, %1, %0" : "+v"(chain) : "v"(a), "v"(b));
        }
    }
}

AVX2 void fma_narrow(int64_t iterations) {
    __m256 chains[kNarrowChains];
#pragma GCC unroll 12
    for (__m256& chain : chains) chain = _mm256_setzero_ps();
    const __m256 a = _mm256_set1_ps(0.75F);
    const __m256 b = _mm256_set1_ps(0.011F);
    for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
        for (__m256& chain : chains) {
            asm volatile("vfmadd231ps %2, %1, %0" : "+x"(chain) : "x"(a), "x"(b));
        }
    }
}

}  // namespace

std::optional<PeakLoop> int8_peak_loop() {
    if (supported(Isa::Avx512Vnni)) {
        return PeakLoop{"vpdpbusd zmm", 2.0 * 64 * kWideChains, vnni_wide};
    }
    if (supported(Isa::AvxVnni)) {
        return PeakLoop{"vpdpbusd ymm", 2.0 * 32 * kNarrowChains, vnni_narrow};
    }
    if (supported(Isa::Avx2)) {
        return PeakLoop{"vpmaddubsw ymm", 2.0 * 32 * kNarrowChains, int8_avx2};
    }
    return std::nullopt;
}

std::optional<PeakLoop> int8_tile_peak_loop() {
    if (!supported(Isa::Amx)) return std::nullopt;
    return amx_peak_loop();
}

std::optional<PeakLoop> f32_peak_loop() {
    if (supported(Isa::Avx512Vnni)) {
        return PeakLoop{"vfmadd231ps zmm", 2.0 * 16 * kWideChains, fma_wide};
    }
    if (supported(Isa::Avx2)) {
        return PeakLoop{"vfmadd231ps ymm", 2.0 * 8 * kNarrowChains, fma_narrow};
    }
    return std::nullopt;
}

}  // namespace ovfast::kernels
