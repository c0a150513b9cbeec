#pragma once

#include <vector>

#include "kernels/packed_weights.hpp"

namespace ovfast::kernels {

/// An 8-bit matrix in two 4-bit halves, for products of which only the largest few entries matter.
///
/// With code = 16 high + low and an offset of -zero scale (128 when symmetric), a weight is
///   [16 scale * high - (zero - 8) scale]  +  [scale * low - 8 scale]
/// The first half alone gives an entry up to the second half's share, which is bounded for row n
/// and activations x by Cauchy's and Schwarz's inequality in any metric m > 0:
///   |sum_k low_nk x_k| <= sqrt(sum_k (low_nk m_k)^2) * sqrt(sum_k (x_k / m_k)^2) = bound_n *
///   size(x)
/// An entry whose upper bound is below the k-th largest lower bound is not among the k largest:
/// only the others need the second half.

/// Whether split() takes it: 8 bits, symmetric or with zero points, F16 or F32 scales.
bool can_split(const WeightFormat& format);

/// Formats of the halves of such a matrix.
WeightFormat high_half(const WeightFormat& format);
WeightFormat low_half(const WeightFormat& format);

/// Metric that makes bounds tight for activations that an RMS normalization with `gamma` [columns]
/// gives: they vary as gamma does, and sqrt(|gamma|) shares that out between both factors. All of
/// it is positive.
std::vector<float> screening_metric(const float* gamma, size_t columns);

/// Writes packed_bytes() of each half, and `bounds` [rows] in the metric (null: all ones). Throws
/// std::invalid_argument for a format that cannot be split, or with a scale that has no 16-fold.
void split(const PackedWeights& weights, const float* metric, void* high, void* low, float* bounds);

}  // namespace ovfast::kernels
