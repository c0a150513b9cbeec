// The reference: one value at a time, sums and functions in double. And the choice of a table.

#include <cmath>

#include "kernels/pack.hpp"
#include "kernels/registry.hpp"

namespace ovfast::kernels {
namespace {

void swiglu(const float* gate, const float* up, float alpha, size_t count, bool, float* out) {
    for (size_t i = 0; i < count; ++i) {
        const double x = double{alpha * gate[i]};  // in f32, as the other tables
        out[i] = static_cast<float>(x / (1.0 + std::exp(-x))) * up[i];
    }
}

void add_rms_norm(const float* x, const float* residual, const float* gamma, float epsilon,
                  size_t count, bool, float* out, float* sum) {
    double squares = 0.0;
    for (size_t i = 0; i < count; ++i) {
        sum[i] = x[i] + residual[i];
        squares += double{sum[i]} * double{sum[i]};
    }
    const double factor = 1.0 / std::sqrt(squares / static_cast<double>(count) + double{epsilon});
    for (size_t i = 0; i < count; ++i) {
        out[i] = static_cast<float>(double{sum[i]} * factor * double{gamma[i]});
    }
}

float int4_dot(const uint8_t* codes, const float* split, const float* scales, size_t columns,
               size_t group, float zero_point) {
    double total = 0.0;
    for (size_t first = 0; first < columns; first += group) {
        double sum = 0.0;
        for (size_t k = first; k < first + group; ++k) {
            const size_t block = k / 32 * 32;
            const size_t place = k % 32;
            const float x = split[block + place / 2 + (place % 2 != 0 ? 16 : 0)];
            const int code = place % 2 != 0 ? codes[k / 2] >> 4 : codes[k / 2] & 15;
            sum += double{x} * (double(code) - double{zero_point});
        }
        total += sum * double{scales[first / group]};
    }
    return static_cast<float>(total);
}

void widen(const uint16_t* in, size_t count, float* out) {
    for (size_t i = 0; i < count; ++i) out[i] = from_f16(in[i]);
}

void narrow(const float* in, size_t count, uint16_t* out) {
    for (size_t i = 0; i < count; ++i) out[i] = to_f16(in[i]);
}

constexpr auto kTables = {scalar_stream_kernels, avx2_stream_kernels, avx512_stream_kernels};

}  // namespace

const StreamKernels& scalar_stream_kernels() {
    static const StreamKernels table{"scalar", Isa::Scalar, swiglu, add_rms_norm,
                                     int4_dot, widen,       narrow};
    return table;
}

std::vector<const StreamKernels*> all_stream_kernels() {
    std::vector<const StreamKernels*> tables;
    for (const auto get : kTables) {
        if (supported(get().isa)) tables.push_back(&get());
    }
    return tables;
}

const StreamKernels& stream_kernels() {
    const StreamKernels* best = nullptr;
    for (const auto get : kTables) {
        // AVX-VNNI has nothing of its own here: AVX2's table serves it.
        const bool stands_in = get().isa == Isa::Avx2 && forced_isa() == Isa::AvxVnni;
        if (allowed(get().isa) || stands_in) best = &get();
    }
    return *best;
}

void split_columns(const float* x, size_t columns, float* split) {
    for (size_t block = 0; block < columns; block += 32) {
        for (size_t i = 0; i < 16; ++i) {
            split[block + i] = x[block + 2 * i];
            split[block + 16 + i] = x[block + 2 * i + 1];
        }
    }
}

}  // namespace ovfast::kernels
