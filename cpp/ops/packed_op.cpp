#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <openvino/op/constant.hpp>
#include <stdexcept>

#include "ops/packed_ops.hpp"

namespace ovfast::ops {

// Constants are known by their address: a plugin evaluates clones on the very constants of the
// graph, or on copies of them, each of which is verified once. The header is compared too, since
// other bytes can come to lie at the address of freed ones.
struct PackedOp::Checked {
    struct Entry {
        size_t index = 0;
        const void* data = nullptr;
        size_t bytes = 0;
        kernels::PackedHeader header{};
        kernels::PackedWeights weights;

        bool is(size_t index_, const void* data_, size_t bytes_) const {
            return data == data_ && index == index_ && bytes == bytes_ &&
                   std::memcmp(weights.header(), &header, sizeof header) == 0;
        }
    };
    std::mutex mutex;
    // Three weights, each in the file and in a copy or two of plugins; older ones are forgotten.
    std::array<Entry, 16> entries;
    size_t used = 0;
};

PackedOp::PackedOp() : checked_(std::make_shared<Checked>()) {}

PackedOp::PackedOp(const ov::OutputVector& inputs)
    : Op(inputs), checked_(std::make_shared<Checked>()) {}

void PackedOp::share_state(const PackedOp& original) {
    mode_ = original.mode_;
    checked_ = original.checked_;
}

kernels::PackedWeights PackedOp::checked(size_t index, const void* data, size_t bytes,
                                         bool authentic) const {
    Checked& state = *checked_;
    const std::lock_guard lock(state.mutex);
    const auto end = state.entries.begin() + std::min(state.used, state.entries.size());
    const auto known = std::find_if(state.entries.begin(), end, [&](const Checked::Entry& entry) {
        return entry.is(index, data, bytes);
    });
    if (known != end) return known->weights;
    try {
        Checked::Entry entry{index, data, bytes, {}, kernels::PackedWeights::view(data, bytes)};
        if (!authentic) entry.weights.verify();
        std::memcpy(&entry.header, entry.weights.header(), sizeof entry.header);
        state.entries[state.used++ % state.entries.size()] = entry;
        return entry.weights;
    } catch (const std::invalid_argument& error) {
        OPENVINO_THROW(get_friendly_name(), ": the packed weights of input ", index,
                       " cannot be used: ", error.what());
    }
}

kernels::PackedWeights PackedOp::packed(size_t index, const ov::TensorVector& inputs, int64_t rows,
                                        int64_t columns) const {
    const ov::Tensor& input = inputs[index];
    const auto weights = checked(index, input.data(), input.get_byte_size());
    OPENVINO_ASSERT(weights.rows() == static_cast<size_t>(rows) &&
                        weights.columns() == static_cast<size_t>(columns),
                    get_friendly_name(), ": the weights of input ", index, " must be [", rows, ", ",
                    columns, "], the packed ones are [", weights.rows(), ", ", weights.columns(),
                    "]");
    return weights;
}

void PackedOp::verify_weights(bool authentic) const {
    const auto [first, count] = packed_inputs();
    for (size_t index = first; index < first + count; ++index) {
        const auto* constant = dynamic_cast<const ov::op::v0::Constant*>(get_input_node_ptr(index));
        OPENVINO_ASSERT(constant, get_friendly_name(), ": input ", index,
                        " must be a constant of packed weights, got ",
                        get_input_node_ptr(index)->get_type_name());
        checked(index, constant->get_data_ptr(), constant->get_byte_size(), authentic);
    }
}

void PackedOp::visit_activations(ov::AttributeVisitor& visitor) {
    std::string text = to_string(mode_.precision);
    visitor.on_attribute("activations", text);
    const auto parsed = parse_activations(text);
    OPENVINO_ASSERT(parsed, get_friendly_name(),
                    ": activations must be \"int8\", \"int8_g128\" or \"exact\", got \"", text,
                    "\"");
    mode_.precision = *parsed;
}

std::optional<Activations> parse_activations(const std::string& text) {
    if (text == "int8") return Activations::Int8;
    if (text == "int8_g128") return Activations::Int8Group128;
    if (text == "exact") return Activations::Exact;
    return std::nullopt;
}

const char* to_string(Activations activations) {
    switch (activations) {
        case Activations::Int8Group128:
            return "int8_g128";
        case Activations::Exact:
            return "exact";
        default:
            return "int8";
    }
}

}  // namespace ovfast::ops
