#include "ops/rewrite_device.hpp"

#include <openvino/op/add.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/op/multiply.hpp>

#include "ops/device_ops.hpp"
#include "ops/rewrite_passes.hpp"
#include "ops/rms_norm.hpp"

namespace ovfast::ops {
namespace {

using Output = ov::Output<ov::Node>;

bool is_float(const ov::element::Type& type) {
    return type == ov::element::f32 || type == ov::element::f16;
}

/// Whether two values are known to have one shape and a rank that the GPU plugin takes.
bool alike(const Output& a, const Output& b) {
    const auto& left = a.get_partial_shape();
    const auto& right = b.get_partial_shape();
    if (!is_float(a.get_element_type()) || a.get_element_type() != b.get_element_type() ||
        left.rank().is_dynamic() || left.size() < 1 || left.size() > 4 ||
        right.rank() != left.rank()) {
        return false;
    }
    for (size_t i = 0; i < left.size(); ++i) {
        if (left[i] != right[i]) return false;
    }
    return true;
}

bool use_swiglu(const std::shared_ptr<ov::Node>& node) {
    if (!ov::is_type<ov::op::v1::Multiply>(node)) return false;
    for (const size_t side : {0, 1}) {
        const Output activated = node->input_value(side);
        const Output up = node->input_value(1 - side);
        const auto found = find_activation(activated);
        if (!found || found->gate != Gate::Silu || found->input == up ||
            !only_consumer(activated) || !alike(found->input, up)) {
            continue;
        }
        const auto fused = std::make_shared<SwiGLU>(found->input, up);
        fused->set_friendly_name(node->get_friendly_name());
        replace_output(node->output(0), fused->output(0));
        return true;
    }
    return false;
}

bool use_add_rms_norm(const std::shared_ptr<ov::Node>& node) {
    if (node->get_output_size() != 1 || !is_float(node->get_output_element_type(0))) return false;
    const auto norm = find_rms_norm(node->output(0));
    if (!norm) return false;
    auto* sum = norm->x.get_node();
    if (!ov::is_type<ov::op::v1::Add>(sum) || !alike(sum->input_value(0), sum->input_value(1)) ||
        norm->x.get_element_type() != node->get_output_element_type(0)) {
        return false;
    }
    const auto gamma =
        ov::op::v0::Constant::create(norm->x.get_element_type(), {norm->gamma.size()}, norm->gamma);
    const auto fused = std::make_shared<AddRMSNorm>(sum->input_value(0), sum->input_value(1), gamma,
                                                    norm->epsilon);
    fused->set_friendly_name(node->get_friendly_name());
    const Output before = norm->x;
    replace_output(node->output(0), fused->output(0));
    replace_output(before, fused->output(1));
    return true;
}

}  // namespace

size_t use_device_operations(const ov::Model& model) {
    size_t used = 0;
    for (const auto& node : model.get_ordered_ops()) {
        if (use_swiglu(node) || use_add_rms_norm(node)) ++used;
    }
    return used;
}

}  // namespace ovfast::ops
