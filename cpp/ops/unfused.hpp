#pragma once

#include <memory>
#include <openvino/core/model.hpp>

namespace ovfast::ops {

/// Replaces every operation of ours by standard ones with f32 weights: the oracle of the fused
/// operations, and the way out for a device or program that lacks them. Returns how many were
/// replaced.
size_t unfuse(const std::shared_ptr<ov::Model>& model);

}  // namespace ovfast::ops
