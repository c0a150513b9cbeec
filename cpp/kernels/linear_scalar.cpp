// The reference: as plain as it can be, and what runs where nothing better does.

#include <cmath>
#include <cstring>

#include "kernels/pack.hpp"
#include "kernels/registry.hpp"

namespace ovfast::kernels {
namespace {

constexpr size_t kLanes = kBlockRows;

uint8_t code_at(const std::byte* chunk, int bits, size_t column, size_t lane) {
    const auto byte = [&](size_t vector) {
        return static_cast<unsigned>(chunk[64 * vector + 4 * lane + column % 4]);
    };
    const size_t quad = column / 4;
    if (bits == 8) return static_cast<uint8_t>(byte(quad));
    unsigned code = byte(quad / 2) >> (quad % 2 * 4) & 0x0F;
    if (bits == 5) code |= (byte(4) >> quad & 1) << 4;
    if (bits == 6) code |= (byte(4 + quad / 4) >> (quad % 4 * 2) & 3) << 4;
    return static_cast<uint8_t>(code);
}

/// [padded][16]
void unpack_codes(const PackedWeights& weights, size_t block, uint8_t* codes) {
    for (size_t k = 0; k < weights.padded(); ++k) {
        const std::byte* chunk = weights.codes(block) + k / kChunkColumns * weights.chunk_bytes();
        for (size_t lane = 0; lane < kLanes; ++lane) {
            codes[k * kLanes + lane] =
                code_at(chunk, weights.format().bits, k % kChunkColumns, lane);
        }
    }
}

float float_at(const PackedWeights& weights, size_t block, size_t column, size_t lane) {
    const std::byte* chunk = weights.codes(block) + column / kChunkColumns * weights.chunk_bytes();
    const size_t k = column % kChunkColumns;
    uint16_t bits = 0;
    std::memcpy(&bits, chunk + 64 * (k / 2) + 4 * lane + 2 * (k % 2), sizeof(bits));
    return weights.format().floats == FloatKind::F16 ? from_f16(bits) : from_bf16(bits);
}

size_t lanes_of(const PackedWeights& weights, size_t block) {
    const size_t left = weights.rows() - block * kLanes;
    return left < kLanes ? left : kLanes;
}

/// Scales and offsets [groups][16], then what a kernel unpacks.
size_t scales_bytes(const PackedWeights& weights) {
    return 2 * weights.groups() * kLanes * sizeof(float);
}

void run_int8(const LinearArgs& args) {
    const PackedWeights& weights = *args.weights;
    const Activations& in = *args.activations;
    const size_t chunks = weights.padded() / kChunkColumns;
    // Columns whose products may be added as integers: one scale of weights, one of activations.
    const size_t span = weights.group() < kChunkColumns ? weights.group() : kChunkColumns;
    auto* scales = reinterpret_cast<float*>(args.scratch);
    float* offsets = scales + weights.groups() * kLanes;
    auto* codes = reinterpret_cast<uint8_t*>(args.scratch + scales_bytes(weights));

    for (size_t block = args.first_block; block < args.last_block; ++block) {
        decode_scales(weights, block, scales, offsets);
        unpack_codes(weights, block, codes);
        for (size_t row = args.first_row; row < args.last_row; ++row) {
            const int8_t* activations = in.int8.codes + row * in.padded;
            const float* sums = span == kChunkColumns ? in.int8.sums + row * chunks
                                                      : in.int8.half_sums + row * chunks * 2;
            float totals[kLanes] = {};
            for (size_t k = 0; k < weights.columns(); k += span) {
                int32_t products[kLanes] = {};
                for (size_t i = k; i < k + span; ++i) {
                    for (size_t lane = 0; lane < kLanes; ++lane) {
                        products[lane] += int32_t{codes[i * kLanes + lane]} * activations[i];
                    }
                }
                const size_t group = k / weights.group() * kLanes;
                const float activation_scale = in.int8.scales[row * chunks + k / kChunkColumns];
                for (size_t lane = 0; lane < kLanes; ++lane) {
                    const float product = static_cast<float>(products[lane]) * activation_scale;
                    totals[lane] += scales[group + lane] * product;
                    totals[lane] += offsets[group + lane] * sums[k / span];
                }
            }
            std::memcpy(args.out + row * args.out_stride + block * kLanes, totals,
                        lanes_of(weights, block) * sizeof(float));
        }
    }
}

void run_exact(const LinearArgs& args) {
    const PackedWeights& weights = *args.weights;
    const Activations& in = *args.activations;
    const bool floats = weights.format().bits == 16;
    auto* scales = reinterpret_cast<float*>(args.scratch);
    float* offsets = scales + weights.groups() * kLanes;
    auto* values = reinterpret_cast<float*>(args.scratch + scales_bytes(weights));

    for (size_t block = args.first_block; block < args.last_block; ++block) {
        if (!floats) decode_scales(weights, block, scales, offsets);
        for (size_t k = 0; k < weights.columns(); ++k) {
            const std::byte* chunk =
                weights.codes(block) + k / kChunkColumns * weights.chunk_bytes();
            for (size_t lane = 0; lane < kLanes; ++lane) {
                const size_t group = k / weights.group() * kLanes + lane;
                values[k * kLanes + lane] =
                    floats ? float_at(weights, block, k, lane)
                           : std::fma(scales[group],
                                      static_cast<float>(code_at(chunk, weights.format().bits,
                                                                 k % kChunkColumns, lane)),
                                      offsets[group]);
            }
        }
        for (size_t row = args.first_row; row < args.last_row; ++row) {
            const float* activations = in.f32 + row * in.padded;
            double totals[kLanes] = {};
            for (size_t k = 0; k < weights.columns(); ++k) {
                for (size_t lane = 0; lane < kLanes; ++lane) {
                    totals[lane] += double{activations[k]} * double{values[k * kLanes + lane]};
                }
            }
            float* out = args.out + row * args.out_stride + block * kLanes;
            for (size_t lane = 0; lane < lanes_of(weights, block); ++lane) {
                out[lane] = static_cast<float>(totals[lane]);
            }
        }
    }
}

bool is_quantized(const WeightFormat& format) {
    return format.bits != 16;
}

bool is_anything(const WeightFormat&) {
    return true;
}

size_t int8_scratch_bytes(const PackedWeights& weights, size_t) {
    return scales_bytes(weights) + weights.padded() * kLanes;
}

size_t exact_scratch_bytes(const PackedWeights& weights, size_t) {
    return scales_bytes(weights) + weights.padded() * kLanes * sizeof(float);
}

constexpr LinearKernel kInt8{"scalar_int8", Isa::Scalar, ActivationKind::Int8, 1,
                             SIZE_MAX,      20,          is_quantized,         int8_scratch_bytes,
                             run_int8};
constexpr LinearKernel kExact{"scalar_exact", Isa::Scalar, ActivationKind::F32, 1,
                              SIZE_MAX,       10,          is_anything,         exact_scratch_bytes,
                              run_exact};

}  // namespace

const LinearKernel* const* scalar_linear_kernels() {
    static const LinearKernel* const kernels[] = {&kInt8, &kExact, nullptr};
    return kernels;
}

}  // namespace ovfast::kernels
