#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cpu_features.hpp"

namespace ovfast::kernels {

/// Work on values that are read once and written once, whose limit is memory: one table an
/// instruction set. One call is the work of one thread.
struct StreamKernels {
    const char* name;
    Isa isa;
    /// out[i] = silu(alpha * gate[i]) * up[i]. Relative error of the silu below 1e-6. May alias.
    /// `past_cache`: write around the caches, which saves reading what is overwritten.
    void (*swiglu)(const float* gate, const float* up, float alpha, size_t count, bool past_cache,
                   float* out);
    /// One row: sum[i] = x[i] + residual[i]; out[i] = sum[i] * gamma[i] / sqrt(mean(sum^2) +
    /// epsilon). No aliases.
    void (*add_rms_norm)(const float* x, const float* residual, const float* gamma, float epsilon,
                         size_t count, bool past_cache, float* out, float* sum);
    /// sum over k of x[k] * (code[k] - zero_point) * scales[k / group] for one row of 4-bit codes,
    /// two a byte, the even column in the low bits. `split` holds x with each 32 values as the 16
    /// even ones and then the 16 odd ones (split_columns). columns and group: multiples of 32.
    float (*int4_dot)(const uint8_t* codes, const float* split, const float* scales, size_t columns,
                      size_t group, float zero_point);
    void (*widen_f16)(const uint16_t* in, size_t count, float* out);
    void (*narrow_f16)(const float* in, size_t count, uint16_t* out);  ///< to nearest even
};

/// The table of the best allowed instruction set.
const StreamKernels& stream_kernels();
/// Every table that this machine can run: for tests.
std::vector<const StreamKernels*> all_stream_kernels();

/// x as int4_dot wants it; columns: a multiple of 32.
void split_columns(const float* x, size_t columns, float* split);

}  // namespace ovfast::kernels
