#include "engine/sliding_window.hpp"

#include <algorithm>
#include <limits>
#include <openvino/opsets/opset13.hpp>
#include <string>

#include "ovfast/error.hpp"

namespace ovfast {
namespace {

namespace op = ov::opset13;

constexpr size_t kMaskInput = 3;     // of ScaledDotProductAttention
constexpr size_t kWindowInput = 10;  // of PagedAttentionExtension

// The window of (key <= query) and (key >= query - (window - 1)); 0 for any other condition.
int64_t window_of(const ov::Node& condition) {
    if (!ov::is_type<op::LogicalAnd>(&condition)) return 0;
    for (const size_t first : {size_t{0}, size_t{1}}) {
        const auto causal =
            ov::as_type_ptr<op::LessEqual>(condition.get_input_node_shared_ptr(first));
        const auto recent =
            ov::as_type_ptr<op::GreaterEqual>(condition.get_input_node_shared_ptr(1 - first));
        if (!causal || !recent || causal->input_value(0) != recent->input_value(0)) continue;
        const auto oldest = ov::as_type_ptr<op::Subtract>(recent->get_input_node_shared_ptr(1));
        if (!oldest || oldest->input_value(0) != causal->input_value(1)) continue;
        const auto before = ov::as_type_ptr<op::Constant>(oldest->get_input_node_shared_ptr(1));
        if (!before || ov::shape_size(before->get_shape()) != 1) continue;
        const int64_t tokens = before->cast_vector<int64_t>().front() + 1;
        return tokens > 0 && tokens <= std::numeric_limits<int32_t>::max() ? tokens : 0;
    }
    return 0;
}

int64_t window_of_attention(const ov::Node& attention) {
    if (attention.get_input_size() <= kMaskInput) return 0;
    auto node = attention.get_input_node_shared_ptr(kMaskInput);
    while (ov::is_type<op::Convert>(node) || ov::is_type<op::Reshape>(node)) {
        node = node->get_input_node_shared_ptr(0);
    }
    return ov::is_type<op::Select>(node) ? window_of(*node->get_input_node_ptr(0)) : 0;
}

}  // namespace

std::vector<int64_t> find_sliding_windows(const ov::Model& model) {
    std::vector<int64_t> windows;
    for (const auto& node : model.get_ordered_ops()) {
        if (!ov::is_type<op::ScaledDotProductAttention>(node)) continue;
        windows.push_back(window_of_attention(*node));
    }
    return windows;
}

void set_sliding_windows(const ov::Model& model, const std::vector<int64_t>& windows) {
    if (std::all_of(windows.begin(), windows.end(), [](int64_t window) { return window == 0; })) {
        return;
    }
    size_t found = 0;
    for (const auto& node : model.get_ordered_ops()) {
        if (std::string(node->get_type_name()) != "PagedAttentionExtension") continue;
        const int64_t window = found < windows.size() ? windows[found] : 0;
        ++found;
        if (window == 0) continue;
        node->input(kWindowInput)
            .replace_source_output(op::Constant::create(ov::element::i32, {}, {window}));
    }
    if (found != windows.size()) {
        throw ModelError("the model has " + std::to_string(windows.size()) + " attentions, but " +
                         std::to_string(found) + " after they were paged");
    }
}

}  // namespace ovfast
