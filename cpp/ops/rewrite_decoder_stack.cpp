#include <algorithm>
#include <map>
#include <openvino/op/constant.hpp>
#include <openvino/op/parameter.hpp>
#include <optional>
#include <set>

#include "ops/decoder_stack.hpp"
#include "ops/rewrite_passes.hpp"

namespace ovfast::ops {
namespace {

using Value = ov::Output<ov::Node>;

// All inputs but x and a residual must be constants, which the stack takes along.
bool holds_its_weights(const PackedOp& op, size_t last) {
    for (size_t i = 1; i < last; ++i) {
        if (dynamic_cast<const ov::op::v0::Constant*>(op.get_input_node_ptr(i)) == nullptr) {
            return false;
        }
    }
    return true;
}

std::shared_ptr<QKV> qkv_before(const Value& value) {
    std::vector<ov::Node*> open{value.get_node()};
    std::set<ov::Node*> seen;
    while (!open.empty()) {
        ov::Node* node = open.back();
        open.pop_back();
        if (!seen.insert(node).second) continue;
        if (const auto qkv = ov::as_type_ptr<QKV>(node->shared_from_this())) return qkv;
        if (dynamic_cast<const PackedOp*>(node) != nullptr) continue;
        for (size_t i = 0; i < node->get_input_size(); ++i) {
            open.push_back(node->get_input_node_ptr(i));
        }
    }
    return nullptr;
}

// The FullyConnected that the attention's output comes to, through nodes with one consumer.
std::shared_ptr<FullyConnected> layer_after(const PagedAttention& attention) {
    Value value = const_cast<PagedAttention&>(attention).output(0);
    for (int steps = 0; steps < 12; ++steps) {
        ov::Node* next = only_consumer(value);
        if (next == nullptr) return nullptr;
        if (const auto layer = ov::as_type_ptr<FullyConnected>(next->shared_from_this())) {
            return layer->input_value(0) == value ? layer : nullptr;
        }
        if (next->get_output_size() != 1) return nullptr;
        value = next->output(0);
    }
    return nullptr;
}

// What two layers' rotations are told apart by without running them: the nodes, their shapes and
// their small constants. `a` and `b` end at the same place in both.
class SameGraph {
public:
    void assume(const Value& a, const Value& b) { same_[a] = b; }
    bool operator()(const Value& a, const Value& b) {
        const auto known = same_.find(a);
        if (known != same_.end()) return known->second == b;
        if (a == b) return true;
        const ov::Node* x = a.get_node();
        const ov::Node* y = b.get_node();
        if (x->get_type_info() != y->get_type_info() || a.get_index() != b.get_index() ||
            x->get_input_size() != y->get_input_size() || x->get_input_size() > 8 ||
            a.get_partial_shape() != b.get_partial_shape() ||
            a.get_element_type() != b.get_element_type()) {
            return false;
        }
        if (const auto* constant = dynamic_cast<const ov::op::v0::Constant*>(x)) {
            const auto* other = static_cast<const ov::op::v0::Constant*>(y);
            return constant->get_byte_size() == other->get_byte_size() &&
                   std::equal(constant->get_data_ptr<char>(),
                              constant->get_data_ptr<char>() + constant->get_byte_size(),
                              other->get_data_ptr<char>());
        }
        if (x->get_input_size() == 0 || dynamic_cast<const PackedOp*>(x) != nullptr) return false;
        for (size_t i = 0; i < x->get_input_size(); ++i) {
            if (!(*this)(x->input_value(i), y->input_value(i))) return false;
        }
        same_[a] = b;
        return true;
    }

private:
    std::map<Value, Value> same_;
};

class LayerFinder {
public:
    explicit LayerFinder(Value positions) : positions_(std::move(positions)) {}

    std::optional<DecoderLayer> find(const std::shared_ptr<PagedAttention>& attention) {
        DecoderLayer layer;
        layer.attention = attention;
        layer.qkv = qkv_before(attention->input_value(2));
        layer.out = layer_after(*attention);
        if (!layer.qkv || !layer.out || !layer.out->attributes().residual) return std::nullopt;
        const Value x = layer.qkv->input_value(0);
        const size_t last = layer.out->get_input_size() - 1;
        if (layer.out->input_value(last) != x || !holds_its_weights(*layer.out, last) ||
            !holds_its_weights(*layer.qkv, layer.qkv->get_input_size())) {
            return std::nullopt;
        }
        const Value middle = layer.out->output(0);
        for (const auto& input : middle.get_target_inputs()) {
            const auto mlp = ov::as_type_ptr<GatedMLP>(input.get_node()->shared_from_this());
            if (!mlp || (layer.mlp && layer.mlp != mlp)) return std::nullopt;
            layer.mlp = mlp;
        }
        if (!layer.mlp || !layer.mlp->attributes().residual) return std::nullopt;
        const size_t residual = layer.mlp->get_input_size() - 1;
        if (layer.mlp->input_value(0) != middle || layer.mlp->input_value(residual) != middle ||
            !holds_its_weights(*layer.mlp, residual) || !find_heads(layer)) {
            return std::nullopt;
        }
        if (!known_ || !same_as_known(layer)) {
            if (!probe(layer)) return std::nullopt;
            known_ = layer;
        }
        layer.rope = known_->rope;
        return layer;
    }

private:
    Value from(const DecoderLayer& layer, size_t which) const { return layer.qkv->output(which); }
    Value to(const DecoderLayer& layer, size_t which) const {
        return layer.attention->input_value(which);
    }
    Value attention_end(const DecoderLayer& layer) const { return layer.out->input_value(0); }

