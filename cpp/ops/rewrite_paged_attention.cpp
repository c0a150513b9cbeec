#include <algorithm>
#include <openvino/op/constant.hpp>
#include <openvino/op/convert.hpp>
#include <openvino/op/parameter.hpp>

#include "ops/paged_attention.hpp"

namespace ovfast::ops {
namespace {

// Inputs of OpenVINO's PagedAttentionExtension.
enum Input : size_t {
    kQuery = 0,
    kKey = 1,
    kValue = 2,
    kKeyCache = 3,
    kValueCache = 4,
    kFirstTable = 5,  // past_lens, subsequence_begins, block_indices, block_indices_begins
    kScale = 9,
    kSlidingWindow = 10,
    kFirstExtra = 11  // ALiBi, rotation, sparsity, sinks, ...: tensors, empty when not used
};

const ov::op::v0::Constant* constant(const ov::Node& node, size_t index) {
    return dynamic_cast<const ov::op::v0::Constant*>(node.get_input_node_ptr(index));
}

// Scalars only say how tensors that are not there would be used.
bool is_unused(const ov::Node& node, size_t index) {
    const ov::PartialShape shape = node.get_input_partial_shape(index);
    return shape.is_static() && (shape.size() == 0 || ov::shape_size(shape.to_shape()) == 0);
}

// The rewrite to paged attention notes the sizes of heads beside the node.
size_t noted(const ov::Node& node, const char* name) {
    const auto& info = node.get_rt_info();
    const auto found = info.find(name);
    if (found == info.end()) return 0;
    return static_cast<size_t>(std::max<int64_t>(0, found->second.as<int64_t>()));
}

size_t width(const ov::Node& node, size_t index) {
    const ov::PartialShape shape = node.get_input_partial_shape(index);
    if (shape.rank().is_dynamic() || shape.size() != 2 || shape[1].is_dynamic()) return 0;
    return static_cast<size_t>(shape[1].get_length());
}

// Number N of the parameter "key_cache.N".
int64_t cache_number(const ov::Node& node) {
    for (const std::string& name : node.get_output_tensor(0).get_names()) {
        constexpr const char* prefix = "key_cache.";
        if (name.rfind(prefix, 0) == 0) return std::stoll(name.substr(std::string(prefix).size()));
    }
    return -1;
}

std::string understand(const ov::Node& node, PagedAttention::Attributes& attributes) {
    kernels::AttentionShape& shape = attributes.shape;
    if (node.get_input_size() < kFirstExtra) return "its paged attention has too few inputs";
    shape.key_size = noted(node, "k_head_size");
    shape.value_size = noted(node, "v_head_size");
    shape.kv_heads = noted(node, "num_k_heads");
    const size_t queries = width(node, kQuery);
    if (shape.key_size == 0 || shape.value_size == 0 || shape.kv_heads == 0 || queries == 0 ||
        noted(node, "num_v_heads") != shape.kv_heads || queries % shape.key_size != 0) {
        return "the sizes of its attention heads are not known";
    }
    shape.heads = queries / shape.key_size;
    if (shape.heads % shape.kv_heads != 0 || width(node, kKey) != shape.kv_heads * shape.key_size ||
        width(node, kValue) != shape.kv_heads * shape.value_size) {
        return "the sizes of its attention heads do not fit each other";
    }
    if (shape.key_size % 32 != 0 || shape.value_size % 32 != 0) {
        return "its attention heads have " + std::to_string(shape.key_size) + " and " +
               std::to_string(shape.value_size) + " channels, which are no multiples of 32";
    }
    const auto* scale = constant(node, kScale);
    const auto* window = constant(node, kSlidingWindow);
    if (scale == nullptr || window == nullptr) return "its scale or window is not constant";
    shape.scale = scale->cast_vector<float>().at(0);
    const int64_t tokens = window->cast_vector<int64_t>().at(0);
    if (tokens < 0) return "its sliding window is negative";
    shape.window = static_cast<size_t>(tokens);
    for (size_t index = kFirstExtra; index < node.get_input_size(); ++index) {
        if (!is_unused(node, index)) {
            return "its attention uses input " + std::to_string(index) +
                   " (ALiBi, sinks, rotation or sparsity)";
        }
    }
    for (size_t output = 1; output < node.get_output_size(); ++output) {
        if (!node.get_output_target_inputs(output).empty()) return "its attention scores are used";
    }
    return "";
}

ov::Output<ov::Node> as_f32(const ov::Output<ov::Node>& value) {
    if (value.get_element_type() == ov::element::f32) return value;
    return std::make_shared<ov::op::v0::Convert>(value, ov::element::f32);
}

}  // namespace

std::vector<kernels::AttentionShape> use_own_attention(const std::shared_ptr<ov::Model>& model,
                                                       std::string& reason) {
    if (!kernels::attention_supported()) {
        reason = "the processor has no AVX-512 with BF16, or it is ruled out";
        return {};
    }
    struct Found {
        std::shared_ptr<ov::Node> node;
        PagedAttention::Attributes attributes;
        int64_t cache;
    };
    std::vector<Found> found;
    for (const auto& node : model->get_ordered_ops()) {
        if (std::string(node->get_type_name()) != "PagedAttentionExtension") continue;
        Found item{node, {}, cache_number(*node->get_input_node_ptr(kKeyCache))};
        reason = understand(*node, item.attributes);
        if (reason.empty() && item.cache < 0) reason = "a key cache is shared between layers";
        if (!reason.empty()) return {};
        found.push_back(std::move(item));
    }
    std::sort(found.begin(), found.end(),
              [](const Found& a, const Found& b) { return a.cache < b.cache; });
    const auto same =
        std::adjacent_find(found.begin(), found.end(),
                           [](const Found& a, const Found& b) { return a.cache == b.cache; });
    if (found.empty() || same != found.end()) {
        reason =
            found.empty() ? "it has no paged attention" : "a key cache is shared between layers";
        return {};
    }

    const auto store =
        std::make_shared<ov::op::v0::Parameter>(ov::element::i64, ov::PartialShape{1});
    store->set_friendly_name(kKvStoreInput);
    store->get_output_tensor(0).set_names({kKvStoreInput});
    std::vector<kernels::AttentionShape> shapes;
    for (Found& item : found) {
        const auto& node = item.node;
        item.attributes.layer = shapes.size();
        shapes.push_back(item.attributes.shape);
        ov::OutputVector inputs{as_f32(node->input_value(kQuery)), as_f32(node->input_value(kKey)),
                                as_f32(node->input_value(kValue))};
        for (size_t i = 0; i < 4; ++i) inputs.push_back(node->input_value(kFirstTable + i));
        inputs.push_back(store);
        const auto attention = std::make_shared<PagedAttention>(inputs, item.attributes);
        attention->set_friendly_name(node->get_friendly_name());
        ov::Output<ov::Node> out = attention;
        if (node->get_output_element_type(0) != ov::element::f32) {
            out = std::make_shared<ov::op::v0::Convert>(out, node->get_output_element_type(0));
        }
        node->output(0).replace(out);
    }
    model->add_parameters({store});
    // The caches, and what only OpenVINO's attention wanted to know.
    found.clear();
    for (const auto& parameter : ov::ParameterVector(model->get_parameters())) {
        if (parameter->get_output_target_inputs(0).empty()) model->remove_parameter(parameter);
    }
    model->validate_nodes_and_infer_types();
    return shapes;
}

}  // namespace ovfast::ops
