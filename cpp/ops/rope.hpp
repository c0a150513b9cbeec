#pragma once

#include <cstddef>
#include <cstdint>
#include <openvino/core/node.hpp>
#include <optional>
#include <vector>

#include "ops/rms_norm.hpp"

namespace ovfast::ops {

/// Rotary position embedding (RoFormer, arXiv:2104.09864) of heads: pairs of channels are turned by
/// position * inv_freq. Pairs are (i, i + dims / 2), or neighbours; channels from `dims` on stay.
struct Rope {
    std::vector<float> inv_freq;  ///< [dims / 2]
    bool neighbours = false;

    bool operator==(const Rope& other) const {
        return neighbours == other.neighbours && inv_freq == other.inv_freq;
    }
};

/// Cosines and sines of some positions, [positions][dims / 2] each.
struct RopeTable {
    std::vector<float> cosines, sines;
    void fill(const Rope& rope, const int64_t* positions, size_t count);
};

/// Turns x [heads][size], the heads of the table's position `row`, in place.
void apply_rope(const Rope& rope, const RopeTable& table, size_t row, float* x, size_t heads,
                size_t size);

/// Normalizes each of x [heads][size] in place, if there is a gamma [size].
void apply_norm(const RmsNorm& norm, float* x, size_t heads, size_t size);

/// Finds out what the graph between `from` (heads as a linear layer gives them, [..., heads *
/// size]) and `to` (as paged attention takes them, [tokens, heads * size]) does, by running it:
/// frontends spell rotations in many ways. `positions` is the model's input of positions; `norm` is
/// what heads are said to be normalized by first. Nothing when it is not what apply_norm() and
/// apply_rope() give as well, to the rounding of f16.
std::optional<Rope> find_rope(const ov::Output<ov::Node>& from, const ov::Output<ov::Node>& to,
                              const ov::Output<ov::Node>& positions, size_t heads, size_t size,
                              const RmsNorm& norm = {});

/// Whether the graph from `from` to `to` only moves dimensions. `others` are values that it may
/// take shapes of.
bool passes_through(const ov::Output<ov::Node>& from, const ov::Output<ov::Node>& to,
                    const ov::OutputVector& others);

}  // namespace ovfast::ops
