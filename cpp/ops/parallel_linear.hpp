#pragma once

#include <cstddef>
#include <vector>

#include "ops/linear_mode.hpp"

namespace ovfast::ops {

/// One multiplication of several that share their activations.
struct LinearJob {
    const kernels::PackedWeights* weights = nullptr;
    const float* bias = nullptr;      ///< [weights.rows()] or null
    const float* residual = nullptr;  ///< [rows][residual_stride] or null; added; not `out`
    size_t residual_stride = 0;
    float* out = nullptr;  ///< [rows][out_stride]
    size_t out_stride = 0;
};

/// RMS normalization of the activations before they are used; null gamma: none.
struct InputNorm {
    const float* gamma = nullptr;
    float epsilon = 0.0F;
};

/// Runs all jobs on x [rows][columns] in the calling thread's TBB arena: activations are normalized
/// and quantized once for each kind that a chosen kernel wants, then row blocks of all jobs are
/// handed out in pieces that even out unequal threads. Memory comes from a workspace of the calling
/// thread, which only grows.
void run_linear_jobs(const float* x, size_t rows, size_t columns, const InputNorm& norm,
                     const LinearJob* jobs, size_t job_count, const LinearMode& mode);

/// down(multiply(gate(x), up(x))) (+ residual), the weights of a GatedMLP.
struct GatedMlpJob {
    const kernels::PackedWeights* gate = nullptr;  ///< [I, columns]
    const kernels::PackedWeights* up = nullptr;    ///< [I, columns]
    const kernels::PackedWeights* down = nullptr;  ///< [N, I]
    /// One of kernels::VectorKernels' products of an activated gate and up.
    void (*multiply)(const float* gate, const float* up, float* out, size_t count) = nullptr;
    const float* residual = nullptr;  ///< [rows][N] or null; not `out`
    float* out = nullptr;             ///< [rows][N]
};

/// Runs it as run_linear_jobs() does. A thread that computed some columns of gate and up multiplies
/// them while they are in its cache; many rows are worked on in pieces, so that the intermediate
/// result stays in the caches that the cores share.
void run_gated_mlp(const float* x, size_t rows, size_t columns, const InputNorm& norm,
                   const GatedMlpJob& job, const LinearMode& mode);

}  // namespace ovfast::ops
