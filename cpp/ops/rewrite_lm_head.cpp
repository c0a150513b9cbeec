#include <openvino/core/rt_info.hpp>
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
        }
    }
}

}  // namespace ovfast::ops
