#include "ops/rewrite_weights.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <openvino/op/add.hpp>
#include <openvino/op/convert.hpp>
#include <openvino/op/fake_quantize.hpp>
#include <openvino/op/multiply.hpp>
#include <openvino/op/reshape.hpp>
#include <openvino/op/subtract.hpp>
#include <openvino/op/transpose.hpp>
#include <openvino/op/util/op_types.hpp>

namespace ovfast::ops {
namespace {

using kernels::FloatKind;
using kernels::OffsetKind;
using kernels::PlainWeights;
using kernels::ScaleKind;
using ov::op::v0::Constant;
using ConstantPtr = std::shared_ptr<Constant>;

bool is_16_or_32_bit_float(const ov::element::Type& type) {
    return type == ov::element::f32 || type == ov::element::f16 || type == ov::element::bf16;
}

bool is_code(const ov::element::Type& type) {
    return type == ov::element::i4 || type == ov::element::u4 || type == ov::element::i8 ||
           type == ov::element::u8;
}

/// The constant behind conversions, or null.
ConstantPtr constant_behind(ov::Output<ov::Node> output) {
    while (const auto convert = ov::as_type_ptr<ov::op::v0::Convert>(output.get_node_shared_ptr()))
        output = convert->input_value(0);
    return ov::as_type_ptr<Constant>(output.get_node_shared_ptr());
}

ConstantPtr float_constant_behind(const ov::Output<ov::Node>& output) {
    const auto constant = constant_behind(output);
    return constant && is_16_or_32_bit_float(constant->get_element_type()) ? constant : nullptr;
}

/// Codes and zero points: Convert(codes), or Convert(codes) - zero points. Returns a reason.
std::string find_codes(const ov::Output<ov::Node>& output, WeightSource& source) {
    ov::Output<ov::Node> codes = output;
    if (ov::is_type<ov::op::v1::Subtract>(output.get_node())) {
        codes = output.get_node()->input_value(0);
        source.zero_points = constant_behind(output.get_node()->input_value(1));
        if (!source.zero_points) return "zero points are not constant";
    }
    source.values = constant_behind(codes);
    if (!source.values) return kNotConstant;
    const auto& type = source.values->get_element_type();
    return is_code(type) ? "" : "weights are of type " + type.get_type_name();
}

/// Whether `shape` reshapes to the matrix [first, second] by joining the two dimensions of groups.
bool joins_groups(const ov::Shape& shape, const ov::Shape& matrix, bool transposed) {
    if (shape.size() != 3 || matrix.size() != 2) return false;
    return transposed ? shape[0] * shape[1] == matrix[0] && shape[2] == matrix[1]
                      : shape[0] == matrix[0] && shape[1] * shape[2] == matrix[1];
}

std::string numbers(const ov::Shape& shape) {
    std::string text;
    for (const size_t dimension : shape)
        text += (text.empty() ? "[" : ", ") + std::to_string(dimension);
    return text + "]";
}

/// [columns][rows] -> [rows][columns], in tiles that stay in the L1 cache.
template <typename T>
std::vector<T> transpose(const std::vector<T>& in, size_t rows, size_t columns) {
    constexpr size_t tile = 64;
    std::vector<T> out(in.size());
    for (size_t row = 0; row < rows; row += tile) {
        for (size_t column = 0; column < columns; column += tile) {
            const size_t last_row = std::min(row + tile, rows);
            const size_t last_column = std::min(column + tile, columns);
            for (size_t r = row; r < last_row; ++r)
                for (size_t c = column; c < last_column; ++c)
                    out[r * columns + c] = in[c * rows + r];
        }
    }
    return out;
}

/// Codes as they lie, unsigned.
std::vector<uint8_t> read_codes(const Constant& constant) {
    const auto type = constant.get_element_type();
    const size_t count = ov::shape_size(constant.get_shape());
    const auto* bytes = static_cast<const uint8_t*>(constant.get_data_ptr());
    std::vector<uint8_t> codes(count);
    if (type == ov::element::u8 || type == ov::element::i8) {
        const uint8_t flip = type == ov::element::i8 ? 0x80 : 0;
        for (size_t i = 0; i < count; ++i) codes[i] = bytes[i] ^ flip;
        return codes;
    }
    const uint8_t flip = type == ov::element::i4 ? 0x88 : 0;
    for (size_t i = 0; i < count / 2; ++i) {
        const uint8_t pair = bytes[i] ^ flip;
        codes[2 * i] = pair & 15;
        codes[2 * i + 1] = pair >> 4;
    }
    if (count % 2 != 0) codes[count - 1] = (bytes[count / 2] ^ flip) & 15;
    return codes;
}

/// The values of a scale or zero point for each row and group, [rows][groups]. Nothing when they
/// differ within a group or do not broadcast to the weights.
std::optional<std::vector<float>> by_row_and_group(const Constant& constant,
                                                   const WeightSource& source, size_t groups) {
    const size_t rank = source.shape.size();
    ov::Shape shape = constant.get_shape();
    while (shape.size() > rank && shape.front() == 1) shape.erase(shape.begin());
    if (shape.size() > rank) return std::nullopt;
    shape.insert(shape.begin(), rank - shape.size(), 1);

    // Axes of rows, groups and columns of a group, in the order in which they are stored.
    const size_t row_axis = source.transposed ? rank - 1 : 0;
    const size_t inner_axis = source.transposed ? rank - 2 : rank - 1;
    size_t row_stride = 0, group_stride = 0, stride = 1;
    for (size_t axis = rank; axis-- > 0;) {
        if (shape[axis] == 1) continue;
        if (shape[axis] != source.shape[axis] || axis == inner_axis) return std::nullopt;
        (axis == row_axis ? row_stride : group_stride) = stride;
        stride *= shape[axis];
    }
    const std::vector<float> values = constant.cast_vector<float>();
    std::vector<float> out(source.rows * groups);
    for (size_t row = 0; row < source.rows; ++row)
        for (size_t group = 0; group < groups; ++group)
            out[row * groups + group] = values[row * row_stride + group * group_stride];
    return out;
}

bool are_f16(const float* values, size_t count) {
    return std::all_of(values, values + count, [](float value) {
        return kernels::from_f16(kernels::to_f16(value)) == value;
    });
}

bool are_bf16(const float* values, size_t count) {
    return std::all_of(values, values + count, [](float value) {
        return kernels::from_bf16(kernels::to_bf16(value)) == value;
    });
}

/// Sets offsets from zero points given as numbers, which may lie beyond the codes (Q4_K as the GGUF
/// frontend rounds it). Returns a reason.
std::string set_zero_points(const std::vector<float>& values, float sign_offset,
                            PlainWeights& weights) {
    const float middle = static_cast<float>(1U << (weights.format.bits - 1));
    weights.zero_points.resize(values.size());
    bool symmetric = true;
    for (size_t i = 0; i < values.size(); ++i) {
        const float value = values[i] + sign_offset;
        if (!(value >= 0.0F && value <= 255.0F) || value != std::floor(value))
            return "zero points are not whole numbers from 0 to 255";
        symmetric = symmetric && value == middle;
        weights.zero_points[i] = static_cast<uint8_t>(value);
    }
    weights.format.offsets = symmetric ? OffsetKind::Symmetric : OffsetKind::ZeroPoint;
    if (symmetric) weights.zero_points.clear();
    return "";
}

OrReason<PlainWeights> read_floats(const WeightSource& source) {
    PlainWeights weights;
    weights.rows = source.rows;
    weights.columns = source.columns;
    weights.format = {16, ScaleKind::None, OffsetKind::None, FloatKind::F16,
                      static_cast<uint32_t>(source.columns)};
    const size_t count = source.rows * source.columns;
    weights.floats.resize(count);
    const auto type = source.values->get_element_type();
    if (type == ov::element::f32) {
        const auto* values = source.values->get_data_ptr<float>();
        const bool half = are_f16(values, count);
        if (!half && !are_bf16(values, count))
            return OrReason<PlainWeights>::no("weights are f32 and not exactly f16 or bf16");
        weights.format.floats = half ? FloatKind::F16 : FloatKind::BF16;
        std::transform(values, values + count, weights.floats.begin(),
                       half ? kernels::to_f16 : kernels::to_bf16);
    } else {
        if (type == ov::element::bf16) weights.format.floats = FloatKind::BF16;
        std::memcpy(weights.floats.data(), source.values->get_data_ptr(), count * 2);
    }
    if (source.transposed) weights.floats = transpose(weights.floats, source.rows, source.columns);
    return {std::move(weights), ""};
}

}  // namespace

uint64_t WeightSource::bytes() const {
    uint64_t sum = 0;
    for (const auto& constant : {values, scales, zero_points})
        if (constant) sum += constant->get_byte_size();
    return sum;
}

OrReason<WeightSource> find_weights(const ov::Output<ov::Node>& weights, bool transposed) {
    using No = OrReason<WeightSource>;
    WeightSource source;
    source.name = weights.get_node()->get_friendly_name();
    if (weights.get_partial_shape().is_dynamic()) return No::no(kNotConstant);
    const ov::Shape shape = weights.get_shape();
    if (shape.size() != 2)
        return No::no("weights have " + std::to_string(shape.size()) + " dimensions");
    if (ov::shape_size(shape) == 0) return No::no("weights are empty");
    source.rows = shape[transposed ? 1 : 0];
    source.columns = shape[transposed ? 0 : 1];

    // From the multiplication back to the constants, undoing what only moves numbers.
    ov::Output<ov::Node> output = weights;
    ov::Shape matrix = shape;
    for (;;) {
        const auto node = output.get_node_shared_ptr();
        if (const auto constant = ov::as_type_ptr<Constant>(node)) {
            source.values = constant;
            if (!is_16_or_32_bit_float(constant->get_element_type()))
                return No::no("weights are of type " +
                              constant->get_element_type().get_type_name());
            break;
        }
        if (ov::is_type<ov::op::v0::Convert>(node)) {
            // Integers that are weights without a scale do not occur; a float comes from a float.
            const auto type = node->get_input_element_type(0);
            if (!is_16_or_32_bit_float(type))
                return No::no("weights are of type " + type.get_type_name());
        } else if (ov::is_type<ov::op::v1::Transpose>(node) && matrix.size() == 2) {
            const auto order = ov::as_type_ptr<Constant>(node->get_input_node_shared_ptr(1));
            if (!order || order->cast_vector<int64_t>() != std::vector<int64_t>{1, 0})
                return No::no("weights are transposed in an unknown way");
            transposed = !transposed;
            std::swap(matrix[0], matrix[1]);
        } else if (ov::is_type<ov::op::v1::Reshape>(node)) {
            if (node->get_input_partial_shape(0).is_dynamic()) return No::no(kNotConstant);
            const ov::Shape before = node->get_input_shape(0);
            if (before != matrix && !joins_groups(before, matrix, transposed))
                return No::no("weights are reshaped from " + numbers(before) + " to " +
                              numbers(matrix));
            matrix = before;
        } else if (ov::is_type<ov::op::v1::Multiply>(node)) {
            ov::Output<ov::Node> codes = node->input_value(0);
            source.scales = float_constant_behind(node->input_value(1));
            if (!source.scales) {
                codes = node->input_value(1);
                source.scales = float_constant_behind(node->input_value(0));
            }
            if (!source.scales) return No::no(kNotConstant);
            const std::string reason = find_codes(codes, source);
            if (!reason.empty()) return No::no(reason);
            break;
        } else if (ov::is_type<ov::op::v0::FakeQuantize>(node)) {
            return No::no("weights are fake-quantized");
        } else {
            return No::no(kNotConstant);
        }
        output = node->input_value(0);
    }
    source.transposed = transposed;
    source.shape = source.values->get_shape();
    if (source.shape != matrix)
        return No::no("weights are broadcast from " + numbers(source.shape) + " to " +
                      numbers(matrix));
    if (source.shape.size() == 3) {
        const size_t group = source.shape[transposed ? 1 : 2];
        const bool whole_rows = group == source.columns;
        if (!whole_rows && group != 16 && group % kernels::kChunkColumns != 0)
            return No::no("weights are in groups of " + std::to_string(group));
        if (!whole_rows && source.columns % kernels::kChunkColumns != 0)
            return No::no("weights are in groups of " + std::to_string(group) + ", and " +
                          std::to_string(source.columns) + " columns are no multiple of 32");
    }
    return {std::move(source), ""};
}

OrReason<PlainWeights> read_weights(const WeightSource& source) {
    using No = OrReason<PlainWeights>;
    if (!source.scales) return read_floats(source);

    PlainWeights weights;
    weights.rows = source.rows;
    weights.columns = source.columns;
    const bool grouped = source.shape.size() == 3;
    const size_t groups = grouped ? source.shape[source.transposed ? 0 : 1] : 1;
    const auto type = source.values->get_element_type();
    weights.format.bits = static_cast<uint8_t>(type.bitwidth());
    weights.format.group = static_cast<uint32_t>(source.columns / groups);

    auto scales = by_row_and_group(*source.scales, source, groups);
    if (!scales)
        return No::no("scales are " + numbers(source.scales->get_shape()) + " for weights " +
                      numbers(source.shape));
    weights.format.scales = source.scales->get_element_type() == ov::element::f16 ||
                                    are_f16(scales->data(), scales->size())
                                ? ScaleKind::F16
                                : ScaleKind::F32;
    weights.scales = std::move(*scales);

    const float sign_offset =
        type.is_signed() ? static_cast<float>(1U << (type.bitwidth() - 1)) : 0;
    std::vector<float> zeros(weights.scales.size(), 0.0F);
    if (source.zero_points) {
        auto values = by_row_and_group(*source.zero_points, source, groups);
        if (!values)
            return No::no("zero points are " + numbers(source.zero_points->get_shape()) +
                          " for weights " + numbers(source.shape));
        zeros = std::move(*values);
    }
    const std::string reason = set_zero_points(zeros, sign_offset, weights);
    if (!reason.empty()) return No::no(reason);

    weights.codes = read_codes(*source.values);
    if (source.transposed) weights.codes = transpose(weights.codes, source.rows, source.columns);
    kernels::narrow(weights);
    return {std::move(weights), ""};
}

std::optional<std::vector<float>> constant_floats(const ov::Output<ov::Node>& output) {
    if (const auto constant = float_constant_behind(output)) return constant->cast_vector<float>();
    const auto add = ov::as_type_ptr<ov::op::v1::Add>(output.get_node_shared_ptr());
    if (!add) return std::nullopt;
    auto values = float_constant_behind(add->input_value(0));
    auto number = float_constant_behind(add->input_value(1));
    if (!values || !number) return std::nullopt;
    if (ov::shape_size(number->get_shape()) != 1) std::swap(values, number);
    if (ov::shape_size(number->get_shape()) != 1) return std::nullopt;
    std::vector<float> sums = values->cast_vector<float>();
    const float added = number->cast_vector<float>().front();
    for (float& sum : sums) sum += added;
    return sums;
}

std::optional<float> constant_number(const ov::Output<ov::Node>& output) {
    const auto& shape = output.get_partial_shape();
    if (shape.is_dynamic() || ov::shape_size(shape.to_shape()) != 1) return std::nullopt;
    const auto values = constant_floats(output);
    return values ? std::optional(values->front()) : std::nullopt;
}

}  // namespace ovfast::ops
