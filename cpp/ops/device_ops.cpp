#include "ops/device_ops.hpp"

#include <cstring>
#include <string>

#include "ops/op_checks.hpp"

// Graph side of the operations; what they compute on the CPU stands in device_ops_cpu.cpp.
namespace ovfast::ops {
namespace {

constexpr int64_t kCodesInByte = 2;
constexpr int64_t kColumnStep = 32;

void check_values(const ov::Node& node, size_t index, const char* what) {
    const auto& type = node.get_input_element_type(index);
    NODE_VALIDATION_CHECK(&node,
                          type == ov::element::f32 || type == ov::element::f16 ||
                              type == ov::element::bf16 || type == ov::element::dynamic,
                          what, " (input ", index, ") must be f32 or f16, got ", type);
    const auto rank = node.get_input_partial_shape(index).rank();
    NODE_VALIDATION_CHECK(
        &node, rank.is_dynamic() || (rank.get_length() >= 1 && rank.get_length() <= 4), what,
        " (input ", index, ") must have rank 1 to 4, got ", node.get_input_partial_shape(index));
}

void check_type(const ov::Node& node, size_t index, const char* what) {
    check_values(node, index, what);
    ov::element::Type merged;
    NODE_VALIDATION_CHECK(&node,
                          ov::element::Type::merge(merged, node.get_input_element_type(0),
                                                   node.get_input_element_type(index)),
                          what, " (input ", index, ") must have the type of input 0, ",
                          node.get_input_element_type(0), ", got ",
                          node.get_input_element_type(index));
}

/// Merges the shape of input `index`, which must be that of input 0, into `shape`.
void check_same(const ov::Node& node, size_t index, const char* what, ov::PartialShape& shape) {
    check_type(node, index, what);
    NODE_VALIDATION_CHECK(&node,
                          ov::PartialShape::merge_into(shape, node.get_input_partial_shape(index)),
                          what, " (input ", index, ") must have the shape of input 0, ", shape,
                          ", got ", node.get_input_partial_shape(index));
}

/// The bits of a float attribute as one more attribute, NAME_bits, for the OpenCL kernel: the GPU
/// plugin writes floats with six decimals. What a file says there does not count.
void show_bits(ov::AttributeVisitor& visitor, const std::string& name, float value) {
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    auto shown = static_cast<int64_t>(bits);
    visitor.on_attribute(name + "_bits", shown);
}

}  // namespace

SwiGLU::SwiGLU(const ov::Output<ov::Node>& gate, const ov::Output<ov::Node>& up, float alpha)
    : Op({gate, up}), alpha_(alpha) {
    constructor_validate_and_infer_types();
}

void SwiGLU::validate_and_infer_types() {
    check_input_count(*this, 2);
    check_values(*this, 0, "gate");
    auto shape = get_input_partial_shape(0);
    check_same(*this, 1, "up", shape);
    set_output_type(0, get_input_element_type(0), shape);
}

bool SwiGLU::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("alpha", alpha_);
    show_bits(visitor, "alpha", alpha_);
    return true;
}

std::shared_ptr<ov::Node> SwiGLU::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    check_new_args_count(this, inputs);
    return std::make_shared<SwiGLU>(inputs[0], inputs[1], alpha_);
}

AddRMSNorm::AddRMSNorm(const ov::Output<ov::Node>& x, const ov::Output<ov::Node>& residual,
                       const ov::Output<ov::Node>& gamma, float epsilon)
    : Op({x, residual, gamma}), epsilon_(epsilon) {
    constructor_validate_and_infer_types();
}

void AddRMSNorm::validate_and_infer_types() {
    check_input_count(*this, 3);
    check_epsilon(*this, epsilon_);
    check_values(*this, 0, "x");
    auto shape = get_input_partial_shape(0);
    check_same(*this, 1, "residual", shape);
    check_type(*this, 2, "gamma");
    const auto columns =
        shape.rank().is_static() ? shape[shape.size() - 1] : ov::Dimension::dynamic();
    NODE_VALIDATION_CHECK(this, get_input_partial_shape(2).compatible(ov::PartialShape{columns}),
                          "gamma (input 2) must have one value for each column of input 0, ",
                          columns, ", got ", get_input_partial_shape(2));
    set_output_type(0, get_input_element_type(0), shape);
    set_output_type(1, get_input_element_type(0), shape);
}

bool AddRMSNorm::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("epsilon", epsilon_);
    show_bits(visitor, "epsilon", epsilon_);
    return true;
}

std::shared_ptr<ov::Node> AddRMSNorm::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    check_new_args_count(this, inputs);
    return std::make_shared<AddRMSNorm>(inputs[0], inputs[1], inputs[2], epsilon_);
}

Int4MatMul::Int4MatMul(const ov::Output<ov::Node>& x, const ov::Output<ov::Node>& codes,
                       const ov::Output<ov::Node>& scales, int64_t group)
    : Op({x, codes, scales}), group_(group) {
    constructor_validate_and_infer_types();
}

void Int4MatMul::validate_and_infer_types() {
    check_input_count(*this, 3);
    NODE_VALIDATION_CHECK(this, group_ > 0 && group_ % kColumnStep == 0,
                          "group must be a positive multiple of ", kColumnStep, ", got ", group_);
    check_values(*this, 0, "x");
    const auto& codes = get_input_partial_shape(1);
    NODE_VALIDATION_CHECK(
        this,
        get_input_element_type(1) == ov::element::u8 && codes.is_static() && codes.size() == 2,
        "codes (input 1) must be u8 [rows, columns / 2] of known size, got ",
        get_input_element_type(1), " ", codes);
    const int64_t rows = codes[0].get_length();
    const int64_t columns = codes[1].get_length() * kCodesInByte;
    NODE_VALIDATION_CHECK(this, rows > 0 && columns > 0 && columns % group_ == 0,
                          "columns must be a multiple of the group, ", group_, ", got codes ",
                          codes);
    check_type(*this, 2, "scales");
    const ov::PartialShape wanted{rows, columns / group_};
    NODE_VALIDATION_CHECK(this, get_input_partial_shape(2).compatible(wanted),
                          "scales (input 2) must have shape ", wanted, ", got ",
                          get_input_partial_shape(2));
    auto shape = get_input_partial_shape(0);
    if (shape.rank().is_static()) {
        auto& last = shape[shape.size() - 1];
        NODE_VALIDATION_CHECK(this, last.compatible(columns), "the last dimension of x must be ",
                              columns, " (two for each byte of a row of codes), got ", shape);
        last = rows;
    }
    set_output_type(0, get_input_element_type(0), shape);
}

bool Int4MatMul::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("group", group_);
    return true;
}

std::shared_ptr<ov::Node> Int4MatMul::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    check_new_args_count(this, inputs);
    return std::make_shared<Int4MatMul>(inputs[0], inputs[1], inputs[2], group_);
}

}  // namespace ovfast::ops
