#include <array>

#include "ops/op_checks.hpp"
#include "ops/packed_ops.hpp"
#include "ops/parallel_linear.hpp"

namespace ovfast::ops {
namespace {

constexpr std::array<const char*, 3> kNames = {"q", "k", "v"};
constexpr std::array<const char*, 3> kBiasNames = {"bias of q", "bias of k", "bias of v"};

std::array<int64_t, 3> row_counts(const QKV::Attributes& a) {
    return {a.q_rows, a.k_rows, a.v_rows};
}

}  // namespace

QKV::QKV(const ov::OutputVector& inputs, const Attributes& attributes)
    : PackedOp(inputs), attributes_(attributes) {
    constructor_validate_and_infer_types();
}

void QKV::validate_and_infer_types() {
    const auto& a = attributes_;
    const auto counts = row_counts(a);
    check_positive(*this, "columns", a.columns);
    check_positive(*this, "q_rows", a.q_rows);
    check_positive(*this, "k_rows", a.k_rows);
    check_positive(*this, "v_rows", a.v_rows);
    check_epsilon(*this, a.epsilon);
    NODE_VALIDATION_CHECK(this, a.biases >= 0 && a.biases <= 7, "biases must be 0 to 7, got ",
                          a.biases);
    size_t biases = 0;
    for (size_t i = 0; i < counts.size(); ++i) biases += (a.biases >> i) & 1;
    check_input_count(*this, size_t{4} + a.norm + biases);
    set_output_size(counts.size());
    for (size_t i = 0; i < counts.size(); ++i) {
        check_packed(*this, 1 + i, kNames[i], counts[i], a.columns);
        set_output_type(i, ov::element::f32, check_rows_input(*this, a.columns, counts[i]));
    }
    size_t next = 4;
    if (a.norm) check_vector(*this, next++, "gamma", a.columns);
    for (size_t i = 0; i < counts.size(); ++i) {
        if ((a.biases >> i) & 1) check_vector(*this, next++, kBiasNames[i], counts[i]);
    }
}

bool QKV::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("columns", attributes_.columns);
    visitor.on_attribute("q_rows", attributes_.q_rows);
    visitor.on_attribute("k_rows", attributes_.k_rows);
    visitor.on_attribute("v_rows", attributes_.v_rows);
    visitor.on_attribute("norm", attributes_.norm);
    visitor.on_attribute("epsilon", attributes_.epsilon);
    visitor.on_attribute("biases", attributes_.biases);
    visit_activations(visitor);
    return true;
}

std::shared_ptr<ov::Node> QKV::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<QKV>(inputs, attributes_);
    copy->share_state(*this);
    return copy;
}

bool QKV::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const auto& a = attributes_;
    const auto counts = row_counts(a);
    const size_t rows = count_rows(*this, inputs[0], a.columns);
    const size_t columns = static_cast<size_t>(a.columns);
    InputNorm norm{nullptr, a.epsilon};
    size_t next = 4;
    if (a.norm) norm.gamma = floats(*this, inputs, next++, columns);
    std::array<kernels::PackedWeights, 3> weights;
    std::array<LinearJob, 3> jobs;
    for (size_t i = 0; i < counts.size(); ++i) {
        weights[i] = packed(1 + i, inputs, counts[i], a.columns);
        jobs[i].weights = &weights[i];
        jobs[i].out = shape_output(outputs[i], inputs[0], counts[i]);
        jobs[i].out_stride = static_cast<size_t>(counts[i]);
        if ((a.biases >> i) & 1) {
            jobs[i].bias = floats(*this, inputs, next++, static_cast<size_t>(counts[i]));
        }
    }
    const float* x = floats(*this, inputs, 0, rows * columns);
    run_linear_jobs(x, rows, columns, norm, jobs.data(), jobs.size(), mode());
    return true;
}

std::pair<size_t, size_t> QKV::packed_inputs() const {
    return {1, 3};
}

}  // namespace ovfast::ops
