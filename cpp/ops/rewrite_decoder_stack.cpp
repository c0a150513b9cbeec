#include <algorithm>
#include <initializer_list>
#include <map>
#include <openvino/op/add.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/op/parameter.hpp>
#include <optional>
#include <set>

#include "ops/decoder_stack.hpp"
#include "ops/rewrite_passes.hpp"
#include "ops/rms_norm.hpp"

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

// Whether these operations are all that reads a value.
bool only_read_by(const Value& value, std::initializer_list<const ov::Node*> readers) {
    for (const auto& input : value.get_target_inputs()) {
        if (std::find(readers.begin(), readers.end(), input.get_node()) == readers.end()) {
            return false;
        }
    }
    return true;
}

// A layer's result with x added to it.
struct Sum {
    Value value;
    RmsNorm norm;  // of the result, before x is added
};

// `residual`: the layer itself adds its last input.
std::optional<Sum> sum_of(const PackedOp& layer, bool residual, const Value& x) {
    const Value y = const_cast<PackedOp&>(layer).output(0);
    if (residual) {
        return layer.input_values().back() == x ? std::optional(Sum{y, {}}) : std::nullopt;
    }
    for (const auto& input : x.get_target_inputs()) {
        ov::Node* add = input.get_node();
        if (!ov::is_type<ov::op::v1::Add>(add)) continue;
        const Value normalized = other_input(*add, x);
        auto norm = find_rms_norm(normalized);
        if (norm && norm->x == y && normalized.get_partial_shape() == x.get_partial_shape() &&
            only_consumer(normalized) == add) {
            return Sum{add->output(0), std::move(*norm)};
        }
    }
    return std::nullopt;
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
    struct Found {
        DecoderLayer layer;
        Value middle, end;       // after the attention, and after all
        Value normalized[2][2];  // q and k before and after the norm of heads; empty: none
    };

    explicit LayerFinder(Value positions) : positions_(std::move(positions)) {}

    std::optional<Found> find(const std::shared_ptr<PagedAttention>& attention) {
        DecoderLayer layer;
        layer.attention = attention;
        layer.qkv = qkv_before(attention->input_value(2));
        layer.out = layer_after(*attention);
        if (!layer.qkv || !layer.out) return std::nullopt;
        const Value x = layer.qkv->input_value(0);
        const bool adds_x = layer.out->attributes().residual;
        auto middle = sum_of(*layer.out, adds_x, x);
        if (!middle || !holds_its_weights(*layer.out, layer.out->get_input_size() - adds_x) ||
            !holds_its_weights(*layer.qkv, layer.qkv->get_input_size())) {
            return std::nullopt;
        }
        for (const auto& input : middle->value.get_target_inputs()) {
            const auto mlp = ov::as_type_ptr<GatedMLP>(input.get_node()->shared_from_this());
            if (mlp && input.get_index() == 0) layer.mlp = mlp;
        }
        if (!layer.mlp) return std::nullopt;
        const bool adds_middle = layer.mlp->attributes().residual;
        auto end = sum_of(*layer.mlp, adds_middle, middle->value);
        if (!end || !holds_its_weights(*layer.mlp, layer.mlp->get_input_size() - adds_middle) ||
            !only_read_by(middle->value, {layer.mlp.get(), end->value.get_node()}) ||
            !find_heads(layer)) {
            return std::nullopt;
        }
        layer.out_norm = std::move(middle->norm);
        layer.mlp_norm = std::move(end->norm);
        Found found{std::move(layer), std::move(middle->value), std::move(end->value), {}};
        find_head_norms(found);
        const auto known = std::find_if(known_.begin(), known_.end(), [&](const Found& other) {
            return same_heads(other, found);
        });
        if (known != known_.end()) {
            found.layer.rope = known->layer.rope;
        } else {
            if (!probe(found)) return std::nullopt;
            known_.push_back(found);
        }
        return found;
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

    // What heads are normalized by on the way to the attention.
    void find_head_norms(Found& found) const {
        DecoderLayer& layer = found.layer;
        RmsNorm* norms[2] = {&layer.q_norm, &layer.k_norm};
        const size_t outputs[2] = {layer.q, layer.k};
        for (size_t which = 0; which < 2; ++which) {
            std::vector<Value> open{to(layer, which)};
            std::set<Value> seen;
            while (!open.empty()) {
                const Value value = open.back();
                open.pop_back();
                if (!seen.insert(value).second || value == from(layer, outputs[which])) continue;
                auto norm = find_rms_norm(value);
                if (norm && norm->gamma.size() == layer.attention->attributes().shape.key_size) {
                    found.normalized[which][0] = norm->x;
                    found.normalized[which][1] = value;
                    *norms[which] = std::move(*norm);
                    break;
                }
                for (const Value& input : value.get_node()->input_values()) open.push_back(input);
            }
        }
    }

    // Whether heads go the same way, but for the values of their norms.
    bool same_heads(const Found& a, const Found& b) const {
        SameGraph same;
        same.assume(from(a.layer, a.layer.q), from(b.layer, b.layer.q));
        same.assume(from(a.layer, a.layer.k), from(b.layer, b.layer.k));
        same.assume(from(a.layer, a.layer.v), from(b.layer, b.layer.v));
        same.assume(a.layer.attention->output(0), b.layer.attention->output(0));
        for (size_t which = 0; which < 2; ++which) {
            const auto& [before, after] = a.normalized[which];
            const auto& [others_before, others_after] = b.normalized[which];
            if (!after.get_node() != !others_after.get_node()) return false;
            if (!after.get_node()) continue;
            if (!same(before, others_before)) return false;
            same.assume(after, others_after);
        }
        return same(to(a.layer, 0), to(b.layer, 0)) && same(to(a.layer, 1), to(b.layer, 1)) &&
               same(to(a.layer, 2), to(b.layer, 2)) &&
               same(attention_end(a.layer), attention_end(b.layer));
    }

    bool probe(Found& found) const {
        DecoderLayer& layer = found.layer;
        const auto& shape = layer.attention->attributes().shape;
        const auto rope = find_rope(from(layer, layer.q), to(layer, 0), positions_, shape.heads,
                                    shape.key_size, layer.q_norm);
        if (!rope) return false;
        layer.rope = *rope;
        const auto of_keys = find_rope(from(layer, layer.k), to(layer, 1), positions_,
                                       shape.kv_heads, shape.key_size, layer.k_norm);
        return of_keys && *of_keys == *rope &&
               passes_through(from(layer, layer.v), to(layer, 2), {}) &&
               passes_through(layer.attention->output(0), attention_end(layer),
                              {from(layer, layer.q), from(layer, layer.k), from(layer, layer.v)});
    }

    Value positions_;
    std::vector<Found> known_;  // one of each kind
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
    std::vector<LayerFinder::Found> found;
    for (const auto& node : model->get_ordered_ops()) {
        const auto attention = ov::as_type_ptr<PagedAttention>(node);
        if (!attention) continue;
        auto next = finder.find(attention);
        // GGUF's last layer drops all tokens but those whose logits are wanted: it stays as it is.
        if (!next) break;
        // Between layers, x is read by the next layer alone.
        if (!found.empty()) {
            const Value& x = found.back().end;
            const DecoderLayer& layer = next->layer;
            const ov::Node* adds_x =
                layer.out_norm.gamma.empty() ? layer.out.get() : next->middle.get_node();
            if (layer.qkv->input_value(0) != x || !only_read_by(x, {layer.qkv.get(), adds_x})) {
                break;
            }
        }
        found.push_back(std::move(*next));
    }
    if (found.empty()) return 0;
    const auto& first = found.front().layer;
    ov::OutputVector inputs{first.qkv->input_value(0), positions};
    for (size_t i = 3; i < first.attention->get_input_size(); ++i) {
        inputs.push_back(first.attention->input_value(i));
    }
    const Value end = found.back().end;
    const auto readers = end.get_target_inputs();
    std::vector<DecoderLayer> layers;
    for (auto& next : found) layers.push_back(std::move(next.layer));
    const size_t count = layers.size();
    const auto stack = std::make_shared<DecoderStack>(inputs, std::move(layers));
    stack->set_friendly_name("decoder_layers");
    for (auto input : readers) input.replace_source_output(stack->output(0));
    model->validate_nodes_and_infer_types();
    return count;
}

}  // namespace ovfast::ops
