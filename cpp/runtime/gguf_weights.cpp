#include "runtime/gguf_weights.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <openvino/op/constant.hpp>
#include <openvino/op/reshape.hpp>
#include <string_view>

namespace ovfast {
namespace {

// How the frontend names the decompressed weights of a tensor.
constexpr std::string_view kPrefix = "weight.weight_";
constexpr size_t kSampledRows = 16;

using Constant = ov::op::v0::Constant;

std::vector<size_t> sampled(size_t rows) {
    std::vector<size_t> picked;
    const size_t count = std::min(rows, kSampledRows);
    for (size_t i = 0; i < count; ++i)
        picked.push_back(i * (rows - 1) / std::max<size_t>(count - 1, 1));
    return picked;
}

/// The picked ones of a constant's `rows` rows, or all of it when it has no row for each; null when
/// a row does not begin at a byte.
std::shared_ptr<Constant> pick(const Constant& constant, size_t rows,
                               const std::vector<size_t>& picked) {
    ov::Shape shape = constant.get_shape();
    if (shape.empty() || shape[0] != rows) return std::make_shared<Constant>(constant);
    const size_t bits = ov::shape_size(shape) / rows * constant.get_element_type().bitwidth();
    if (bits % 8 != 0) return nullptr;
    const auto* data = static_cast<const std::byte*>(constant.get_data_ptr());
    std::vector<std::byte> bytes(picked.size() * bits / 8);
    for (size_t i = 0; i < picked.size(); ++i) {
        std::memcpy(bytes.data() + i * bits / 8, data + picked[i] * bits / 8, bits / 8);
    }
    shape[0] = picked.size();
    return std::make_shared<Constant>(constant.get_element_type(), shape, bytes.data());
}

/// Computes the picked rows of a decompression: conversions, arithmetic and reshapes of constants
/// that keep the rows first. Null for anything else.
std::shared_ptr<Constant> evaluate_rows(const ov::Node& node, size_t rows, size_t columns,
                                        const std::vector<size_t>& picked) {
    if (const auto* constant = ov::as_type<const Constant>(&node)) {
        return pick(*constant, rows, picked);
    }
    const bool reshape = ov::is_type<ov::op::v1::Reshape>(&node);
    ov::OutputVector inputs;
    for (size_t i = 0; i < (reshape ? 1 : node.get_input_size()); ++i) {
        const auto input = evaluate_rows(*node.get_input_node_ptr(i), rows, columns, picked);
        if (!input) return nullptr;
        inputs.push_back(input);
    }
    if (reshape) {
        const auto& from = *ov::as_type_ptr<Constant>(inputs[0].get_node_shared_ptr());
        const ov::Shape shape{picked.size(), columns};
        if (ov::shape_size(from.get_shape()) != ov::shape_size(shape)) return nullptr;
        return std::make_shared<Constant>(from, shape);
    }
    if (inputs.empty()) return nullptr;
    ov::OutputVector folded(1);
    const auto copy = node.clone_with_new_inputs(inputs);
    if (!copy->constant_fold(folded, inputs)) return nullptr;
    return ov::as_type_ptr<Constant>(folded[0].get_node_shared_ptr());
}

/// How far the frontend's weights may be from the file's, as a share of the row's largest. Where it
/// keeps scales and codes, f16 arithmetic: some 2^-11. Types with minimums: it rounds the minimum
/// to a multiple of the scale, half of it at most, and 15 scales span a group, which is no
/// wider than twice the largest weight. Rows of other weights differ by about the largest itself.
float tolerance(const std::string& type) {
    const bool has_minimum = type == "Q4_K" || type == "Q4_1" || type == "Q5_K" || type == "Q5_1";
    return has_minimum ? 0.08F : 0.005F;
}

}  // namespace

GgufWeights::GgufWeights(const std::filesystem::path& file, const GgufHeader& header,
                         const ov::Model& model)
    : file_(file), pages_(file) {
    for (const GgufTensor& tensor : header.tensors) tensors_[tensor.name] = tensor;
    for (const auto& node : model.get_ops()) {
        const std::string& name = node->get_friendly_name();
        if (name.compare(0, kPrefix.size(), kPrefix) == 0) nodes_[name] = node;
    }
}

std::optional<kernels::PlainWeights> GgufWeights::find(const std::string& name,
                                                       const ops::RewriteOptions::Piece& piece) {
    const size_t rows = piece.rows;
    const size_t columns = piece.columns;
    const auto node = nodes_.find(name);
    if (node == nodes_.end()) return std::nullopt;
    const auto found = tensors_.find(name.substr(kPrefix.size()));
    if (found == tensors_.end()) return std::nullopt;
    const GgufTensor& tensor = found->second;
    std::vector<uint64_t> shape = tensor.shape;
    while (shape.size() > 2 && shape.back() == 1) shape.pop_back();
    if (!kernels::gguf_type_packs(tensor.type) || shape != std::vector<uint64_t>{columns, rows} ||
        tensor.offset > file_.size() || tensor.size > file_.size() - tensor.offset) {
        return std::nullopt;
    }
    const std::shared_ptr<ov::Node> graph = node->second.lock();
    // Judged once: the graph's own weights may be gone when later pieces are asked for.
    if (piece.first == 0 && (!graph || !agrees(*graph, tensor, rows, columns))) {
        notes_.push_back(
            "'" + tensor.name +
            "' was packed from the converted graph: its rows are not those of the file");
        return std::nullopt;
    }
    const size_t row_bytes = tensor.size / rows;
    auto weights =
        kernels::from_gguf(tensor.type, file_.data() + tensor.offset + piece.first * row_bytes,
                           piece.count * row_bytes, piece.count, columns);
    pages_.drop();  // or they would be resident beside what was made of them
    return weights;
}

bool GgufWeights::agrees(const ov::Node& graph, const GgufTensor& tensor, size_t rows,
                         size_t columns) const {
    const std::vector<size_t> picked = sampled(rows);
    const auto constant = evaluate_rows(graph, rows, columns, picked);
    if (!constant || constant->get_shape() != ov::Shape{picked.size(), columns}) return false;
    const std::vector<float> theirs = constant->cast_vector<float>();
    const size_t row_bytes = tensor.size / rows;
    for (size_t i = 0; i < picked.size(); ++i) {
        const kernels::PlainWeights plain =
            kernels::from_gguf(tensor.type, file_.data() + tensor.offset + picked[i] * row_bytes,
                               row_bytes, 1, columns);
        std::vector<std::byte> packed(kernels::packed_bytes(plain.format, 1, columns) + 64);
        kernels::pack(plain, packed.data());
        const std::vector<float> ours =
            kernels::unpack(kernels::PackedWeights::view(packed.data(), packed.size()));
        float largest = 0.0F;
        float difference = 0.0F;
        for (size_t k = 0; k < columns; ++k) {
            largest = std::max(largest, std::abs(ours[k]));
            difference = std::max(difference, std::abs(ours[k] - theirs[i * columns + k]));
        }
        // Written so that a NaN disagrees.
        if (!(difference <= tolerance(tensor.type) * largest)) return false;
    }
    return true;
}

}  // namespace ovfast
