#include "ops/unfused.hpp"

#include <map>
#include <openvino/core/graph_util.hpp>
#include <openvino/core/rt_info.hpp>
#include <openvino/opsets/opset13.hpp>
#include <stdexcept>

#include "kernels/pack.hpp"
#include "ops/device_ops.hpp"
#include "ops/lm_head.hpp"
#include "ops/packed_ops.hpp"

namespace ovfast::ops {
namespace {

namespace op = ov::opset13;
using Value = ov::Output<ov::Node>;

Value scalar(float value, const ov::element::Type& type = ov::element::f32) {
    return op::Constant::create(type, {}, {value});
}

class Unfuser {
public:
    /// The standard form of a node's outputs; nothing when it is not one of ours.
    ov::OutputVector operator()(const std::shared_ptr<ov::Node>& node) {
        if (const auto fc = ov::as_type_ptr<FullyConnected>(node)) return unfuse(*fc);
        if (const auto qkv = ov::as_type_ptr<QKV>(node)) return unfuse(*qkv);
        if (const auto mlp = ov::as_type_ptr<GatedMLP>(node)) return unfuse(*mlp);
        if (const auto embedding = ov::as_type_ptr<Embedding>(node)) return unfuse(*embedding);
        if (const auto head = ov::as_type_ptr<LMHead>(node)) return unfuse(*head);
        if (const auto swiglu = ov::as_type_ptr<SwiGLU>(node)) return unfuse(*swiglu);
        if (const auto sum = ov::as_type_ptr<AddRMSNorm>(node)) return unfuse(*sum);
        if (const auto int4 = ov::as_type_ptr<Int4MatMul>(node)) return unfuse(*int4);
        return {};
    }

private:
    Value weights(const ov::Node& node, size_t index) {
        const auto* constant = dynamic_cast<const op::Constant*>(node.get_input_node_ptr(index));
        OPENVINO_ASSERT(constant, node.get_friendly_name(), ": input ", index,
                        " must be a constant of packed weights to be unfused, got ",
                        node.get_input_node_ptr(index)->get_type_name());
        Value& unpacked = unpacked_[constant];
        if (!unpacked.get_node()) {
            try {
                const auto packed = kernels::PackedWeights::view(constant->get_data_ptr(),
                                                                 constant->get_byte_size());
                packed.verify();
                unpacked = op::Constant::create(ov::element::f32, {packed.rows(), packed.columns()},
                                                kernels::unpack(packed));
            } catch (const std::invalid_argument& error) {
                OPENVINO_THROW(node.get_friendly_name(), ": the packed weights of input ", index,
                               " cannot be used: ", error.what());
            }
        }
        return unpacked;
    }

    static Value norm(const Value& x, const Value& gamma, float epsilon) {
        const auto squares = std::make_shared<op::Multiply>(x, x);
        const auto mean = std::make_shared<op::ReduceMean>(
            squares, op::Constant::create(ov::element::i64, {1}, {-1}), true);
        const auto root = std::make_shared<op::Sqrt>(
            std::make_shared<op::Add>(mean, scalar(epsilon, x.get_element_type())));
        return std::make_shared<op::Multiply>(std::make_shared<op::Divide>(x, root), gamma);
    }

    Value linear(const ov::Node& node, const Value& x, size_t index) {
        return std::make_shared<op::MatMul>(x, weights(node, index), false, true);
    }

    static Value sum(const Value& a, const Value& b) { return std::make_shared<op::Add>(a, b); }

    ov::OutputVector unfuse(const LMHead& node) {
        const auto& a = node.attributes();
        Value x = node.input_value(0);
        if (a.norm) x = norm(x, node.input_value(LMHead::kGammaInput), a.epsilon);
        return {sum(linear(node, x, 1), linear(node, x, 2))};
    }

    ov::OutputVector unfuse(const FullyConnected& node) {
        const auto& a = node.attributes();
        size_t next = 2;
        Value x = node.input_value(0);
        if (a.norm) x = norm(x, node.input_value(next++), a.epsilon);
        Value y = linear(node, x, 1);
        if (a.bias) y = sum(y, node.input_value(next++));
        if (a.residual) y = sum(y, node.input_value(next));
        return {y};
    }

