#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "kernels/activations.hpp"
#include "kernels/cpu_features.hpp"
#include "kernels/packed_weights.hpp"

namespace ovfast::kernels {

/// out[m][n] = sum over k of activation[m][k] * weight[n][k], for some rows m and row blocks of n.
/// One call is the work of one thread; calls with disjoint blocks or rows may run at once.
struct LinearArgs {
    const PackedWeights* weights = nullptr;
    const Activations* activations = nullptr;
    size_t first_row = 0, last_row = 0;      ///< of the activations
    size_t first_block = 0, last_block = 0;  ///< of the weights, 16 output columns each
    float* out = nullptr;  ///< row 0, column 0; only asked-for columns < weights.rows() are written
    size_t out_stride = 0;         ///< floats from row to row
    std::byte* scratch = nullptr;  ///< scratch_bytes(), aligned to 64, this thread's own
};

/// One implementation. Integer kernels add whole groups in int32 (exact) and groups in f32.
struct LinearKernel {
    const char* name;  ///< "avx512_vnni_int8_few_rows"
    Isa isa;
    ActivationKind activations;
    size_t min_rows, max_rows;  ///< of activations in one call
    /// Higher wins among kernels that support format and rows.
    int preference;
    bool (*supports)(const WeightFormat& format);
    size_t (*scratch_bytes)(const PackedWeights& weights, size_t rows);
    void (*run)(const LinearArgs& args);
};

/// What the caller allows: Int8 lets a kernel quantize or round activations (int8, bf16), Exact
/// wants f32 activations times exact weights. Int8Group128 is Int8 with one scale for 128 columns
/// instead of 32: less precise, and faster where rows are many and weights have groups as long.
enum class ActivationPrecision { Int8, Exact, Int8Group128 };

/// Columns of activations that share a scale: Int8Activations::group.
constexpr size_t activation_group(ActivationPrecision precision) {
    return precision == ActivationPrecision::Int8Group128 ? 128 : 32;
}

/// Every kernel whose instruction set this machine supports, forced or not: for tests.
std::vector<const LinearKernel*> linear_kernels();

/// The best allowed kernel (see allowed()). There is always one: scalar ones support everything.
const LinearKernel& select_linear(const WeightFormat& format, size_t rows,
                                  ActivationPrecision precision);

/// How often each kernel ran in this process, by name: proof of the path taken. run_linear()
/// counts.
std::vector<std::pair<std::string, uint64_t>> kernel_calls();
void run_linear(const LinearKernel& kernel, const LinearArgs& args);

/// Elementwise work around the multiplications, one table an instruction set.
struct VectorKernels {
    const char* name;
    Isa isa;
    /// One row [columns] to codes [padded], scales and sums [padded/32], half_sums [padded/16], by
    /// groups of `group` columns: 32 or 128.
    void (*quantize)(const float* in, size_t columns, size_t group, int8_t* codes, float* scales,
                     float* sums, float* half_sums);
    /// One row [columns] to bf16 [padded], to nearest even.
    void (*to_bf16)(const float* in, size_t columns, uint16_t* out);
    /// out[i] = silu(gate[i]) * up[i]. Relative error of the silu below 1e-6. May alias.
    void (*silu_multiply)(const float* gate, const float* up, float* out, size_t count);
    /// The same with GELU, in tanh's approximation or with erf.
    void (*gelu_tanh_multiply)(const float* gate, const float* up, float* out, size_t count);
    void (*gelu_erf_multiply)(const float* gate, const float* up, float* out, size_t count);
    /// out[i] = in[i] * gamma[i] / sqrt(mean(in^2) + epsilon), one row. May alias.
    void (*rms_norm)(const float* in, const float* gamma, float epsilon, size_t count, float* out);
    /// out[i] += in[i].
    void (*add)(const float* in, float* out, size_t count);
};

/// The table of the best allowed instruction set.
const VectorKernels& vector_kernels();
/// Every table that this machine can run: for tests.
std::vector<const VectorKernels*> all_vector_kernels();

}  // namespace ovfast::kernels
