#pragma once

#include <memory>
#include <openvino/core/model.hpp>
#include <vector>

#include "ops/packed_ops.hpp"
#include "ops/rewrite_packer.hpp"

// The steps of rewrite_to_packed(), in their order. Each works on what the ones before left.
namespace ovfast::ops {

/// Bytes of all constants that the layers below would pack.
uint64_t weight_bytes(const ov::Model& model);

/// MatMul with constant weights (and a bias) -> FullyConnected. Rows that the graph takes apart
/// again (merged QKV, merged gate and up) become one FullyConnected each. Either those of `large`
/// matrices (an lm_head) or all others. Returns what it left.
std::vector<RewrittenLayer> rewrite_layers(const ov::Model& model, Packer& packer, bool large);

/// Gather from a constant matrix -> Embedding. Returns what it left.
std::vector<RewrittenLayer> rewrite_embeddings(const ov::Model& model, Packer& packer);

/// down(activation(gate(x)) * up(x)) of FullyConnected -> GatedMLP.
void fuse_gated_mlps(const ov::Model& model);

/// The three FullyConnected that read one value -> QKV.
void fuse_qkv(const ov::Model& model);

/// FullyConnected or GatedMLP + value of the same shape -> its residual.
void fold_residuals(const ov::Model& model);

/// RMS normalization that only our operations read -> their gamma.
void fold_norms(const ov::Model& model);

/// The FullyConnected that gives the logits -> LMHead, when it is large and its weights can be
/// split. Reports progress, so that sources that are no longer needed are let go before.
void split_lm_heads(const ov::Model& model, const RewriteOptions& options);

/// activation(input), in any of the spellings of frontends.
struct Activated {
    Gate gate = Gate::Silu;
    ov::Output<ov::Node> input;
    size_t readers = 1;  ///< that the input has in this spelling
};
std::optional<Activated> find_activation(const ov::Output<ov::Node>& output);

/// The consumers of `old_output` read `output` instead, which gets its tensor names.
void replace_output(ov::Output<ov::Node> old_output, const ov::Output<ov::Node>& output);

/// The node that alone reads `output`, or null.
ov::Node* only_consumer(const ov::Output<ov::Node>& output);

/// The input of a two-operand node that is not `output`.
ov::Output<ov::Node> other_input(const ov::Node& node, const ov::Output<ov::Node>& output);

}  // namespace ovfast::ops
