#include <algorithm>
#include <openvino/op/add.hpp>
#include <openvino/op/convert.hpp>
#include <openvino/op/fake_quantize.hpp>
#include <openvino/op/gather.hpp>
#include <openvino/op/matmul.hpp>
#include <openvino/op/slice.hpp>
#include <openvino/op/split.hpp>
#include <openvino/op/variadic_split.hpp>
#include <queue>
#include <unordered_set>

#include "ops/rewrite_passes.hpp"

namespace ovfast::ops {
namespace {

// An lm_head, rather than a layer.
constexpr size_t kLargeRows = 16384;

using ov::op::v0::Constant;
using Output = ov::Output<ov::Node>;

template <typename T>
std::vector<std::shared_ptr<T>> nodes_of(const ov::Model& model) {
    std::vector<std::shared_ptr<T>> nodes;
    for (const auto& node : model.get_ordered_ops())
        if (auto found = ov::as_type_ptr<T>(node)) nodes.push_back(std::move(found));
    return nodes;
}

/// Bytes of the constants behind an output that a few operations make of constants alone.
uint64_t constant_bytes(const Output& output) {
    constexpr size_t most_nodes = 16;
    uint64_t bytes = 0;
    std::unordered_set<const ov::Node*> seen;
    std::queue<const ov::Node*> queue;
    queue.push(output.get_node());
    for (; !queue.empty() && seen.size() < most_nodes; queue.pop()) {
        if (!seen.insert(queue.front()).second) continue;
        if (const auto* constant = ov::as_type<const Constant>(queue.front()))
            bytes += constant->get_byte_size();
        for (size_t i = 0; i < queue.front()->get_input_size(); ++i)
            queue.push(queue.front()->get_input_node_ptr(i));
    }
    return queue.empty() ? bytes : 0;
}

RewrittenLayer left_alone(const ov::Node& node, const std::string& reason, uint64_t bytes) {
    RewrittenLayer layer;
    layer.name = node.get_friendly_name();
    layer.reason = reason;
    layer.source_bytes = bytes;
    return layer;
}

/// Attention multiplies activations with activations: no weights there, nothing to report.
bool may_have_weights(const ov::op::v0::MatMul& matmul) {
    const auto& shape = matmul.get_input_partial_shape(1);
    if (shape.is_dynamic() || shape.size() < 2) return false;
    const size_t inner = shape.size() - (matmul.get_transpose_b() ? 1 : 2);
    return shape[inner].get_length() > 1;  // K = 1: an outer product, as of rotary angles
}

/// Why a multiplication cannot be a FullyConnected whatever its weights are; empty: it can.
std::string refusal(const ov::op::v0::MatMul& matmul) {
    const auto rank = matmul.get_input_partial_shape(0).rank();
    if (rank.is_dynamic()) return "activations have an unknown number of dimensions";
    if (rank.get_length() < 2 || rank.get_length() > 4)
        return "activations have " + std::to_string(rank.get_length()) + " dimensions";
    if (matmul.get_transpose_a()) return "activations are transposed";
    const auto type = matmul.get_input_element_type(0);
    if (type != ov::element::f32) return "activations are of type " + type.get_type_name();
    if (ov::is_type<ov::op::v0::FakeQuantize>(matmul.get_input_node_ptr(0)))
        return "activations are fake-quantized";
    return "";
}

/// The values that a constant adds to each of `size` outputs of a tensor of `rank` dimensions.
std::optional<std::vector<float>> bias_values(const Output& output, size_t size, size_t rank) {
    const auto& partial = output.get_partial_shape();
    if (partial.is_dynamic() || partial.size() == 0 || partial.size() > rank) return std::nullopt;
    const ov::Shape shape = partial.to_shape();
    if (shape.back() != size || ov::shape_size(shape) != size) return std::nullopt;
    return constant_floats(output);
}

struct Part {
    size_t rows = 0;
    Output output;
};
using Parts = std::vector<Part>;

/// A constant of one whole number.
std::optional<int64_t> integer(const Output& output) {
    const auto constant = ov::as_type_ptr<Constant>(output.get_node_shared_ptr());
    if (!constant || ov::shape_size(constant->get_shape()) != 1) return std::nullopt;
    return constant->cast_vector<int64_t>()[0];
}

bool is_last_axis(const Output& axis, size_t rank) {
    const auto value = integer(axis);
    return value && (*value == -1 || *value == static_cast<int64_t>(rank) - 1);
}

Parts parts_of_split(ov::Node& node, size_t size, size_t rank) {
    Parts parts;
    if (!is_last_axis(node.input_value(1), rank)) return parts;
    for (size_t i = 0; i < node.get_output_size(); ++i) {
        const auto& length = node.get_output_partial_shape(i)[rank - 1];
        if (length.is_dynamic() || length.get_length() == 0) return {};
        parts.push_back({static_cast<size_t>(length.get_length()), node.output(i)});
    }
    size_t sum = 0;
    for (const Part& part : parts) sum += part.rows;
    return sum == size ? parts : Parts{};
}

/// Slices of step 1 along the last axis that tile it.
Parts parts_of_slices(const Output& output, size_t size, size_t rank) {
    std::vector<std::pair<size_t, Part>> found;
    const auto length = static_cast<int64_t>(size);
    for (const auto& input : output.get_target_inputs()) {
        auto* slice = ov::as_type<ov::op::v8::Slice>(input.get_node());
        if (!slice || input.get_index() != 0 || slice->get_input_size() != 5) return {};
        const auto start = integer(slice->input_value(1));
        const auto stop = integer(slice->input_value(2));
        const auto step = integer(slice->input_value(3));
        if (!start || !stop || step != 1 || !is_last_axis(slice->input_value(4), rank)) return {};
        const auto position = [&](int64_t at) {
            return std::clamp<int64_t>(at < 0 ? at + length : at, 0, length);
        };
        const int64_t first = position(*start), last = position(*stop);
        if (first >= last) return {};
        found.push_back(
            {static_cast<size_t>(first), {static_cast<size_t>(last - first), slice->output(0)}});
    }
    std::sort(found.begin(), found.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    Parts parts;
    size_t next = 0;
    for (const auto& [first, part] : found) {
        if (first != next) return {};
        next += part.rows;
        parts.push_back(part);
    }
    return next == size ? parts : Parts{};
}

/// The outputs that take [..., size] apart along its last dimension, in order; itself if none do.
Parts parts_of(const Output& output, size_t size, size_t rank) {
    Parts parts;
    auto* consumer = only_consumer(output);
    if (ov::is_type<ov::op::v1::Split>(consumer) ||
        ov::is_type<ov::op::v1::VariadicSplit>(consumer))
        parts = parts_of_split(*consumer, size, rank);
    else
        parts = parts_of_slices(output, size, rank);
    if (parts.size() < 2) parts = {{size, output}};
    return parts;
}

std::string rewrite(const std::shared_ptr<ov::op::v0::MatMul>& matmul, const WeightSource& source,
                    Packer& packer) {
    const std::string refused = refusal(*matmul);
    if (!refused.empty()) return refused;

    const auto rank = static_cast<size_t>(matmul->get_output_partial_shape(0).rank().get_length());
    Output output = matmul->output(0);
    std::optional<std::vector<float>> bias;
    auto* add = only_consumer(output);
    if (ov::is_type<ov::op::v1::Add>(add)) {
        bias = bias_values(other_input(*add, output), source.rows, rank);
        if (bias) output = add->output(0);
    }
    const Parts parts = parts_of(output, source.rows, rank);
    std::vector<size_t> counts;
    for (const Part& part : parts) counts.push_back(part.rows);
    const auto packed = packer.pack(source, counts);
    if (!packed.value) return packed.reason;

    size_t first = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
        FullyConnected::Attributes attributes;
        attributes.rows = static_cast<int64_t>(parts[i].rows);
        attributes.columns = static_cast<int64_t>(source.columns);
        attributes.bias = bias.has_value();
        ov::OutputVector inputs{matmul->input_value(0), (*packed.value)[i]};
        if (bias)
            inputs.push_back(std::make_shared<Constant>(ov::element::f32, ov::Shape{parts[i].rows},
                                                        bias->data() + first));
        const auto layer = std::make_shared<FullyConnected>(inputs, attributes);
        layer->set_friendly_name(matmul->get_friendly_name() +
                                 (parts.size() > 1 ? "/" + std::to_string(i) : ""));
        replace_output(parts[i].output, layer->output(0));
        first += parts[i].rows;
    }
    return "";
}

bool is_embedding_shape(const ov::op::util::GatherBase& gather) {
    const auto& table = gather.get_input_partial_shape(0);
    const auto axis = integer(gather.input_value(2));
    return table.is_static() && table.size() == 2 && axis && (*axis == 0 || *axis == -2) &&
           gather.get_batch_dims() == 0 && gather.get_input_element_type(0).is_real();
}

/// What reads the embedding in f32: the Gather itself, or every Convert behind it; else a reason.
OrReason<ov::OutputVector> f32_outputs(const Output& output) {
    if (output.get_element_type() == ov::element::f32) return {ov::OutputVector{output}, ""};
    ov::OutputVector outputs;
    for (const auto& input : output.get_target_inputs()) {
        if (!ov::is_type<ov::op::v0::Convert>(input.get_node()) ||
            input.get_node()->get_output_element_type(0) != ov::element::f32)
            return OrReason<ov::OutputVector>::no("rows are of type " +
                                                  output.get_element_type().get_type_name());
        outputs.push_back(input.get_node()->output(0));
    }
    return {std::move(outputs), ""};
}

std::string rewrite(const std::shared_ptr<ov::op::util::GatherBase>& gather,
                    const WeightSource& source, Packer& packer) {
    const auto type = gather->get_input_element_type(1);
    if (type != ov::element::i32 && type != ov::element::i64)
        return "ids are of type " + type.get_type_name();
    const auto outputs = f32_outputs(gather->output(0));
    if (!outputs.value) return outputs.reason;
    const auto packed = packer.pack(source, {source.rows});
    if (!packed.value) return packed.reason;
    const auto embedding =
        std::make_shared<Embedding>(ov::OutputVector{gather->input_value(1), packed.value->front()},
                                    Embedding::Attributes{static_cast<int64_t>(source.rows),
                                                          static_cast<int64_t>(source.columns)});
    embedding->set_friendly_name(gather->get_friendly_name());
    for (const Output& output : *outputs.value) replace_output(output, embedding->output(0));
    return "";
}

}  // namespace

uint64_t weight_bytes(const ov::Model& model) {
    uint64_t sum = 0;
    std::unordered_set<const ov::Node*> counted;
    const auto count = [&](const Output& weights, bool transposed) {
        const auto source = find_weights(weights, transposed);
        if (source.value && counted.insert(source.value->values.get()).second)
            sum += source.value->bytes();
    };
    for (const auto& matmul : nodes_of<ov::op::v0::MatMul>(model))
        if (may_have_weights(*matmul)) count(matmul->input_value(1), !matmul->get_transpose_b());
    for (const auto& gather : nodes_of<ov::op::util::GatherBase>(model))
        if (is_embedding_shape(*gather)) count(gather->input_value(0), false);
    return sum;
}

std::vector<RewrittenLayer> rewrite_layers(const ov::Model& model, Packer& packer, bool large) {
    std::vector<RewrittenLayer> left;
    for (auto& node : nodes_of<ov::op::v0::MatMul>(model)) {
        const auto matmul = std::move(node);  // its weights are freed at the end of its turn
        if (!may_have_weights(*matmul)) continue;
        const Output weights = matmul->input_value(1);
        const auto source = find_weights(weights, !matmul->get_transpose_b());
        const bool is_large = source.value && source.value->rows >= kLargeRows;
        if (is_large != large) continue;
        const std::string reason =
            source.value ? rewrite(matmul, *source.value, packer) : source.reason;
        if (!reason.empty()) left.push_back(left_alone(*matmul, reason, constant_bytes(weights)));
    }
    return left;
}

std::vector<RewrittenLayer> rewrite_embeddings(const ov::Model& model, Packer& packer) {
    std::vector<RewrittenLayer> left;
    for (auto& node : nodes_of<ov::op::util::GatherBase>(model)) {
        const auto gather = std::move(node);
        if (!is_embedding_shape(*gather)) continue;
        const Output table = gather->input_value(0);
        const auto source = find_weights(table, false);
        const std::string reason =
            source.value ? rewrite(gather, *source.value, packer) : source.reason;
        if (reason == kNotConstant) continue;  // a choice of activations' rows
        if (!reason.empty()) left.push_back(left_alone(*gather, reason, constant_bytes(table)));
    }
    return left;
}

}  // namespace ovfast::ops
