#include "apps/bench/graph_costs.hpp"

#include <algorithm>
#include <functional>
#include <openvino/core/type/element_type.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/op/convert.hpp>
#include <openvino/op/convolution.hpp>
#include <openvino/op/fake_quantize.hpp>
#include <openvino/op/group_conv.hpp>
#include <openvino/op/matmul.hpp>
#include <openvino/op/reshape.hpp>
#include <openvino/op/result.hpp>
#include <openvino/op/scaled_dot_product_attention.hpp>
#include <openvino/op/util/gather_base.hpp>
#include <set>

#include "kernels/packed_weights.hpp"
#include "ops/lm_head.hpp"
#include "ops/packed_ops.hpp"

namespace ovfast::bench {
namespace {

using ov::op::v0::Constant;

// Constants behind an input that is made of constants alone, through decompression and whatever
// else is folded; empty otherwise.
using Constants = std::vector<std::shared_ptr<Constant>>;

bool collect(const ov::Output<ov::Node>& output, Constants& found, std::set<ov::Node*>& seen) {
    const auto node = output.get_node_shared_ptr();
    if (!seen.insert(node.get()).second) return true;
    if (const auto constant = ov::as_type_ptr<Constant>(node)) {
        found.push_back(constant);
        return true;
    }
    if (node->get_input_size() == 0) return false;
    // Of these, the other inputs are shapes and axes.
    const std::string type = node->get_type_name();
    if (type == "Reshape" || type == "Transpose" || type == "Squeeze" || type == "Unsqueeze") {
        return collect(node->input_value(0), found, seen);
    }
    for (const auto& input : node->input_values()) {
        if (!collect(input, found, seen)) return false;
    }
    return true;
}

Constants constants_behind(const ov::Output<ov::Node>& output) {
    Constants found;
    std::set<ov::Node*> seen;
    if (!collect(output, found, seen)) found.clear();
    return found;
}

std::optional<double> product(const ov::PartialShape& shape, size_t first, size_t last) {
    double result = 1.0;
    for (size_t i = first; i < last; ++i) {
        if (!shape[i].is_static()) return std::nullopt;
        result *= static_cast<double>(shape[i].get_length());
    }
    return result;
}

std::optional<double> elements(const ov::PartialShape& shape) {
    if (shape.rank().is_dynamic()) return std::nullopt;
    return product(shape, 0, shape.size());
}

// All dimensions but the last.
std::optional<double> rows_of(const ov::PartialShape& shape) {
    if (shape.rank().is_dynamic() || shape.size() == 0) return std::nullopt;
    return product(shape, 0, shape.size() - 1);
}

bool leads_to_result(const ov::Node& node) {
    for (const auto& output : node.outputs()) {
        for (const auto& input : output.get_target_inputs()) {
            const ov::Node* next = input.get_node();
            if (ov::is_type<ov::op::v0::Result>(next)) return true;
            const bool passes =
                ov::is_type<ov::op::v0::Convert>(next) || ov::is_type<ov::op::v1::Reshape>(next);
            if (passes && leads_to_result(*next)) return true;
        }
    }
    return false;
}

bool is_quantized(const ov::Output<ov::Node>& output) {
    return ov::is_type<ov::op::v0::FakeQuantize>(output.get_node());
}

class Counter {
public:
    explicit Counter(GraphCosts& costs) : costs_(costs) {}

    void visit(const std::shared_ptr<ov::Node>& node) {
        NodeCost cost;
        cost.name = node->get_friendly_name();
        cost.type = node->get_type_name();
        cost.logits = leads_to_result(*node);
        bool known = true;
        if (const auto op = std::dynamic_pointer_cast<ops::PackedOp>(node)) {
            known = packed(*op, cost);
        } else if (const auto matmul = ov::as_type_ptr<ov::op::v0::MatMul>(node)) {
            multiply(*matmul, cost);
        } else if (is_convolution(*node)) {
            convolve(*node, cost);
        } else if (ov::is_type<ov::op::v13::ScaledDotProductAttention>(node)) {
            attend(*node, cost);
        } else if (ov::is_type<ov::op::util::GatherBase>(node)) {
            gather(*node, cost);
            known = cost.bytes_a_row > 0;
            if (!known) return;
        } else {
            static const std::set<std::string> heavy{"LSTMSequence",
                                                     "GRUSequence",
                                                     "RNNSequence",
                                                     "LSTMCell",
                                                     "GRUCell",
                                                     "RNNCell",
                                                     "TensorIterator",
                                                     "Loop",
                                                     "If",
                                                     "DeformableConvolution",
                                                     "Einsum",
                                                     "BinaryConvolution"};
            if (heavy.count(cost.type) != 0) ++costs_.not_counted[cost.type];
            return;
        }
        if (!known) {
            ++costs_.not_counted[cost.type];
            return;
        }
        costs_.nodes.push_back(std::move(cost));
    }

private:
    static bool is_convolution(const ov::Node& node) {
        return ov::is_type<ov::op::v1::Convolution>(&node) ||
               ov::is_type<ov::op::v1::GroupConvolution>(&node) ||
               ov::is_type<ov::op::v1::ConvolutionBackpropData>(&node) ||
               ov::is_type<ov::op::v1::GroupConvolutionBackpropData>(&node);
    }

