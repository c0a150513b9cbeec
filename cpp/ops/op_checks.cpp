#include "ops/op_checks.hpp"

#include <cmath>
#include <openvino/op/constant.hpp>
#include <stdexcept>

#include "kernels/packed_weights.hpp"

namespace ovfast::ops {

void check_input_count(const ov::Node& node, size_t expected) {
    NODE_VALIDATION_CHECK(&node, node.get_input_size() == expected, "its attributes call for ",
                          expected, " inputs, got ", node.get_input_size());
}

void check_positive(const ov::Node& node, const char* attribute, int64_t value) {
    NODE_VALIDATION_CHECK(&node, value > 0, attribute, " must be positive, got ", value);
}

void check_epsilon(const ov::Node& node, float epsilon) {
    NODE_VALIDATION_CHECK(&node, std::isfinite(epsilon) && epsilon >= 0.0F,
                          "epsilon must be a number of at least 0, got ", epsilon);
}

ov::PartialShape check_rows_input(const ov::Node& node, int64_t columns, int64_t rows) {
    const auto& type = node.get_input_element_type(0);
    NODE_VALIDATION_CHECK(&node, type == ov::element::f32, "input 0 must be f32, got ", type);
    auto shape = node.get_input_partial_shape(0);
    if (shape.rank().is_dynamic()) return ov::PartialShape::dynamic();
    NODE_VALIDATION_CHECK(&node, shape.size() >= 1, "input 0 must have a dimension, got a scalar");
    auto& last = shape[shape.size() - 1];
    NODE_VALIDATION_CHECK(&node, last.compatible(columns), "the last dimension of input 0 must be ",
                          columns, " (the columns of the weights), got ", shape);
    last = rows;
    return shape;
}

void check_vector(const ov::Node& node, size_t index, const char* what, int64_t size) {
    const auto& type = node.get_input_element_type(index);
    const auto& shape = node.get_input_partial_shape(index);
    NODE_VALIDATION_CHECK(
        &node, type == ov::element::f32 && shape.compatible(ov::PartialShape{size}), what,
        " (input ", index, ") must be f32 [", size, "], got ", type, " ", shape);
}

void check_packed(const ov::Node& node, size_t index, const char* what, int64_t rows,
                  int64_t columns) {
    const auto& type = node.get_input_element_type(index);
    const auto& shape = node.get_input_partial_shape(index);
    NODE_VALIDATION_CHECK(
        &node, type == ov::element::u8 && shape.compatible(ov::PartialShape{ov::Dimension()}), what,
        " weights (input ", index, ") must be packed bytes, u8 with one dimension, got ", type, " ",
        shape);
    const auto* constant =
        dynamic_cast<const ov::op::v0::Constant*>(node.get_input_node_ptr(index));
    if (!constant) return;
    try {
        const auto weights =
            kernels::PackedWeights::view(constant->get_data_ptr(), constant->get_byte_size());
        NODE_VALIDATION_CHECK(&node,
                              weights.rows() == static_cast<size_t>(rows) &&
                                  weights.columns() == static_cast<size_t>(columns),
                              what, " weights (input ", index, ") must be [", rows, ", ", columns,
                              "], the packed ones are [", weights.rows(), ", ", weights.columns(),
                              "]");
    } catch (const std::invalid_argument& error) {
        NODE_VALIDATION_CHECK(&node, false, what, " weights (input ", index,
                              ") are no packed weights: ", error.what());
    }
}

void check_residual(const ov::Node& node, size_t index, ov::PartialShape& output) {
    const auto& type = node.get_input_element_type(index);
    const auto& shape = node.get_input_partial_shape(index);
    NODE_VALIDATION_CHECK(&node,
                          type == ov::element::f32 && ov::PartialShape::merge_into(output, shape),
                          "residual (input ", index, ") must be f32 of the output's shape ", output,
                          ", got ", type, " ", shape);
}

size_t count_rows(const ov::Node& node, const ov::Tensor& input, int64_t columns) {
    const ov::Shape& shape = input.get_shape();
    OPENVINO_ASSERT(input.get_element_type() == ov::element::f32 && !shape.empty() &&
                        shape.back() == static_cast<size_t>(columns),
                    node.get_friendly_name(), ": input 0 must be f32 [..., ", columns, "], got ",
                    input.get_element_type(), " ", shape);
    return input.get_size() / static_cast<size_t>(columns);
}

const float* floats(const ov::Node& node, const ov::TensorVector& inputs, size_t index,
                    size_t count) {
    const ov::Tensor& input = inputs[index];
    OPENVINO_ASSERT(input.get_element_type() == ov::element::f32 && input.get_size() == count,
                    node.get_friendly_name(), ": input ", index, " must hold ", count,
                    " f32 values, got ", input.get_element_type(), " ", input.get_shape());
    return input.data<const float>();
}

std::vector<int64_t> integers(const ov::Tensor& input) {
    if (input.get_element_type() == ov::element::i32) {
        const auto* data = input.data<const int32_t>();
        return {data, data + input.get_size()};
    }
    const auto* data = input.data<const int64_t>();
    return {data, data + input.get_size()};
}

float* shape_output(ov::Tensor& output, const ov::Tensor& input, int64_t last_dimension) {
    ov::Shape shape = input.get_shape();
    shape.back() = static_cast<size_t>(last_dimension);
    output.set_shape(shape);
    return output.data<float>();
}

}  // namespace ovfast::ops
