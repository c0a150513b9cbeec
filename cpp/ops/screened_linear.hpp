#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/split.hpp"
#include "ops/parallel_linear.hpp"

namespace ovfast::ops {

/// x W^T of a matrix in halves (kernels/split.hpp). Few rows and 0 < top_k: the entries that are
/// not surely below the top_k-th largest of those that count in their row are right, and those
/// beside them; all others are -infinity. Otherwise all are right.
struct ScreenedJob {
    const kernels::PackedWeights* high = nullptr;
    const kernels::PackedWeights* low = nullptr;
    const float* bounds = nullptr;
    const float* metric = nullptr;  ///< [columns], null for all ones
    size_t top_k = 0;
    size_t counted = SIZE_MAX;  ///< entries of a row, from the first, that compete for the top_k
    /// Entries, as row * high->rows() + entry, that do not. May be null.
    const std::vector<int64_t>* not_counted = nullptr;
    float* out = nullptr;  ///< [rows][high->rows()]
};

/// Returns the number of entries that both halves were multiplied for.
size_t run_screened_linear(const float* x, size_t rows, size_t columns, const InputNorm& norm,
                           const ScreenedJob& job, const LinearMode& mode);

}  // namespace ovfast::ops