    uint64_t add(const Constant& constant, const std::string& type, uint64_t bytes,
                 NodeCost& cost) {
        cost.weights[type] += bytes;
        if (seen_.insert(constant.get_data_ptr()).second) costs_.weights[type] += bytes;
        return bytes;
    }

    uint64_t add(const Constants& constants, NodeCost& cost) {
        uint64_t bytes = 0;
        for (const auto& constant : constants) {
            bytes += add(*constant, constant->get_element_type().get_type_name(),
                         constant->get_byte_size(), cost);
        }
        return bytes;
    }

    // The largest constant holds the weights; scales and zero points are smaller.
    static bool integers(const Constants& constants) {
        const auto largest =
            std::max_element(constants.begin(), constants.end(), [](const auto& a, const auto& b) {
                return ov::shape_size(a->get_shape()) < ov::shape_size(b->get_shape());
            });
        return largest != constants.end() && (*largest)->get_element_type().is_integral_number();
    }

    void multiply(const ov::op::v0::MatMul& node, NodeCost& cost) {
        const ov::PartialShape& a = node.get_input_partial_shape(0);
        const ov::PartialShape& b = node.get_input_partial_shape(1);
        const ov::PartialShape& out = node.get_output_partial_shape(0);
        for (const size_t side : {1, 0}) {
            const Constants constants = constants_behind(node.input_value(side));
            const ov::PartialShape& shape = side == 1 ? b : a;
            if (constants.empty() || shape.is_dynamic()) continue;
            cost.bytes = add(constants, cost);
            cost.int8 = integers(constants) || is_quantized(node.input_value(1 - side));
            cost.operations_a_row = 2.0 * *elements(shape);
            if (shape.size() == 2 && side == 1) {
                cost.rows = rows_of(out);
            } else {  // every element of the output takes the inner dimension
                const auto outputs = elements(out);
                const double inner = inner_dimension(node, shape, side);
                if (outputs) cost.rows = 2.0 * *outputs * inner / cost.operations_a_row;
            }
            return;
        }
        // Attention and the like: of two activations.
        const ov::PartialShape& first = a.rank().is_static() && a.size() > 0 ? a : b;
        const auto outputs = elements(out);
        cost.int8 = is_quantized(node.input_value(0)) && is_quantized(node.input_value(1));
        if (!outputs || first.rank().is_dynamic()) return;
        const ov::Dimension inner =
            first.size() == 1 ? first[0] : first[first.size() - (node.get_transpose_a() ? 2 : 1)];
        if (!inner.is_static()) return;
        cost.operations_a_pair = 2.0 * static_cast<double>(inner.get_length());
        cost.pairs = *outputs;
    }

    static double inner_dimension(const ov::op::v0::MatMul& node, const ov::PartialShape& weights,
                                  size_t side) {
        if (weights.size() == 1) return static_cast<double>(weights[0].get_length());
        const bool last = side == 1 ? node.get_transpose_b() : !node.get_transpose_a();
        return static_cast<double>(weights[weights.size() - (last ? 1 : 2)].get_length());
    }

    // At each position of the output (of the input, when transposed) the whole filter is used; a
    // grouped one is [groups, out / groups, in / groups, ...], which is the same product.
    void convolve(const ov::Node& node, NodeCost& cost) {
        const bool transposed = ov::is_type<ov::op::v1::ConvolutionBackpropData>(&node) ||
                                ov::is_type<ov::op::v1::GroupConvolutionBackpropData>(&node);
        const Constants constants = constants_behind(node.input_value(1));
        cost.bytes = add(constants, cost);
        cost.int8 = is_quantized(node.input_value(0));
        const ov::PartialShape& filter = node.get_input_partial_shape(1);
        if (filter.is_dynamic()) return;
        cost.operations_a_row = 2.0 * *elements(filter);
        // Positions: batch and space, without channels.
        const ov::PartialShape& shape =
            transposed ? node.get_input_partial_shape(0) : node.get_output_partial_shape(0);
        if (shape.rank().is_dynamic() || shape.size() < 3) return;
        const auto space = product(shape, 2, shape.size());
        if (space && shape[0].is_static()) {
            cost.rows = *space * static_cast<double>(shape[0].get_length());
        }
    }

