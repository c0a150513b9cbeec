#include <algorithm>

#include "ops/rewrite_passes.hpp"

namespace ovfast::ops {
namespace {

using Layer = std::shared_ptr<FullyConnected>;

/// The layers that read `output` and nothing else but add a bias.
std::vector<Layer> layers_of(const ov::Output<ov::Node>& output) {
    std::vector<Layer> layers;
    for (const auto& input : output.get_target_inputs()) {
        if (input.get_index() != 0) continue;
        const auto layer = ov::as_type_ptr<FullyConnected>(input.get_node()->shared_from_this());
        if (layer && !layer->attributes().norm && !layer->attributes().residual)
            layers.push_back(layer);
    }
    return layers;
}

void fuse(std::vector<Layer> layers) {
    // Queries are never fewer than keys. The order decides nothing else than names; consumers come
    // in the order of addresses, so names make it the same for the same model.
    std::sort(layers.begin(), layers.end(), [](const Layer& a, const Layer& b) {
        const int64_t rows_a = a->attributes().rows, rows_b = b->attributes().rows;
        return rows_a != rows_b ? rows_a > rows_b : a->get_friendly_name() < b->get_friendly_name();
    });
    QKV::Attributes attributes;
    attributes.columns = layers[0]->attributes().columns;
    attributes.q_rows = layers[0]->attributes().rows;
    attributes.k_rows = layers[1]->attributes().rows;
    attributes.v_rows = layers[2]->attributes().rows;
    ov::OutputVector inputs{layers[0]->input_value(0)};
    for (const Layer& layer : layers) inputs.push_back(layer->input_value(1));
    for (size_t i = 0; i < layers.size(); ++i) {
        if (!layers[i]->attributes().bias) continue;
        attributes.biases |= int64_t{1} << i;
        inputs.push_back(layers[i]->input_value(2));
    }
    const auto qkv = std::make_shared<QKV>(inputs, attributes);
    qkv->set_mode(layers[0]->mode());
    qkv->set_friendly_name(layers[0]->get_friendly_name());
    for (size_t i = 0; i < layers.size(); ++i) replace_output(layers[i]->output(0), qkv->output(i));
}

}  // namespace

void fuse_qkv(const ov::Model& model) {
    for (const auto& node : model.get_ordered_ops()) {
        for (const auto& output : node->outputs()) {
            auto layers = layers_of(output);
            if (layers.size() == 3) fuse(std::move(layers));
        }
    }
}

}  // namespace ovfast::ops
