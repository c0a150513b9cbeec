#include "engine/lm_head.hpp"

#include <algorithm>
#include <openvino/op/op.hpp>
#include <openvino/opsets/opset13.hpp>
#include <optional>
#include <vector>

#include "ops/lm_head.hpp"
#include "ops/packed_ops.hpp"
#include "ovfast/error.hpp"

namespace ovfast {
namespace {

namespace op = ov::opset13;

std::shared_ptr<ov::Node> gather_rows(const ov::Output<ov::Node>& tokens, int64_t width,
                                      const ov::Output<ov::Node>& rows) {
    const auto flat = std::make_shared<op::Reshape>(
        tokens, op::Constant::create(ov::element::i64, {2}, {int64_t{-1}, width}), false);
    return std::make_shared<op::Gather>(flat, rows,
                                        op::Constant::create(ov::element::i64, {}, {0}));
}

ov::Output<ov::Node> as_f32(const ov::Output<ov::Node>& value) {
    if (value.get_element_type() == ov::element::f32) return value;
    return std::make_shared<op::Convert>(value, ov::element::f32);
}

bool only_moves_dimensions(const ov::Node& node) {
    return ov::is_type<op::Reshape>(&node) || ov::is_type<op::Squeeze>(&node) ||
           ov::is_type<op::Unsqueeze>(&node);
}

// Operations that treat each logit for itself, so that rows may be chosen before them. A second
// operand must be one number, or one for each word of the vocabulary (a bias).
bool works_on_each_logit(const ov::Node& node, int64_t vocabulary) {
    if (ov::is_type<op::Convert>(&node) || ov::is_type<op::Tanh>(&node)) return true;
    const bool binary = ov::is_type<op::Multiply>(&node) || ov::is_type<op::Divide>(&node) ||
                        ov::is_type<op::Add>(&node) || ov::is_type<op::Subtract>(&node);
    if (!binary) return false;
    const ov::PartialShape operand = node.get_input_partial_shape(1);
    if (operand.is_dynamic()) return false;
    const auto count = static_cast<int64_t>(ov::shape_size(operand.to_shape()));
    return count == 1 || (count == vocabulary && operand[operand.size() - 1] == vocabulary);
}

// Last dimension, when it is known.
std::optional<int64_t> width_of(const ov::PartialShape& shape) {
    if (shape.rank().is_dynamic() || shape.size() == 0 || shape[shape.size() - 1].is_dynamic()) {
        return std::nullopt;
    }
    return shape[shape.size() - 1].get_length();
}

// Width of the hidden state that `node` turns into logits; 0 when it is not an lm_head.
int64_t lm_head_input_width(const ov::Node& node, int64_t vocabulary) {
    if (const auto* packed = dynamic_cast<const ops::FullyConnected*>(&node)) {
        // A residual has a row for each token too, which would have to be chosen like the others.
        const ops::FullyConnected::Attributes& attributes = packed->attributes();
        return attributes.rows == vocabulary && !attributes.residual ? attributes.columns : 0;
    }
    if (const auto* head = dynamic_cast<const ops::LMHead*>(&node)) {
        return head->attributes().rows == vocabulary ? head->attributes().columns : 0;
    }
    if (!ov::is_type<op::MatMul>(&node)) return 0;
    const auto& matmul = static_cast<const op::MatMul&>(node);
    const std::optional<int64_t> hidden = width_of(matmul.get_input_partial_shape(0));
    const ov::PartialShape weights = matmul.get_input_partial_shape(1);
    if (!hidden || matmul.get_transpose_a() || weights.is_dynamic()) return 0;
    const auto elements = static_cast<int64_t>(ov::shape_size(weights.to_shape()));
    return elements == *hidden * vocabulary ? *hidden : 0;
}

}  // namespace

std::shared_ptr<ov::Model> split_lm_head(const std::shared_ptr<ov::Model>& model) {
    if (model->outputs().size() != 1) {
        throw ModelError("expected one output, the logits, got " +
                         std::to_string(model->outputs().size()));
    }
    const std::shared_ptr<op::Result> result = model->get_results().front();
    const std::optional<int64_t> vocabulary = width_of(result->get_input_partial_shape(0));
    if (!vocabulary) {
        throw ModelError("the output has shape " + result->get_input_partial_shape(0).to_string() +
                         ", expected logits whose last dimension is the vocabulary");
    }

    const auto rows = std::make_shared<op::Parameter>(ov::element::i64, ov::PartialShape{-1});
    rows->set_friendly_name(kLogitRows);
    rows->get_output_tensor(0).set_names({kLogitRows});

    std::vector<std::shared_ptr<ov::Node>> after;  // from the output back to the lm_head
    std::shared_ptr<ov::Node> node = result->get_input_node_shared_ptr(0);
    while (only_moves_dimensions(*node) || works_on_each_logit(*node, *vocabulary)) {
        after.push_back(node);
        node = node->get_input_node_shared_ptr(0);
    }
    const int64_t hidden = lm_head_input_width(*node, *vocabulary);

    std::shared_ptr<ov::Model> lm_head;
    ov::Output<ov::Node> chosen;
    if (hidden != 0) {
        const auto state =
            std::make_shared<op::Parameter>(ov::element::f32, ov::PartialShape{-1, hidden});
        ov::OutputVector operands = node->input_values();
        operands[0] = state;
        ov::ParameterVector parameters{state};
        // Nothing after it may change the order of the logits.
        const bool in_order = std::all_of(after.begin(), after.end(), [](const auto& later) {
            return only_moves_dimensions(*later) || ov::is_type<op::Convert>(later);
        });
        if (ov::is_type<ops::LMHead>(node) && in_order) {
            const auto add = [&](size_t index, const char* name, const ov::PartialShape& shape) {
                const auto input = std::make_shared<op::Parameter>(ov::element::i64, shape);
                input->set_friendly_name(name);
                input->get_output_tensor(0).set_names({name});
                operands[index] = input;
                parameters.push_back(input);
            };
            add(ops::LMHead::kTopKInput, kTopK, {2});
            add(ops::LMHead::kNotCountedInput, kNotCounted, {-1});
        }
        const std::shared_ptr<ov::Node> head = node->clone_with_new_inputs(operands);
        head->set_friendly_name(node->get_friendly_name());
        ov::Output<ov::Node> logits = head;
        for (auto it = after.rbegin(); it != after.rend(); ++it) {
            if (only_moves_dimensions(**it)) continue;
            ov::OutputVector inputs = (*it)->input_values();
            inputs[0] = logits;
            logits = (*it)->clone_with_new_inputs(inputs);
        }
        // Constants may carry leading dimensions of 1, [1, 1, vocabulary], and broadcast the rest.
        logits = std::make_shared<op::Reshape>(
            logits, op::Constant::create(ov::element::i64, {2}, {int64_t{-1}, *vocabulary}), false);
        // Plugins take out a reshape that changes nothing, and give its name to what it was after.
        logits.get_node()->set_friendly_name(node->get_friendly_name());
        lm_head =
            std::make_shared<ov::Model>(ov::OutputVector{as_f32(logits)}, parameters, "lm_head");
        chosen = gather_rows(node->input_value(0), hidden, rows);
    } else {
        chosen = gather_rows(result->input_value(0), *vocabulary, rows);
    }
    result->input_value(0).get_tensor().set_names({});
    result->input(0).replace_source_output(as_f32(chosen));
    model->add_parameters({rows});
    model->validate_nodes_and_infer_types();
    return lm_head;
}

}  // namespace ovfast
