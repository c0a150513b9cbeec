#pragma once

// Small graphs as frontends and NNCF write them, and the comparison of a rewritten one with itself.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <openvino/core/model.hpp>
#include <openvino/opsets/opset13.hpp>
#include <random>
#include <string>
#include <vector>

#include "ops/packed_ops.hpp"
#include "ops/rewrite.hpp"

namespace rewrite_graphs {

namespace op = ov::opset13;
using ovfast::ops::RewriteOptions;
using ovfast::ops::RewrittenLayer;
using Value = ov::Output<ov::Node>;

// ---- graphs -----------------------------------------------------------------------------------

inline std::mt19937& generator() {
    static std::mt19937 random(7);
    return random;
}

inline int number(int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(generator());
}

inline Value constant(const ov::element::Type& type, const ov::Shape& shape,
                      const std::vector<float>& values) {
    return op::Constant::create(type, shape, values);
}

inline Value integers(const std::vector<int64_t>& values) {
    return op::Constant::create(ov::element::i64, {values.size()}, values);
}

/// Whole numbers from low to high, both of which occur.
inline Value codes(const ov::element::Type& type, const ov::Shape& shape, int low, int high) {
    std::vector<float> values(ov::shape_size(shape));
    for (float& value : values) value = static_cast<float>(number(low, high));
    values.front() = static_cast<float>(low);
    values.back() = static_cast<float>(high);
    return constant(type, shape, values);
}

/// Powers of two: a code of 8 bits times one is exact in f16, so that the original graph, which
/// multiplies in f16, has the very weights that are packed.
inline Value powers(const ov::Shape& shape, const ov::element::Type& type = ov::element::f16) {
    std::vector<float> values(ov::shape_size(shape));
    for (float& value : values) value = std::ldexp(1.0F, number(-8, -5));
    return constant(type, shape, values);
}

inline Value convert(const Value& value, const ov::element::Type& type) {
    return std::make_shared<op::Convert>(value, type);
}

inline Value f32(const Value& value) {
    return convert(value, ov::element::f32);
}
inline Value f16(const Value& value) {
    return convert(value, ov::element::f16);
}

inline Value reshape(const Value& value, const std::vector<int64_t>& shape) {
    return std::make_shared<op::Reshape>(value, integers(shape), false);
}

template <typename T, typename... Args>
Value make(Args&&... args) {
    return std::make_shared<T>(std::forward<Args>(args)...);
}

/// NNCF's int4: [rows, groups, 32] of i4 with f16 scales.
inline Value int4(size_t rows, size_t columns, const std::string& name = "") {
    const size_t groups = columns / 32;
    const Value product = make<op::Multiply>(f16(codes(ov::element::i4, {rows, groups, 32}, -8, 7)),
                                             powers({rows, groups, 1}));
    const Value weights =
        f32(reshape(product, {static_cast<int64_t>(rows), static_cast<int64_t>(columns)}));
    if (!name.empty()) weights.get_node()->set_friendly_name(name);
    return weights;
}

inline Value linear(const Value& x, const Value& weights, const std::string& name = "layer") {
    const auto node = std::make_shared<op::MatMul>(x, weights, false, true);
    node->set_friendly_name(name);
    return node;
}

inline Value floats(const ov::Shape& shape, float low = -1.0F, float high = 1.0F) {
    std::vector<float> values(ov::shape_size(shape));
    for (float& value : values)
        value = std::uniform_real_distribution<float>(low, high)(generator());
    return constant(ov::element::f32, shape, values);
}

inline std::shared_ptr<op::Parameter> activations(const ov::PartialShape& shape) {
    return std::make_shared<op::Parameter>(ov::element::f32, shape);
}

inline std::shared_ptr<ov::Model> model(const ov::OutputVector& outputs,
                                        const ov::ParameterVector& inputs) {
    return std::make_shared<ov::Model>(outputs, inputs);
}

inline std::vector<std::string> operations(const std::shared_ptr<ov::Model>& model) {
    std::vector<std::string> names;
    for (const auto& node : model->get_ordered_ops())
        if (std::dynamic_pointer_cast<ovfast::ops::PackedOp>(node))
            names.emplace_back(node->get_type_name());
    return names;
}

inline size_t count(const std::shared_ptr<ov::Model>& model, const std::string& type) {
    const auto nodes = model->get_ops();
    return static_cast<size_t>(std::count_if(nodes.begin(), nodes.end(), [&](const auto& node) {
        return node->get_type_name() == type;
    }));
}

// ---- the oracle -------------------------------------------------------------------------------

inline std::vector<std::vector<float>> evaluate(const std::shared_ptr<ov::Model>& model,
                                                const ov::TensorVector& inputs) {
    ov::TensorVector outputs;
    for (const auto& output : model->outputs())
        outputs.emplace_back(output.get_element_type(), ov::Shape{0});
    EXPECT_TRUE(model->evaluate(outputs, inputs));
    std::vector<std::vector<float>> values;
    for (const auto& output : outputs) {
        if (output.get_element_type() == ov::element::f32)
            values.emplace_back(output.data<float>(), output.data<float>() + output.get_size());
    }
    return values;
}

inline ov::TensorVector some_inputs(const std::shared_ptr<ov::Model>& model) {
    ov::TensorVector tensors;
    for (const auto& input : model->inputs()) {
        ov::Shape shape;
        for (const auto& dimension : input.get_partial_shape())
            shape.push_back(dimension.is_static() ? static_cast<size_t>(dimension.get_length())
                                                  : 3);
        ov::Tensor tensor(input.get_element_type(), shape);
        for (size_t i = 0; i < tensor.get_size(); ++i) {
            if (tensor.get_element_type() == ov::element::f32)
                tensor.data<float>()[i] = static_cast<float>(number(-1000, 1000)) / 500.0F;
            else if (tensor.get_element_type() == ov::element::i64)
                tensor.data<int64_t>()[i] = number(0, 15);
        }
        tensors.push_back(tensor);
    }
    return tensors;
}

/// Rewrites and compares with the original, activations being exact. The weights being the same
/// numbers, only the order of f32 additions differs: of at most 256 terms, so about sqrt(256) *
/// 2^-24 of the largest value for each multiplication, of which up to three follow each other.
inline std::vector<RewrittenLayer> rewrite_and_compare(const std::shared_ptr<ov::Model>& model,
                                                       const RewriteOptions& options = {},
                                                       float tolerance = 1e-5F) {
    const auto inputs = some_inputs(model);
    const auto expected = evaluate(model, inputs);
    const auto layers = ovfast::ops::rewrite_to_packed(model, options);
    for (const auto& node : model->get_ops())
        if (const auto packed = std::dynamic_pointer_cast<ovfast::ops::PackedOp>(node))
            packed->set_mode(ovfast::ops::Activations::Exact);
    const auto got = evaluate(model, inputs);
    EXPECT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < std::min(got.size(), expected.size()); ++i) {
        EXPECT_EQ(got[i].size(), expected[i].size());
        float largest = 0.0F, difference = 0.0F;
        for (size_t j = 0; j < std::min(got[i].size(), expected[i].size()); ++j) {
            largest = std::max(largest, std::abs(expected[i][j]));
            difference = std::max(difference, std::abs(got[i][j] - expected[i][j]));
        }
        EXPECT_GT(largest, 0.0F);
        EXPECT_LE(difference, tolerance * largest) << "output " << i;
    }
    return layers;
}

inline Value product(const Value& value, const Value& scales) {
    return make<op::Multiply>(value, scales);
}

/// What OpenVINO folds when it reads a model: Convert of a float constant.
inline Value folded(const Value& value) {
    const auto node = value.get_node_shared_ptr();
    ov::OutputVector inputs = node->input_values();
    for (auto& input : inputs) input = folded(input);
    if (!inputs.empty() && ov::is_type<op::Convert>(node) &&
        ov::is_type<op::Constant>(inputs[0].get_node()) &&
        inputs[0].get_element_type() == ov::element::f32) {
        const auto source = ov::as_type_ptr<op::Constant>(inputs[0].get_node_shared_ptr());
        return constant(node->get_output_element_type(0), source->get_shape(),
                        source->cast_vector<float>());
    }
    return inputs.empty() ? value : node->clone_with_new_inputs(inputs)->output(0);
}

}  // namespace rewrite_graphs
