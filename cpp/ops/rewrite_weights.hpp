#pragma once

#include <cstdint>
#include <memory>
#include <openvino/core/node_output.hpp>
#include <openvino/op/constant.hpp>
#include <optional>
#include <string>
#include <vector>

#include "kernels/pack.hpp"

namespace ovfast::ops {

/// A value, or why there is none: what `ovfast inspect` prints.
template <typename T>
struct OrReason {
    std::optional<T> value;
    std::string reason;

    static OrReason no(std::string why) { return {std::nullopt, std::move(why)}; }
};

/// Constants that a graph makes one matrix [rows, columns] of: codes, minus zero points, times
/// scales; or plain floats. Holds the constants, so keep it only while they are needed.
struct WeightSource {
    std::string name;  ///< friendly name of the decompressed weight
    std::shared_ptr<ov::op::v0::Constant> values;
    std::shared_ptr<ov::op::v0::Constant> scales;       ///< null: `values` are the weights
    std::shared_ptr<ov::op::v0::Constant> zero_points;  ///< null: none
    /// Of the values: [rows, columns] or [rows, groups, group]; transposed: [columns, rows] or
    /// [groups, group, rows].
    ov::Shape shape;
    bool transposed = false;
    size_t rows = 0;
    size_t columns = 0;

    uint64_t bytes() const;
};

inline constexpr const char* kNotConstant = "weights are not constant";

/// Follows `weights` back to its constants. `transposed`: it is [columns, rows]. Reads no data.
OrReason<WeightSource> find_weights(const ov::Output<ov::Node>& weights, bool transposed);

/// Copies the constants into what pack() takes, in the narrowest width that holds the codes.
/// A reason when their values have no packed form.
OrReason<kernels::PlainWeights> read_weights(const WeightSource& source);

/// Values of a constant f32, f16 or bf16 tensor, also behind conversions and an addition of a
/// constant (norms that store gamma - 1); nothing for anything else.
std::optional<std::vector<float>> constant_floats(const ov::Output<ov::Node>& output);

/// The same for a tensor of one element.
std::optional<float> constant_number(const ov::Output<ov::Node>& output);

}  // namespace ovfast::ops
