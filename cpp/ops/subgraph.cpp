#include "ops/subgraph.hpp"

#include <openvino/op/bitwise_and.hpp>
#include <openvino/op/logical_and.hpp>
#include <openvino/op/util/shape_of_base.hpp>

namespace ovfast::ops {

using ov::op::v0::Constant;
using ov::op::v0::Parameter;

std::shared_ptr<Parameter> Subgraph::begin_at(const Value& value, const ov::PartialShape& shape) {
    auto parameter = std::make_shared<Parameter>(value.get_element_type(), shape);
    copies_[value] = parameter;
    return parameter;
}

Subgraph::Value Subgraph::copy(const Value& value) {
    const auto known = copies_.find(value);
    if (known != copies_.end()) return known->second;
    const auto node = value.get_node_shared_ptr();
    if (const auto constant = ov::as_type_ptr<Constant>(node)) {
        constants_.push_back(constant.get());
        return value;
    }
    if (node->get_input_size() == 0) return {};
    ov::OutputVector inputs;
    for (const Value& input : node->input_values()) {
        inputs.push_back(copy(input));
        if (inputs.back().get_node() == nullptr) return {};
    }
    if (ov::is_type<ov::op::util::ShapeOfBase>(node) && inputs[0].get_partial_shape().is_static()) {
        const ov::Shape shape = inputs[0].get_shape();
        return copies_[value] = Constant::create(value.get_element_type(), {shape.size()}, shape);
    }
    // ov::Model::evaluate() has no BitwiseAnd, which PyTorch writes for truth values too.
    const bool both_true = ov::is_type<ov::op::v13::BitwiseAnd>(node) &&
                           value.get_element_type() == ov::element::boolean;
    const auto made = both_true ? std::make_shared<ov::op::v1::LogicalAnd>(inputs[0], inputs[1])
                                : node->clone_with_new_inputs(inputs);
    for (size_t i = 0; i < node->get_output_size(); ++i) {
        copies_[node->output(i)] = made->output(i);
    }
    return made->output(value.get_index());
}

}  // namespace ovfast::ops