    ov::OutputVector unfuse(const QKV& node) {
        const auto& a = node.attributes();
        size_t next = 4;
        Value x = node.input_value(0);
        if (a.norm) x = norm(x, node.input_value(next++), a.epsilon);
        ov::OutputVector outputs;
        for (size_t i = 0; i < 3; ++i) {
            outputs.push_back(linear(node, x, 1 + i));
            if ((a.biases >> i) & 1) outputs[i] = sum(outputs[i], node.input_value(next++));
        }
        return outputs;
    }

    ov::OutputVector unfuse(const GatedMLP& node) {
        const auto& a = node.attributes();
        size_t next = 4;
        Value x = node.input_value(0);
        if (a.norm) x = norm(x, node.input_value(next++), a.epsilon);
        Value gate = linear(node, x, 1);
        if (a.gate == Gate::Silu) {
            gate = std::make_shared<op::Swish>(gate);
        } else {
            gate = std::make_shared<op::Gelu>(gate, a.gate == Gate::GeluTanh
                                                        ? ov::op::GeluApproximationMode::TANH
                                                        : ov::op::GeluApproximationMode::ERF);
        }
        const auto product = std::make_shared<op::Multiply>(gate, linear(node, x, 2));
        Value y = linear(node, product, 3);
        if (a.residual) y = sum(y, node.input_value(next));
        return {y};
    }

    ov::OutputVector unfuse(const Embedding& node) {
        const auto rows = [&](size_t index) {
            return std::make_shared<op::Gather>(weights(node, index), node.input_value(0),
                                                op::Constant::create(ov::element::i64, {}, {0}));
        };
        if (!node.attributes().halves) return {rows(1)};
        return {sum(rows(1), rows(2))};
    }

    ov::OutputVector unfuse(const SwiGLU& node) {
        const Value gate = node.input_value(0);
        const auto scaled =
            std::make_shared<op::Multiply>(gate, scalar(node.alpha(), gate.get_element_type()));
        return {std::make_shared<op::Multiply>(std::make_shared<op::Swish>(scaled),
                                               node.input_value(1))};
    }

    ov::OutputVector unfuse(const AddRMSNorm& node) {
        const Value total = sum(node.input_value(0), node.input_value(1));
        return {norm(total, node.input_value(2), node.epsilon()), total};
    }

    ov::OutputVector unfuse(const Int4MatMul& node) {
        const auto* codes = dynamic_cast<const op::Constant*>(node.get_input_node_ptr(1));
        OPENVINO_ASSERT(codes, node.get_friendly_name(),
                        ": input 1 must be a constant of codes to be unfused, got ",
                        node.get_input_node_ptr(1)->get_type_name());
        const auto rows = static_cast<int64_t>(codes->get_shape()[0]);
        const auto columns = static_cast<int64_t>(2 * codes->get_shape()[1]);
        const int64_t groups = columns / node.group();
        const auto type = node.get_input_element_type(0);
        const auto shaped = [](const Value& value, std::vector<int64_t> shape) {
            const auto target = op::Constant::create(ov::element::i64, {shape.size()}, shape);
            return std::make_shared<op::Reshape>(value, target, false);
        };
        // The same bytes, read as what they are.
        const auto u4 = std::make_shared<op::Constant>(
            ov::element::u4,
            ov::Shape{static_cast<size_t>(rows), static_cast<size_t>(groups),
                      static_cast<size_t>(node.group())},
            codes->get_data_ptr());
        const auto centered = std::make_shared<op::Subtract>(
            std::make_shared<op::Convert>(u4, type), scalar(float{Int4MatMul::kZeroPoint}, type));
        const auto weights = std::make_shared<op::Multiply>(
            centered, shaped(node.input_value(2), {rows, groups, 1}));
        return {std::make_shared<op::MatMul>(node.input_value(0), shaped(weights, {rows, columns}),
                                             false, true)};
    }

    // A constant that several nodes share is unpacked once.
    std::map<const op::Constant*, Value> unpacked_;
};

}  // namespace

size_t unfuse(const std::shared_ptr<ov::Model>& model) {
    Unfuser unfused;
    size_t replaced = 0;
    for (const auto& node : model->get_ordered_ops()) {
        const auto outputs = unfused(node);
        if (outputs.empty()) continue;
        outputs[0].get_node()->set_friendly_name(node->get_friendly_name());
        for (const auto& output : outputs) {
            ov::copy_runtime_info(node, output.get_node_shared_ptr());
        }
        ov::replace_node(node, outputs);
        ++replaced;
    }
    return replaced;
}

}  // namespace ovfast::ops
