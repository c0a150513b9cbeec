#include <openvino/core/rt_info.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/op/convert.hpp>
#include <openvino/op/result.hpp>
#include <openvino/opsets/opset13.hpp>

#include "ops/lm_head.hpp"
#include "ops/rewrite_passes.hpp"
#include "ovfast/error.hpp"

namespace ovfast::ops {
namespace {

// With fewer words the second half is not worth leaving out.
constexpr int64_t kManyWords = 16384;

bool keeps_values(const ov::Node& node) {
    namespace op = ov::opset13;
    return ov::is_type<op::Reshape>(&node) || ov::is_type<op::Squeeze>(&node) ||
           ov::is_type<op::Unsqueeze>(&node) || ov::is_type<op::Convert>(&node);
}

/// Embeddings from the matrix that the lm_head holds in halves read those, so that it is stored
/// once. With f16 scales their sum is the very weight: products of 11 bits with less than 9.
void embed_from_halves(const ov::op::v0::Constant& whole, const ov::Node& head) {
    const auto weights = kernels::PackedWeights::view(whole.get_data_ptr(), whole.get_byte_size());
    if (weights.format().scales != kernels::ScaleKind::F16) return;
    for (const auto& input : whole.output(0).get_target_inputs()) {
        auto* embedding = ov::as_type<Embedding>(input.get_node());
        if (embedding == nullptr) continue;
        auto attributes = embedding->attributes();
        attributes.halves = true;
        const auto halves = std::make_shared<Embedding>(
            ov::OutputVector{embedding->input_value(0), head.input_value(1), head.input_value(2)},
            attributes);
        halves->set_friendly_name(embedding->get_friendly_name());
        ov::copy_runtime_info(embedding->shared_from_this(), halves);
        replace_output(embedding->output(0), halves->output(0));
    }
}

}  // namespace

void split_lm_heads(const ov::Model& model, const RewriteOptions& options) {
    for (const auto& result : model.get_results()) {
        auto node = result->get_input_node_shared_ptr(0);
        while (keeps_values(*node)) node = node->get_input_node_shared_ptr(0);
        const auto layer = ov::as_type_ptr<FullyConnected>(node);
        if (!layer || layer->attributes().rows < kManyWords) continue;
        if (options.progress && !options.progress(1.0, layer->get_friendly_name())) {
            throw Error("packing was cancelled");
        }
        if (const auto head = split_to_lm_head(*layer)) {
            ov::copy_runtime_info(layer, head);
            replace_output(layer->output(0), head->output(0));
            embed_from_halves(*ov::as_type<ov::op::v0::Constant>(layer->get_input_node_ptr(1)),
                              *head);
        }
    }
}

}  // namespace ovfast::ops
