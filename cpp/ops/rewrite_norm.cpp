#include <cmath>
#include <openvino/op/add.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/op/divide.hpp>
#include <openvino/op/multiply.hpp>
#include <openvino/op/power.hpp>
#include <openvino/op/reduce_mean.hpp>
#include <openvino/op/shape_of.hpp>
#include <openvino/op/sqrt.hpp>

#include "ops/rewrite_passes.hpp"
#include "ops/rms_norm.hpp"

namespace ovfast::ops {
namespace {

using ov::op::v0::Constant;
using Output = ov::Output<ov::Node>;

/// A layer of ours, taken apart to be made anew with one input more.
struct Layer {
    std::shared_ptr<ov::Node> node;
    size_t weights = 1;  ///< inputs 1 .. weights are packed
    bool norm = false;
    bool residual = false;
};

std::optional<Layer> layer_of(const std::shared_ptr<ov::Node>& node) {
    if (const auto full = ov::as_type_ptr<FullyConnected>(node))
        return Layer{node, 1, full->attributes().norm, full->attributes().residual};
    if (const auto mlp = ov::as_type_ptr<GatedMLP>(node))
        return Layer{node, 3, mlp->attributes().norm, mlp->attributes().residual};
    if (const auto qkv = ov::as_type_ptr<QKV>(node)) return Layer{node, 3, qkv->attributes().norm};
    return std::nullopt;
}

template <typename T, typename Change>
std::shared_ptr<ov::Node> remade(const T& old, const ov::OutputVector& inputs,
                                 const Change& change) {
    auto attributes = old.attributes();
    change(attributes);
    const auto node = std::make_shared<T>(inputs, attributes);
    node->set_mode(old.mode());
    return node;
}

void replace_layer(const std::shared_ptr<ov::Node>& old, const std::shared_ptr<ov::Node>& layer) {
    layer->set_friendly_name(old->get_friendly_name());
    for (size_t i = 0; i < layer->get_output_size(); ++i)
        replace_output(old->output(i), layer->output(i));
}

void set_norm(const Layer& layer, const Output& x, const Output& gamma, float epsilon) {
    ov::OutputVector inputs = layer.node->input_values();
    inputs[0] = x;
    inputs.insert(inputs.begin() + static_cast<std::ptrdiff_t>(1 + layer.weights), gamma);
    const auto change = [&](auto& attributes) {
        attributes.norm = true;
        attributes.epsilon = epsilon;
    };
    std::shared_ptr<ov::Node> node;
    if (const auto full = ov::as_type_ptr<FullyConnected>(layer.node))
        node = remade(*full, inputs, change);
    else if (const auto mlp = ov::as_type_ptr<GatedMLP>(layer.node))
        node = remade(*mlp, inputs, change);
    else
        node = remade(*ov::as_type_ptr<QKV>(layer.node), inputs, change);
    replace_layer(layer.node, node);
}

/// Whether two shapes are the same as far as is known: an addition that broadcasts must stay one.
bool same_shape(const ov::PartialShape& a, const ov::PartialShape& b) {
    if (a.rank().is_dynamic() || b.rank().is_dynamic() || a.size() != b.size()) return false;
    for (size_t i = 0; i < a.size(); ++i)
        if (a[i].is_static() ? a[i] != b[i] : b[i].is_static()) return false;
    return true;
}

/// The operand of a commutative node beside a constant of one number, and that number.
std::optional<std::pair<Output, float>> beside_number(const ov::Node& node) {
    for (const size_t side : {0, 1}) {
        if (const auto number = constant_number(node.input_value(side)))
            return std::pair{node.input_value(1 - side), *number};
    }
    return std::nullopt;
}

/// mean(x^2) over the last dimension -> x.
std::optional<Output> mean_of_squares(const Output& output) {
    const auto* mean = ov::as_type<ov::op::v1::ReduceMean>(output.get_node());
    if (!mean || !mean->get_keep_dims()) return std::nullopt;
    const auto axes = ov::as_type_ptr<Constant>(mean->get_input_node_shared_ptr(1));
    const auto rank = mean->get_input_partial_shape(0).rank();
    if (!axes || rank.is_dynamic() || ov::shape_size(axes->get_shape()) != 1) return std::nullopt;
    const int64_t axis = axes->cast_vector<int64_t>()[0];
    if (axis != -1 && axis != rank.get_length() - 1) return std::nullopt;
    const auto* square = mean->get_input_node_ptr(0);
    if (ov::is_type<ov::op::v1::Power>(square) && constant_number(square->input_value(1)) == 2.0F)
        return square->input_value(0);
    if (ov::is_type<ov::op::v1::Multiply>(square) &&
        square->input_value(0) == square->input_value(1))
        return square->input_value(0);
    return std::nullopt;
}

/// sqrt(v) -> v.
std::optional<Output> under_root(const Output& output) {
    const auto* node = output.get_node();
    if (ov::is_type<ov::op::v0::Sqrt>(node)) return node->input_value(0);
    if (ov::is_type<ov::op::v1::Power>(node) && constant_number(node->input_value(1)) == 0.5F)
        return node->input_value(0);
    return std::nullopt;
}

/// 1 / sqrt(v) -> v.
std::optional<Output> under_reciprocal_root(const Output& output) {
    const auto* node = output.get_node();
    if (ov::is_type<ov::op::v1::Power>(node)) {
        if (constant_number(node->input_value(1)) == -0.5F) return node->input_value(0);
        if (constant_number(node->input_value(1)) == -1.0F) return under_root(node->input_value(0));
    }
    if (ov::is_type<ov::op::v1::Divide>(node) && constant_number(node->input_value(0)) == 1.0F)
        return under_root(node->input_value(1));
    return std::nullopt;
}

/// mean(x^2) + epsilon of the very x -> epsilon.
std::optional<float> epsilon_of(const std::optional<Output>& variance, const Output& x) {
    if (!variance || !ov::is_type<ov::op::v1::Add>(variance->get_node())) return std::nullopt;
    const auto sum = beside_number(*variance->get_node());
    if (!sum || !(sum->second >= 0.0F)) return std::nullopt;
    return mean_of_squares(sum->first) == x ? std::optional(sum->second) : std::nullopt;
}

/// x * (1 / sqrt(...)) or x / sqrt(...), without gamma.
std::optional<FoundNorm> without_gamma(const Output& output) {
    const auto* node = output.get_node();
    if (ov::is_type<ov::op::v1::Divide>(node)) {
        const Output x = node->input_value(0);
        if (const auto epsilon = epsilon_of(under_root(node->input_value(1)), x))
            return FoundNorm{{{}, *epsilon}, x};
    }
    if (!ov::is_type<ov::op::v1::Multiply>(node)) return std::nullopt;
    for (const size_t side : {0, 1}) {
        const Output x = node->input_value(side);
        if (const auto epsilon = epsilon_of(under_reciprocal_root(node->input_value(1 - side)), x))
            return FoundNorm{{{}, *epsilon}, x};
    }
    return std::nullopt;
}

/// Whether a constant scales [..., columns] by its last dimension, or all of it.
bool scales_last(const ov::PartialShape& shape, size_t values, size_t columns, size_t rank) {
    if (shape.is_dynamic() || shape.size() > rank) return false;
    return values == 1 || (values == columns &&
                           shape[shape.size() - 1].get_length() == static_cast<int64_t>(columns));
}

/// Normalizing again in every reader is cheaper than a node of its own only while they are few.
constexpr size_t kMostReaders = 3;

/// The layers that read `output`, if all its readers are layers without a norm that do nothing else
/// with it, or ask for its shape.
std::vector<Layer> reading_layers(const Output& output) {
    std::vector<Layer> layers;
    for (const auto& input : output.get_target_inputs()) {
        auto* node = input.get_node();
        if (ov::is_type<ov::op::v0::ShapeOf>(node) || ov::is_type<ov::op::v3::ShapeOf>(node))
            continue;
        const auto layer = layer_of(node->shared_from_this());
        if (!layer || layer->norm || input.get_index() != 0) return {};
        layers.push_back(*layer);
    }
    return layers.size() <= kMostReaders ? layers : std::vector<Layer>{};
}

}  // namespace

std::optional<FoundNorm> find_rms_norm(const Output& output) {
    const auto& shape = output.get_partial_shape();
    if (shape.rank().is_dynamic() || shape.size() == 0 || shape[shape.size() - 1].is_dynamic())
        return std::nullopt;
    const auto columns = static_cast<size_t>(shape[shape.size() - 1].get_length());
    const auto finish = [&](FoundNorm norm, std::vector<float> gamma) -> std::optional<FoundNorm> {
        // The value must have the shape of x: gamma may have had more dimensions.
        if (!same_shape(norm.x.get_partial_shape(), shape)) return std::nullopt;
        if (gamma.size() == 1) gamma.assign(columns, gamma.front());
        norm.gamma = std::move(gamma);
        return norm;
    };
    // Models whose gammas are all 1 lose them when they are exported.
    if (auto norm = without_gamma(output)) return finish(std::move(*norm), {1.0F});
    const auto* node = output.get_node();
    if (!ov::is_type<ov::op::v1::Multiply>(node)) return std::nullopt;
    for (const size_t side : {0, 1}) {
        auto gamma = constant_floats(node->input_value(side));
        if (!gamma ||
            !scales_last(node->get_input_partial_shape(side), gamma->size(), columns, shape.size()))
            continue;
        if (auto norm = without_gamma(node->input_value(1 - side)))
            return finish(std::move(*norm), std::move(*gamma));
    }
    return std::nullopt;
}

void fold_residuals(const ov::Model& model) {
    for (const auto& add : model.get_ordered_ops()) {
        if (!ov::is_type<ov::op::v1::Add>(add)) continue;
        for (const size_t side : {0, 1}) {
            const Output sum = add->input_value(side);
            const Output residual = add->input_value(1 - side);
            const auto layer = layer_of(sum.get_node_shared_ptr());
            if (!layer || layer->residual || ov::is_type<QKV>(layer->node) || !only_consumer(sum) ||
                ov::is_type<Constant>(residual.get_node()) ||
                residual.get_element_type() != ov::element::f32 ||
                !same_shape(sum.get_partial_shape(), residual.get_partial_shape()))
                continue;
            ov::OutputVector inputs = layer->node->input_values();
            inputs.push_back(residual);
            const auto change = [](auto& attributes) { attributes.residual = true; };
            const auto full = ov::as_type_ptr<FullyConnected>(layer->node);
            const auto node = full
                                  ? remade(*full, inputs, change)
                                  : remade(*ov::as_type_ptr<GatedMLP>(layer->node), inputs, change);
            node->set_friendly_name(layer->node->get_friendly_name());
            replace_output(add->output(0), node->output(0));
            break;
        }
    }
}

void fold_norms(const ov::Model& model) {
    for (const auto& node : model.get_ordered_ops()) {
        if (!ov::is_type<ov::op::v1::Multiply>(node) && !ov::is_type<ov::op::v1::Divide>(node))
            continue;
        const auto layers = reading_layers(node->output(0));
        if (layers.empty()) continue;
        const auto norm = find_rms_norm(node->output(0));
        if (!norm) continue;
        const auto gamma = std::make_shared<Constant>(ov::element::f32,
                                                      ov::Shape{norm->gamma.size()}, norm->gamma);
        gamma->set_friendly_name(node->get_friendly_name() + "/gamma");
        for (const Layer& layer : layers) set_norm(layer, norm->x, gamma, norm->epsilon);
        for (auto input : node->output(0).get_target_inputs()) {
            auto* reader = input.get_node();
            if (ov::is_type<ov::op::v0::ShapeOf>(reader) ||
                ov::is_type<ov::op::v3::ShapeOf>(reader))
                input.replace_source_output(norm->x);
        }
    }
}

}  // namespace ovfast::ops
