#include "ops/op_checks.hpp"
#include "ops/packed_ops.hpp"
#include "ops/parallel_linear.hpp"

namespace ovfast::ops {
namespace {

const char* name(Gate gate) {
    switch (gate) {
        case Gate::GeluTanh:
            return "gelu_tanh";
        case Gate::GeluErf:
            return "gelu_erf";
        default:
            return "silu";
    }
}

auto multiply(Gate gate) {
    const auto& vectors = kernels::vector_kernels();
    switch (gate) {
        case Gate::GeluTanh:
            return vectors.gelu_tanh_multiply;
        case Gate::GeluErf:
            return vectors.gelu_erf_multiply;
        default:
            return vectors.silu_multiply;
    }
}

}  // namespace

GatedMLP::GatedMLP(const ov::OutputVector& inputs, const Attributes& attributes)
    : PackedOp(inputs), attributes_(attributes) {
    constructor_validate_and_infer_types();
}

void GatedMLP::validate_and_infer_types() {
    const auto& a = attributes_;
    check_positive(*this, "columns", a.columns);
    check_positive(*this, "intermediate", a.intermediate);
    check_positive(*this, "rows", a.rows);
    check_epsilon(*this, a.epsilon);
    check_input_count(*this, size_t{4} + a.norm + a.residual);
    auto shape = check_rows_input(*this, a.columns, a.rows);
    check_packed(*this, 1, "gate", a.intermediate, a.columns);
    check_packed(*this, 2, "up", a.intermediate, a.columns);
    check_packed(*this, 3, "down", a.rows, a.intermediate);
    size_t next = 4;
    if (a.norm) check_vector(*this, next++, "gamma", a.columns);
    if (a.residual) check_residual(*this, next, shape);
    set_output_type(0, ov::element::f32, shape);
}

bool GatedMLP::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("columns", attributes_.columns);
    visitor.on_attribute("intermediate", attributes_.intermediate);
    visitor.on_attribute("rows", attributes_.rows);
    std::string gate = name(attributes_.gate);
    visitor.on_attribute("gate", gate);
    attributes_.gate = gate == "gelu_tanh"  ? Gate::GeluTanh
                       : gate == "gelu_erf" ? Gate::GeluErf
                                            : Gate::Silu;
    OPENVINO_ASSERT(gate == name(attributes_.gate), get_friendly_name(),
                    ": gate must be \"silu\", \"gelu_tanh\" or \"gelu_erf\", got \"", gate, "\"");
    visitor.on_attribute("norm", attributes_.norm);
    visitor.on_attribute("epsilon", attributes_.epsilon);
    visitor.on_attribute("residual", attributes_.residual);
    visit_activations(visitor);
    return true;
}

std::shared_ptr<ov::Node> GatedMLP::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<GatedMLP>(inputs, attributes_);
    copy->share_state(*this);
    return copy;
}

bool GatedMLP::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const auto& a = attributes_;
    const size_t rows = count_rows(*this, inputs[0], a.columns);
    const size_t columns = static_cast<size_t>(a.columns);
    const auto gate = packed(1, inputs, a.intermediate, a.columns);
    const auto up = packed(2, inputs, a.intermediate, a.columns);
    const auto down = packed(3, inputs, a.rows, a.intermediate);
    GatedMlpJob job;
    job.gate = &gate;
    job.up = &up;
    job.down = &down;
    job.multiply = multiply(a.gate);
    job.out = shape_output(outputs[0], inputs[0], a.rows);
    InputNorm norm{nullptr, a.epsilon};
    size_t next = 4;
    if (a.norm) norm.gamma = floats(*this, inputs, next++, columns);
    if (a.residual) {
        job.residual = floats(*this, inputs, next, rows * static_cast<size_t>(a.rows));
    }
    const float* x = floats(*this, inputs, 0, rows * columns);
    run_gated_mlp(x, rows, columns, norm, job, mode());
    return true;
}

std::pair<size_t, size_t> GatedMLP::packed_inputs() const {
    return {1, 3};
}

}  // namespace ovfast::ops
