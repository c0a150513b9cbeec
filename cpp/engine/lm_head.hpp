#pragma once

#include <memory>
#include <openvino/core/model.hpp>

namespace ovfast {

/// Name of the input that split_lm_head() adds: i64 [rows], which tokens' logits are wanted.
inline constexpr const char* kLogitRows = "ovfast_logit_rows";

/// Names of inputs of the lm_head's own model when it is an ops::LMHead: which logits are wanted,
/// and which do not count (ops/lm_head.hpp).
inline constexpr const char* kTopK = "ovfast_top_k";
inline constexpr const char* kNotCounted = "ovfast_not_counted";

/// Makes a paged model stop before its lm_head, and returns the lm_head as a model of its own.
///
/// A prompt of T tokens needs one row of logits, not T; with a vocabulary of 150,000 the other rows
/// are the largest multiplication of the model and 600 KB each. Afterwards `model` returns the
/// hidden state of the chosen tokens, f32 [rows, hidden], and the lm_head turns it into logits,
/// f32 [rows, vocabulary]. Apart, the lm_head can run in another precision than the layers, and not
/// at all for a chunk of a prompt that samples nothing.
///
/// The lm_head is a MatMul or a FullyConnected on packed weights, which may have the last norm in
/// it. The path from the output back to it must be understood: elementwise operations with
/// constants and reshapes. Otherwise returns nothing, and `model` itself returns the logits of the
/// chosen tokens, which saves nothing but is always right. Throws ModelError when the model's
/// output is no logits tensor.
std::shared_ptr<ov::Model> split_lm_head(const std::shared_ptr<ov::Model>& model);

}  // namespace ovfast
