#pragma once

#include <cstddef>
#include <cstdint>
#include <openvino/core/node.hpp>
#include <openvino/runtime/tensor.hpp>
#include <vector>

// What the operations check of their inputs: types and shapes when a graph is built (those that are
// known), sizes when it runs. Everything throws ov::Exception naming the node.
namespace ovfast::ops {

void check_input_count(const ov::Node& node, size_t expected);

/// Attributes that count something.
void check_positive(const ov::Node& node, const char* attribute, int64_t value);
void check_epsilon(const ov::Node& node, float epsilon);

/// Input 0: f32 [..., columns]. Returns its shape with the last dimension replaced by `rows`.
ov::PartialShape check_rows_input(const ov::Node& node, int64_t columns, int64_t rows);

/// f32 [size].
void check_vector(const ov::Node& node, size_t index, const char* what, int64_t size);

/// u8 [bytes]; a constant's header must name [rows, columns].
void check_packed(const ov::Node& node, size_t index, const char* what, int64_t rows,
                  int64_t columns);

/// f32 of the same shape as the output, which it may make more precise.
void check_residual(const ov::Node& node, size_t index, ov::PartialShape& output);

/// Rows of input 0 when its last dimension is `columns`.
size_t count_rows(const ov::Node& node, const ov::Tensor& input, int64_t columns);

/// The values of an f32 input that must have `count` of them.
const float* floats(const ov::Node& node, const ov::TensorVector& inputs, size_t index,
                    size_t count);

/// The values of an i64 input, which plugins may have narrowed to i32.
std::vector<int64_t> integers(const ov::Tensor& input);

/// Gives an output the shape of `input`, its last dimension replaced. Returns its values.
float* shape_output(ov::Tensor& output, const ov::Tensor& input, int64_t last_dimension);

}  // namespace ovfast::ops
