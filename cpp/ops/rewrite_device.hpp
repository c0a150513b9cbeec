#pragma once

#include <cstddef>
#include <openvino/core/model.hpp>

namespace ovfast::ops {

/// Puts the operations of device_ops.hpp into a graph of standard operations: silu(gate) * up
/// becomes SwiGLU, an RMS normalization of a sum becomes AddRMSNorm. What has no known rank of 1
/// to 4, or a broadcast in it, stays. Returns how many were put in.
size_t use_device_operations(const ov::Model& model);

}  // namespace ovfast::ops
