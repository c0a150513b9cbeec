// The reference: one value at a time, sums and functions in double.

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/pack.hpp"
#include "kernels/registry.hpp"

namespace ovfast::kernels {
namespace {

constexpr size_t kGroup = 32;

void quantize(const float* in, size_t columns, size_t group, int8_t* codes, float* scales,
              float* sums, float* half_sums) {
    const size_t groups = (columns + kGroup - 1) / kGroup;
    float max = 0.0F;
    bool finite = true;
    for (size_t g = 0; g < groups; ++g) {
        const size_t first = g * kGroup;
        const size_t last = std::min(first + kGroup, columns);
        if (first % group == 0) {
            max = 0.0F;
            finite = true;
            for (size_t k = first; k < std::min(first + group, columns); ++k) {
                finite = finite && std::isfinite(in[k]);
                max = std::max(max, std::fabs(in[k]));
            }
        }
        std::fill_n(codes + first, kGroup, int8_t{0});
        float scale = finite ? 0.0F : std::numeric_limits<float>::quiet_NaN();
        int half_codes[2] = {};
        if (finite && max >= 0x1p-100F) {
            scale = max / 127.0F;
            const float inverse = 127.0F / max;
            for (size_t k = first; k < last; ++k) {
                const auto code = static_cast<int>(std::nearbyint(in[k] * inverse));
                codes[k] = static_cast<int8_t>(code);
                half_codes[(k - first) / 16] += code;
            }
        }
        scales[g] = scale;
        sums[g] = scale * static_cast<float>(half_codes[0] + half_codes[1]);
        half_sums[2 * g] = scale * static_cast<float>(half_codes[0]);
        half_sums[2 * g + 1] = scale * static_cast<float>(half_codes[1]);
    }
}

void row_to_bf16(const float* in, size_t columns, uint16_t* out) {
    const size_t padded = (columns + kGroup - 1) / kGroup * kGroup;
    for (size_t k = 0; k < padded; ++k) out[k] = k < columns ? to_bf16(in[k]) : uint16_t{0};
}

double silu(double x) {
    return x / (1.0 + std::exp(-x));
}

double gelu_tanh(double x) {
    constexpr double kRootOf2OverPi = 0.79788456080286535588;
    // 0.5 x (1 + tanh(u)) without the cancellation at large negative u.
    return x / (1.0 + std::exp(-2.0 * kRootOf2OverPi * (x + 0.044715 * x * x * x)));
}

double gelu_erf(double x) {
    constexpr double kRootOfHalf = 0.70710678118654752440;
    return 0.5 * x * std::erfc(-x * kRootOfHalf);
}

template <double (*Function)(double)>
void multiply(const float* gate, const float* up, float* out, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        out[i] = static_cast<float>(Function(double{gate[i]})) * up[i];
    }
}

void rms_norm(const float* in, const float* gamma, float epsilon, size_t count, float* out) {
    double squares = 0.0;
    for (size_t i = 0; i < count; ++i) squares += double{in[i]} * double{in[i]};
    const double factor = 1.0 / std::sqrt(squares / static_cast<double>(count) + double{epsilon});
    for (size_t i = 0; i < count; ++i) {
        out[i] = static_cast<float>(double{in[i]} * factor * double{gamma[i]});
    }
}

void add(const float* in, float* out, size_t count) {
    for (size_t i = 0; i < count; ++i) out[i] += in[i];
}

}  // namespace

const VectorKernels& scalar_vector_kernels() {
    static const VectorKernels table{"scalar",           Isa::Scalar,    quantize,
                                     row_to_bf16,        multiply<silu>, multiply<gelu_tanh>,
                                     multiply<gelu_erf>, rms_norm,       add};
    return table;
}

}  // namespace ovfast::kernels
