#include <tbb/parallel_for.h>

#include <vector>

#include "kernels/pack.hpp"
#include "ops/op_checks.hpp"
#include "ops/packed_ops.hpp"

namespace ovfast::ops {
namespace {

// Prompts: a row costs about a microsecond, entering parallel work two.
constexpr size_t kSerialIds = 16;

/// `low`: what is added to each row, or null.
template <typename Id>
void look_up(const ov::Node& node, const kernels::PackedWeights& weights,
             const kernels::PackedWeights* low, const ov::Tensor& input, float* out) {
    const Id* ids = input.data<const Id>();
    const size_t count = input.get_size();
    for (size_t i = 0; i < count; ++i) {
        OPENVINO_ASSERT(ids[i] >= 0 && static_cast<uint64_t>(ids[i]) < weights.rows(),
                        node.get_friendly_name(), ": id ", ids[i], " at position ", i,
                        " lies outside of the table's ", weights.rows(), " rows");
    }
    const auto one = [&](size_t i) {
        const auto id = static_cast<size_t>(ids[i]);
        float* row = out + i * weights.columns();
        kernels::unpack_row(weights, id, row);
        if (low == nullptr) return;
        thread_local std::vector<float> rest;
        rest.resize(weights.columns());
        kernels::unpack_row(*low, id, rest.data());
        for (size_t k = 0; k < rest.size(); ++k) row[k] += rest[k];
    };
    if (count <= kSerialIds) {
        for (size_t i = 0; i < count; ++i) one(i);
    } else {
        tbb::parallel_for(size_t{0}, count, one, tbb::static_partitioner{});
    }
}

}  // namespace

Embedding::Embedding(const ov::OutputVector& inputs, const Attributes& attributes)
    : PackedOp(inputs), attributes_(attributes) {
    constructor_validate_and_infer_types();
}

void Embedding::validate_and_infer_types() {
    check_positive(*this, "rows", attributes_.rows);
    check_positive(*this, "columns", attributes_.columns);
    check_input_count(*this, 2 + attributes_.halves);
    const auto& type = get_input_element_type(0);
    NODE_VALIDATION_CHECK(this, type == ov::element::i32 || type == ov::element::i64,
                          "ids (input 0) must be i32 or i64, got ", type);
    check_packed(*this, 1, "the", attributes_.rows, attributes_.columns);
    if (attributes_.halves)
        check_packed(*this, 2, "the low halves of", attributes_.rows, attributes_.columns);
    auto shape = get_input_partial_shape(0);
    if (shape.rank().is_static()) shape.push_back(attributes_.columns);
    set_output_type(0, ov::element::f32, shape);
}

bool Embedding::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("rows", attributes_.rows);
    visitor.on_attribute("columns", attributes_.columns);
    visitor.on_attribute("halves", attributes_.halves);
    return true;
}

std::shared_ptr<ov::Node> Embedding::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<Embedding>(inputs, attributes_);
    copy->share_state(*this);
    return copy;
}

bool Embedding::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const auto weights = packed(1, inputs, attributes_.rows, attributes_.columns);
    kernels::PackedWeights low;
    if (attributes_.halves) low = packed(2, inputs, attributes_.rows, attributes_.columns);
    const auto* rest = attributes_.halves ? &low : nullptr;
    ov::Shape shape = inputs[0].get_shape();
    shape.push_back(weights.columns());
    outputs[0].set_shape(shape);
    float* out = outputs[0].data<float>();
    if (inputs[0].get_element_type() == ov::element::i32) {
        look_up<int32_t>(*this, weights, rest, inputs[0], out);
    } else {
        look_up<int64_t>(*this, weights, rest, inputs[0], out);
    }
    return true;
}

std::pair<size_t, size_t> Embedding::packed_inputs() const {
    return {1, 1 + static_cast<size_t>(attributes_.halves)};
}

}  // namespace ovfast::ops
