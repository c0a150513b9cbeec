#include <openvino/op/gelu.hpp>
#include <openvino/op/multiply.hpp>
#include <openvino/op/sigmoid.hpp>
#include <openvino/op/swish.hpp>

#include "ops/rewrite_passes.hpp"

namespace ovfast::ops {
namespace {

using Output = ov::Output<ov::Node>;

/// A FullyConnected that only multiplies.
FullyConnected* plain_layer(const Output& output) {
    auto* layer = ov::as_type<FullyConnected>(output.get_node());
    if (!layer) return nullptr;
    const auto& a = layer->attributes();
    return a.norm || a.bias || a.residual ? nullptr : layer;
}

/// x * sigmoid(x), either way round.
std::optional<Activated> spelled_out_silu(const ov::Node& multiply) {
    for (const size_t side : {0, 1}) {
        const auto* sigmoid = ov::as_type<ov::op::v0::Sigmoid>(multiply.get_input_node_ptr(side));
        const Output x = multiply.input_value(1 - side);
        if (sigmoid && sigmoid->input_value(0) == x &&
            sigmoid->output(0).get_target_inputs().size() == 1)
            return Activated{Gate::Silu, x, 2};
    }
    return std::nullopt;
}

struct Gated {
    Gate gate = Gate::Silu;
    FullyConnected* gate_layer = nullptr;
    FullyConnected* up_layer = nullptr;
};

/// activation(gate(x)) * up(x), with nobody else reading what lies between.
std::optional<Gated> gated(const ov::Node& multiply) {
    for (const size_t side : {0, 1}) {
        const Output left = multiply.input_value(side);
        const Output right = multiply.input_value(1 - side);
        const auto activated = find_activation(left);
        if (!activated || !only_consumer(left) || !only_consumer(right)) continue;
        if (activated->input.get_target_inputs().size() != activated->readers) continue;
        auto* gate = plain_layer(activated->input);
        auto* up = plain_layer(right);
        if (gate && up && gate->input_value(0) == up->input_value(0) &&
            gate->attributes().rows == up->attributes().rows)
            return Gated{activated->gate, gate, up};
    }
    return std::nullopt;
}

}  // namespace

std::optional<Activated> find_activation(const Output& output) {
    const auto* node = output.get_node();
    if (ov::is_type<ov::op::v4::Swish>(node)) {
        if (node->get_input_size() == 2 && constant_number(node->input_value(1)) != 1.0F)
            return std::nullopt;
        return Activated{Gate::Silu, node->input_value(0)};
    }
    if (ov::is_type<ov::op::v0::Gelu>(node)) return Activated{Gate::GeluErf, node->input_value(0)};
    if (const auto* gelu = ov::as_type<const ov::op::v7::Gelu>(node)) {
        const bool tanh = gelu->get_approximation_mode() == ov::op::GeluApproximationMode::TANH;
        return Activated{tanh ? Gate::GeluTanh : Gate::GeluErf, gelu->input_value(0)};
    }
    if (ov::is_type<ov::op::v1::Multiply>(node)) return spelled_out_silu(*node);
    return std::nullopt;
}

void fuse_gated_mlps(const ov::Model& model) {
    for (const auto& node : model.get_ordered_ops()) {
        auto* down = plain_layer(node->output(0));
        if (!down) continue;
        const Output product = down->input_value(0);
        if (!ov::is_type<ov::op::v1::Multiply>(product.get_node()) || !only_consumer(product))
            continue;
        const auto parts = gated(*product.get_node());
        if (!parts) continue;
        GatedMLP::Attributes attributes;
        attributes.columns = parts->gate_layer->attributes().columns;
        attributes.intermediate = parts->gate_layer->attributes().rows;
        attributes.rows = down->attributes().rows;
        attributes.gate = parts->gate;
        const auto mlp = std::make_shared<GatedMLP>(
            ov::OutputVector{parts->gate_layer->input_value(0), parts->gate_layer->input_value(1),
                             parts->up_layer->input_value(1), down->input_value(1)},
            attributes);
        mlp->set_mode(down->mode());
        mlp->set_friendly_name(down->get_friendly_name());
        replace_output(down->output(0), mlp->output(0));
    }
}

}  // namespace ovfast::ops