    void attend(const ov::Node& node, NodeCost& cost) {
        const ov::PartialShape& q = node.get_input_partial_shape(0);
        const ov::PartialShape& k = node.get_input_partial_shape(1);
        const ov::PartialShape& v = node.get_input_partial_shape(2);
        if (q.rank().is_dynamic() || k.rank().is_dynamic() || v.rank().is_dynamic()) return;
        const ov::Dimension key = q[q.size() - 1].is_static() ? q[q.size() - 1] : k[k.size() - 1];
        const ov::Dimension value = v[v.size() - 1].is_static() ? v[v.size() - 1] : key;
        double heads = 1.0;
        for (size_t i = 1; i + 2 < q.size(); ++i) {
            if (!q[i].is_static()) return;
            heads *= static_cast<double>(q[i].get_length());
        }
        if (!key.is_static() || !value.is_static()) return;
        cost.operations_a_pair =
            2.0 * heads * static_cast<double>(key.get_length() + value.get_length());
        const ov::Dimension queries = q[q.size() - 2];
        const ov::Dimension keys = k[k.size() - 2];
        if (q[0].is_static() && queries.is_static() && keys.is_static()) {
            cost.pairs =
                static_cast<double>(q[0].get_length() * queries.get_length() * keys.get_length());
        }
    }

    // Of a table of constants; anything else that gathers costs nothing worth counting.
    void gather(const ov::Node& node, NodeCost& cost) {
        const Constants constants = constants_behind(node.input_value(0));
        const ov::PartialShape& table = node.get_input_partial_shape(0);
        if (constants.empty() || table.is_dynamic() || table.size() != 2) return;
        uint64_t bytes = 0;
        for (const auto& constant : constants) bytes += constant->get_byte_size();
        if (bytes < 4096) return;
        add(constants, cost);
        cost.bytes_a_row = bytes / static_cast<uint64_t>(table[0].get_length());
        cost.rows = elements(node.get_input_partial_shape(1));
        cost.logits = false;
    }

    bool packed(const ops::PackedOp& node, NodeCost& cost) {
        std::vector<uint64_t> sizes;
        for (const auto& input : node.input_values()) {
            const auto constant = ov::as_type_ptr<Constant>(input.get_node_shared_ptr());
            if (!constant || constant->get_element_type() != ov::element::u8) continue;
            const auto weights = kernels::PackedWeights::view(
                static_cast<const std::byte*>(constant->get_data_ptr()), constant->get_byte_size());
            sizes.push_back(
                add(*constant, "packed " + weights.format().text(), weights.bytes(), cost));
            cost.operations_a_row +=
                2.0 * static_cast<double>(weights.rows()) * static_cast<double>(weights.columns());
        }
        if (sizes.empty()) return false;
        cost.rows = rows_of(node.get_input_partial_shape(0));
        cost.int8 = node.mode().precision != ops::Activations::Exact;
        for (const uint64_t size : sizes) cost.bytes += size;
        if (const auto* table = dynamic_cast<const ops::Embedding*>(&node)) {
            cost.bytes_a_row = cost.bytes / static_cast<uint64_t>(table->attributes().rows);
            cost.bytes = 0;
            cost.operations_a_row = 0.0;
            cost.rows = elements(node.get_input_partial_shape(0));
            cost.logits = false;
        } else if (dynamic_cast<const ops::LMHead*>(&node) != nullptr) {
            cost.bytes = sizes.front();  // the low halves only of what may be the largest
            cost.operations_a_row /= 2.0;
        }
        return true;
    }

    GraphCosts& costs_;
    std::set<const void*> seen_;
};

Work work_of(const NodeCost& node, double rows, double pairs) {
    Work work;
    work.bytes = static_cast<double>(node.bytes) + static_cast<double>(node.bytes_a_row) * rows;
    const double operations = node.operations_a_row * rows + node.operations_a_pair * pairs;
    (node.int8 ? work.int8_operations : work.f32_operations) = operations;
    return work;
}

}  // namespace

uint64_t GraphCosts::weight_bytes() const {
    uint64_t sum = 0;
    for (const auto& [type, bytes] : weights) sum += bytes;
    return sum;
}

GraphCosts count_graph(const std::shared_ptr<const ov::Model>& model) {
    GraphCosts costs;
    Counter counter(costs);
    for (const auto& node : model->get_ordered_ops()) counter.visit(node);
    return costs;
}

Work& Work::operator+=(const Work& other) {
    bytes += other.bytes;
    int8_operations += other.int8_operations;
    f32_operations += other.f32_operations;
    return *this;
}

std::optional<Work> inference_work(const NodeCost& node) {
    const bool by_row = node.operations_a_row > 0.0 || node.bytes_a_row > 0;
    if (by_row ? !node.rows : !node.pairs) return std::nullopt;
    return work_of(node, node.rows.value_or(0.0), node.pairs.value_or(0.0));
}

Work inference_work(const GraphCosts& costs, bool& incomplete) {
    Work sum;
    incomplete = !costs.not_counted.empty();
    for (const NodeCost& node : costs.nodes) {
        const std::optional<Work> work = inference_work(node);
        if (work) {
            sum += *work;
        } else {
            sum.bytes += static_cast<double>(node.bytes);
            incomplete = true;
        }
    }
    return sum;
}

Work step_work(const NodeCost& node, const StepShape& step) {
    return work_of(node, node.logits ? step.logit_rows : step.tokens, step.pairs);
}

Work step_work(const GraphCosts& costs, const StepShape& step) {
    Work sum;
    for (const NodeCost& node : costs.nodes) sum += step_work(node, step);
    return sum;
}

}  // namespace ovfast::bench
