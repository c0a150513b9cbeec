#pragma once

#include <memory>
#include <openvino/core/model.hpp>

namespace ovfast {

/// Name of the input that LmHeadRows adds: i64 [rows], which tokens' logits are wanted.
inline constexpr const char* kLogitRows = "ovfast_logit_rows";

/// Makes a paged model compute logits only for chosen tokens: output f32 [rows, vocabulary].
///
/// A prompt of T tokens needs one row of logits, not T; with a vocabulary of 150,000 the other rows
/// are the largest multiplication of the model and 600 KB each. The rows are gathered before the
/// lm_head's MatMul where the path from there to the output is understood (elementwise operations
/// with constants, reshapes), otherwise after it, which saves nothing but is always right.
///
/// Returns whether the rows were gathered before the MatMul. Throws ModelError when the model's
/// output is no logits tensor.
bool select_lm_head_rows(const std::shared_ptr<ov::Model>& model);

}  // namespace ovfast
