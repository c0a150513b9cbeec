#pragma once

#include <chrono>
#include <memory>
#include <openvino/op/ops.hpp>
#include <openvino/openvino.hpp>
#include <thread>

namespace ovfast::bench {

/// Passes its input on after a known time.
class Sleep : public ov::op::Op {
public:
    OPENVINO_OP("Sleep", "ovfast_test")

    Sleep() = default;
    Sleep(const ov::Output<ov::Node>& input, int64_t microseconds)
        : Op({input}), microseconds_(microseconds) {
        constructor_validate_and_infer_types();
    }

    void validate_and_infer_types() override {
        set_output_type(0, get_input_element_type(0), get_input_partial_shape(0));
    }
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
        return std::make_shared<Sleep>(inputs.at(0), microseconds_);
    }
    bool visit_attributes(ov::AttributeVisitor& visitor) override {
        visitor.on_attribute("microseconds", microseconds_);
        return true;
    }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
        if (microseconds_ < 0) throw std::runtime_error("it was told to fail");
        std::this_thread::sleep_for(std::chrono::microseconds(microseconds_));
        inputs[0].copy_to(outputs[0]);
        return true;
    }
    bool has_evaluate() const override { return true; }

private:
    int64_t microseconds_ = 0;
};

inline std::shared_ptr<ov::op::v0::Parameter> make_input(const std::string& name,
                                                         const ov::element::Type& type,
                                                         const ov::PartialShape& shape) {
    auto input = std::make_shared<ov::op::v0::Parameter>(type, shape);
    input->set_friendly_name(name + "_node");
    input->get_output_tensor(0).set_names({name});
    return input;
}

/// One operation that takes that time; 0 is a model that does nothing.
inline std::shared_ptr<ov::Model> sleeping_model(int64_t microseconds) {
    const auto input = make_input("x", ov::element::f32, {1, 4});
    ov::Output<ov::Node> output = input;
    if (microseconds != 0) output = std::make_shared<Sleep>(input, microseconds);
    return std::make_shared<ov::Model>(ov::OutputVector{output}, ov::ParameterVector{input});
}

}  // namespace ovfast::bench