    // Which output of the QKV is which: the one that leads to each input of the attention.
    bool find_heads(DecoderLayer& layer) const {
        size_t* outputs[3] = {&layer.q, &layer.k, &layer.v};
        std::set<size_t> used;
        for (size_t which = 0; which < 3; ++which) {
            std::set<size_t> reached;
            std::vector<Value> open{to(layer, which)};
            std::set<Value> seen;
            while (!open.empty()) {
                const Value value = open.back();
                open.pop_back();
                if (!seen.insert(value).second) continue;
                if (value.get_node() == layer.qkv.get()) {
                    reached.insert(value.get_index());
                    continue;
                }
                for (const Value& input : value.get_node()->input_values()) open.push_back(input);
            }
            if (reached.size() != 1 || !used.insert(*reached.begin()).second) return false;
            *outputs[which] = *reached.begin();
        }
        return true;
    }

    bool same_as_known(const DecoderLayer& layer) const {
        SameGraph same;
        const DecoderLayer& known = *known_;
        same.assume(from(known, known.q), from(layer, layer.q));
        same.assume(from(known, known.k), from(layer, layer.k));
        same.assume(from(known, known.v), from(layer, layer.v));
        same.assume(known.attention->output(0), layer.attention->output(0));
        return same(to(known, 0), to(layer, 0)) && same(to(known, 1), to(layer, 1)) &&
               same(to(known, 2), to(layer, 2)) && same(attention_end(known), attention_end(layer));
    }

    bool probe(DecoderLayer& layer) const {
        const auto& shape = layer.attention->attributes().shape;
        const auto rope =
            find_rope(from(layer, layer.q), to(layer, 0), positions_, shape.heads, shape.key_size);
        if (!rope) return false;
        layer.rope = *rope;
        const auto of_keys = find_rope(from(layer, layer.k), to(layer, 1), positions_,
                                       shape.kv_heads, shape.key_size);
        return of_keys && *of_keys == *rope &&
               passes_through(from(layer, layer.v), to(layer, 2), {}) &&
               passes_through(layer.attention->output(0), attention_end(layer),
                              {from(layer, layer.q), from(layer, layer.k), from(layer, layer.v)});
    }

    Value positions_;
    std::optional<DecoderLayer> known_;
};

}  // namespace

size_t fuse_decoder_stack(const std::shared_ptr<ov::Model>& model) {
    Value positions;
    for (const auto& parameter : model->get_parameters()) {
        if (parameter->get_output_tensor(0).get_names().count("position_ids") != 0) {
            positions = parameter->output(0);
        }
    }
    if (positions.get_node() == nullptr) return 0;
    LayerFinder finder(positions);
    std::vector<DecoderLayer> layers;
    for (const auto& node : model->get_ordered_ops()) {
        const auto attention = ov::as_type_ptr<PagedAttention>(node);
        if (!attention) continue;
        auto layer = finder.find(attention);
        // GGUF's last layer drops all tokens but those whose logits are wanted: it stays as it is.
        if (!layer) break;
        // Between layers, x is read by the next layer alone.
        if (!layers.empty()) {
            const Value x = layers.back().mlp->output(0);
            const auto readers = x.get_target_inputs();
            if (layer->qkv->input_value(0) != x || readers.size() != 2) break;
        }
        layers.push_back(std::move(*layer));
    }
    if (layers.empty()) return 0;
    const auto& first = layers.front().attention;
    ov::OutputVector inputs{layers.front().qkv->input_value(0), positions};
    for (size_t i = 3; i < first->get_input_size(); ++i) inputs.push_back(first->input_value(i));
    const Value end = layers.back().mlp->output(0);
    const size_t count = layers.size();
    const auto readers = end.get_target_inputs();
    const auto stack = std::make_shared<DecoderStack>(inputs, std::move(layers));
    stack->set_friendly_name("decoder_layers");
    for (auto input : readers) input.replace_source_output(stack->output(0));
    model->validate_nodes_and_infer_types();
    return count;
}

}  // namespace ovfast::ops
