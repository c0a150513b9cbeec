#include "ops/lm_head.hpp"

#include <algorithm>
#include <openvino/op/constant.hpp>

#include "ops/op_checks.hpp"
#include "ops/screened_linear.hpp"

namespace ovfast::ops {
LMHead::LMHead(const ov::OutputVector& inputs, const Attributes& attributes)
    : PackedOp(inputs), attributes_(attributes) {
    constructor_validate_and_infer_types();
}

void LMHead::validate_and_infer_types() {
    const auto& a = attributes_;
    check_positive(*this, "rows", a.rows);
    check_positive(*this, "columns", a.columns);
    check_epsilon(*this, a.epsilon);
    check_input_count(*this, kGammaInput + a.norm);
    const auto shape = check_rows_input(*this, a.columns, a.rows);
    check_packed(*this, 1, "the high halves of", a.rows, a.columns);
    check_packed(*this, 2, "the low halves of", a.rows, a.columns);
    check_vector(*this, 3, "bounds", a.rows);
    for (const size_t index : {kTopKInput, kNotCountedInput}) {
        const auto& type = get_input_element_type(index);
        NODE_VALIDATION_CHECK(this, type == ov::element::i64 || type == ov::element::i32, "input ",
                              index, " must be i64 or i32, got ", type);
    }
    if (a.norm) check_vector(*this, kGammaInput, "gamma", a.columns);
    set_output_type(0, ov::element::f32, shape);
}

bool LMHead::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("rows", attributes_.rows);
    visitor.on_attribute("columns", attributes_.columns);
    visitor.on_attribute("norm", attributes_.norm);
    visitor.on_attribute("epsilon", attributes_.epsilon);
    visit_activations(visitor);
    return true;
}

std::shared_ptr<ov::Node> LMHead::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<LMHead>(inputs, attributes_);
    copy->share_state(*this);
    return copy;
}

bool LMHead::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const auto& a = attributes_;
    const size_t rows = count_rows(*this, inputs[0], a.columns);
    const auto width = static_cast<size_t>(a.rows);
    const auto columns = static_cast<size_t>(a.columns);
    const auto high = packed(1, inputs, a.rows, a.columns);
    const auto low = packed(2, inputs, a.rows, a.columns);
    const auto wanted = integers(inputs[kTopKInput]);
    OPENVINO_ASSERT(wanted.size() == 2 && wanted[0] >= 0 && wanted[1] >= 0, get_friendly_name(),
                    ": top_k must be two numbers of at least 0, got ",
                    inputs[kTopKInput].get_shape());
    const auto not_counted = integers(inputs[kNotCountedInput]);
    for (const int64_t index : not_counted) {
        OPENVINO_ASSERT(index >= 0 && static_cast<size_t>(index) < rows * width,
                        get_friendly_name(), ": there is no logit ", index, " of ", rows, " x ",
                        width);
    }

    ScreenedJob job;
    job.high = &high;
    job.low = &low;
    job.bounds = floats(*this, inputs, 3, width);
    job.top_k = static_cast<size_t>(wanted[0]);
    job.counted = std::min(width, static_cast<size_t>(wanted[1]));
    job.not_counted = &not_counted;
    job.out = shape_output(outputs[0], inputs[0], a.rows);
    InputNorm norm{nullptr, a.epsilon};
    std::vector<float> metric;
    if (a.norm) {
        norm.gamma = floats(*this, inputs, kGammaInput, columns);
        if (job.top_k > 0) {
            metric = kernels::screening_metric(norm.gamma, columns);
            job.metric = metric.data();
        }
    }
    run_screened_linear(floats(*this, inputs, 0, rows * columns), rows, columns, norm, job, mode());
    return true;
}

std::pair<size_t, size_t> LMHead::packed_inputs() const {
    return {1, 2};
}

std::shared_ptr<ov::Node> split_to_lm_head(const FullyConnected& layer) {
    using ov::op::v0::Constant;
    const auto& a = layer.attributes();
    const auto* packed = dynamic_cast<const Constant*>(layer.get_input_node_ptr(1));
    const auto* gamma =
        a.norm ? dynamic_cast<const Constant*>(layer.get_input_node_ptr(2)) : nullptr;
    if (packed == nullptr || a.bias || a.residual || (a.norm && gamma == nullptr)) return nullptr;
    const auto weights =
        kernels::PackedWeights::view(packed->get_data_ptr(), packed->get_byte_size());
    if (!kernels::can_split(weights.format())) return nullptr;

    const auto half = [&](const kernels::WeightFormat& format) {
        const size_t bytes = kernels::packed_bytes(format, weights.rows(), weights.columns());
        // 64 more, so that whoever writes the file can align it.
        return std::make_shared<Constant>(ov::element::u8, ov::Shape{bytes + 64});
    };
    const auto high = half(kernels::high_half(weights.format()));
    const auto low = half(kernels::low_half(weights.format()));
    const auto bounds = std::make_shared<Constant>(ov::element::f32, ov::Shape{weights.rows()});
    std::vector<float> metric;
    if (gamma != nullptr) {
        const auto values = gamma->cast_vector<float>();
        metric = kernels::screening_metric(values.data(), values.size());
    }
    const auto data = [](Constant& constant) {
        // Nobody else holds the constant yet.
        return const_cast<void*>(constant.get_data_ptr());
    };
    kernels::split(weights, metric.empty() ? nullptr : metric.data(), data(*high), data(*low),
                   static_cast<float*>(data(*bounds)));
    ov::OutputVector inputs{layer.input_value(0),
                            high,
                            low,
                            bounds,
                            Constant::create(ov::element::i64, {2}, {0, 0}),
                            Constant::create(ov::element::i64, {0}, std::vector<int64_t>{})};
    if (a.norm) inputs.push_back(layer.input_value(2));
    const auto head =
        std::make_shared<LMHead>(inputs, LMHead::Attributes{a.rows, a.columns, a.norm, a.epsilon});
    head->set_mode(layer.mode());
    head->set_friendly_name(layer.get_friendly_name());
    return head;
}

}  // namespace ovfast::ops
