#pragma once

#include <cstddef>

#include "kernels/linear.hpp"

namespace ovfast::ops {

/// How much of a multiplication a thread takes at a time. What is fastest depends on caches, cores
/// and what else they do; no result depends on it.
struct Tiles {
    size_t bytes = 64 * 1024;  ///< of weights, while rows of activations are few
    size_t columns = 512;      ///< of the result, while they are many; rounded up to 64
};

/// How linear layers are computed.
struct LinearMode {
    // Implicit: a precision alone is the usual mode.
    LinearMode(kernels::ActivationPrecision precision_ = kernels::ActivationPrecision::Int8,
               const Tiles& tiles_ = {})
        : precision(precision_), tiles(tiles_) {}

    kernels::ActivationPrecision precision;
    Tiles tiles;
};

}  // namespace ovfast::ops
