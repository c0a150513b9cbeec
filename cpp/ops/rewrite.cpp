#include "ops/rewrite.hpp"

#include <algorithm>
#include <unordered_set>

#include "ops/rewrite_passes.hpp"

namespace ovfast::ops {
namespace {

using ov::op::v0::Constant;

/// What an operation of ours became, with the bytes of weights that no layer has yet.
RewrittenLayer describe(const PackedOp& op, const Packer& packer,
                        std::unordered_set<const ov::Node*>& counted) {
    RewrittenLayer layer;
    layer.name = op.get_friendly_name();
    layer.operation = op.get_type_name();
    for (size_t i = 0; i < op.get_input_size(); ++i) {
        const auto* constant = ov::as_type<const Constant>(op.get_input_node_ptr(i));
        if (!constant || constant->get_element_type() != ov::element::u8) continue;
        const auto weights =
            kernels::PackedWeights::view(constant->get_data_ptr(), constant->get_byte_size());
        layer.format += (layer.format.empty() ? "" : ", ") + weights.format().text();
        if (!counted.insert(constant).second) continue;
        layer.packed_bytes += weights.bytes();
        const uint64_t source = packer.source_bytes(constant);
        layer.source_bytes += source == 0 ? weights.bytes() : source;
    }
    return layer;
}

}  // namespace

void replace_output(ov::Output<ov::Node> old_output, const ov::Output<ov::Node>& output) {
    old_output.replace(output);
}

ov::Node* only_consumer(const ov::Output<ov::Node>& output) {
    const auto inputs = output.get_target_inputs();
    return inputs.size() == 1 ? inputs.begin()->get_node() : nullptr;
}

ov::Output<ov::Node> other_input(const ov::Node& node, const ov::Output<ov::Node>& output) {
    return node.input_value(node.input_value(0) == output ? 1 : 0);
}

std::vector<RewrittenLayer> rewrite_to_packed(const std::shared_ptr<ov::Model>& model,
                                              const RewriteOptions& options) {
    Packer packer(options, weight_bytes(*model));
    // The largest matrices last and one after the other: the sources of all others are gone then,
    // and the peak of memory stays below that of the source's own conversion.
    std::vector<RewrittenLayer> left = rewrite_layers(*model, packer, false);
    for (auto& layer : rewrite_embeddings(*model, packer)) left.push_back(std::move(layer));
    for (auto& layer : rewrite_layers(*model, packer, true)) left.push_back(std::move(layer));
    fuse_gated_mlps(*model);
    fuse_qkv(*model);
    fold_residuals(*model);
    fold_norms(*model);
    if (options.split_lm_head) split_lm_heads(*model, options);
    model->validate_nodes_and_infer_types();

    std::vector<std::shared_ptr<PackedOp>> ops;
    for (const auto& node : model->get_ordered_ops())
        if (auto op = std::dynamic_pointer_cast<PackedOp>(node)) ops.push_back(std::move(op));
    std::vector<RewrittenLayer> layers(ops.size());
    std::unordered_set<const ov::Node*> counted;
    // A matrix belongs to who multiplies by all of it, not to an embedding that takes rows of it.
    for (const bool embeddings : {false, true})
        for (size_t i = 0; i < ops.size(); ++i)
            if (ov::is_type<Embedding>(ops[i]) == embeddings)
                layers[i] = describe(*ops[i], packer, counted);
    layers.insert(layers.end(), left.begin(), left.end());
    return layers;
}

}  // namespace ovfast::ops
