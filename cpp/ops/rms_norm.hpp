#pragma once

#include <openvino/core/node_output.hpp>
#include <optional>
#include <vector>

namespace ovfast::ops {

/// x * gamma / sqrt(mean(x^2) + epsilon) over the last dimension.
struct RmsNorm {
    std::vector<float> gamma;  ///< [columns]; empty: no normalization
    float epsilon = 0.0F;
};

struct FoundNorm : RmsNorm {
    ov::Output<ov::Node> x;  ///< what is normalized
};

/// The normalization that gives `output`, in any of the spellings of frontends.
std::optional<FoundNorm> find_rms_norm(const ov::Output<ov::Node>& output);

}  // namespace ovfast::ops
