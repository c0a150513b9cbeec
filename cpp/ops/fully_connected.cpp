#include "ops/op_checks.hpp"
#include "ops/packed_ops.hpp"
#include "ops/parallel_linear.hpp"

namespace ovfast::ops {

FullyConnected::FullyConnected(const ov::OutputVector& inputs, const Attributes& attributes)
    : PackedOp(inputs), attributes_(attributes) {
    constructor_validate_and_infer_types();
}

void FullyConnected::validate_and_infer_types() {
    const auto& a = attributes_;
    check_positive(*this, "rows", a.rows);
    check_positive(*this, "columns", a.columns);
    check_epsilon(*this, a.epsilon);
    check_input_count(*this, size_t{2} + a.norm + a.bias + a.residual);
    auto shape = check_rows_input(*this, a.columns, a.rows);
    check_packed(*this, 1, "the", a.rows, a.columns);
    size_t next = 2;
    if (a.norm) check_vector(*this, next++, "gamma", a.columns);
    if (a.bias) check_vector(*this, next++, "bias", a.rows);
    if (a.residual) check_residual(*this, next, shape);
    set_output_type(0, ov::element::f32, shape);
}

bool FullyConnected::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("rows", attributes_.rows);
    visitor.on_attribute("columns", attributes_.columns);
    visitor.on_attribute("norm", attributes_.norm);
    visitor.on_attribute("epsilon", attributes_.epsilon);
    visitor.on_attribute("bias", attributes_.bias);
    visitor.on_attribute("residual", attributes_.residual);
    visit_activations(visitor);
    return true;
}

std::shared_ptr<ov::Node> FullyConnected::clone_with_new_inputs(
    const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<FullyConnected>(inputs, attributes_);
    copy->share_state(*this);
    return copy;
}

bool FullyConnected::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const auto& a = attributes_;
    const size_t rows = count_rows(*this, inputs[0], a.columns);
    const size_t width = static_cast<size_t>(a.rows);
    const size_t columns = static_cast<size_t>(a.columns);
    const auto weights = packed(1, inputs, a.rows, a.columns);
    LinearJob job;
    job.weights = &weights;
    job.out = shape_output(outputs[0], inputs[0], a.rows);
    job.out_stride = width;
    InputNorm norm{nullptr, a.epsilon};
    size_t next = 2;
    if (a.norm) norm.gamma = floats(*this, inputs, next++, columns);
    if (a.bias) job.bias = floats(*this, inputs, next++, width);
    if (a.residual) {
        job.residual = floats(*this, inputs, next, rows * width);
        job.residual_stride = width;
    }
    const float* x = floats(*this, inputs, 0, rows * columns);
    run_linear_jobs(x, rows, columns, norm, &job, 1, mode());
    return true;
}

std::pair<size_t, size_t> FullyConnected::packed_inputs() const {
    return {1, 1};
}

}  // namespace ovfast::ops
