#include "ops/rope.hpp"

#include <algorithm>
#include <cmath>
#include <openvino/op/convert.hpp>
#include <random>

#include "kernels/linear.hpp"
#include "ops/subgraph.hpp"

namespace ovfast::ops {
namespace {

using ov::op::v0::Constant;
using Value = ov::Output<ov::Node>;

constexpr size_t kTokens = 5;
// Far ones apart from near ones: some rotations are others for all tokens as soon as one is beyond
// what the model was trained for. Not farther, or one rounding of an angle would show.
constexpr int64_t kPositions[][kTokens] = {{0, 1, 7, 300, 3001}, {2, 9, 5000, 40'000, 131'071}};
// The graph may round to f16 or bf16 on the way; cosines of other angles differ by far more.
constexpr float kTolerance = 0.02F;

// The graph behind some values, for kTokens tokens.
class Probe {
public:
    /// Tokens take the place of the first open dimension, 1 that of others.
    void begin_at(const Value& value) {
        ov::PartialShape shape = value.get_partial_shape();
        if (shape.rank().is_dynamic()) return;
        bool first = true;
        for (auto& dimension : shape) {
            if (dimension.is_static()) continue;
            dimension = first ? static_cast<int64_t>(kTokens) : 1;
            first = false;
        }
        parameters_.push_back(graph_.begin_at(value, shape));
    }

    /// f32 values of `to` for one tensor for each beginning, in order; nothing when the graph
    /// begins elsewhere too, or does not take inputs of these shapes.
    std::optional<std::vector<float>> run(const Value& to, const ov::TensorVector& inputs) {
        try {
            const Value copy = graph_.copy(to);
            if (copy.get_node() == nullptr || parameters_.size() != inputs.size()) {
                return std::nullopt;
            }
            const ov::Model model(
                ov::OutputVector{std::make_shared<ov::op::v0::Convert>(copy, ov::element::f32)},
                parameters_);
            ov::TensorVector outputs{ov::Tensor(ov::element::f32, ov::Shape{0})};
            if (!model.evaluate(outputs, inputs)) return std::nullopt;
            const auto* data = outputs[0].data<float>();
            return std::vector<float>(data, data + outputs[0].get_size());
        } catch (const ov::Exception&) {
            return std::nullopt;
        }
    }

    const std::vector<const Constant*>& constants() const { return graph_.constants(); }
    size_t beginnings() const { return parameters_.size(); }
    const ov::Shape& shape(size_t index) const { return parameters_[index]->get_shape(); }

private:
    Subgraph graph_;
    ov::ParameterVector parameters_;
};

ov::Tensor random_tensor(const ov::Shape& shape, unsigned seed) {
    ov::Tensor tensor(ov::element::f32, shape);
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> values(-1.0F, 1.0F);
    std::generate_n(tensor.data<float>(), tensor.get_size(), [&] { return values(random); });
    return tensor;
}

// `scales` are those of the values, over and over.
bool close(const std::vector<float>& found, const std::vector<float>& expected,
           const std::vector<float>& scales = {1.0F}) {
    if (found.size() != expected.size()) return false;
    for (size_t i = 0; i < found.size(); ++i) {
        const float tolerance = kTolerance * scales[i % scales.size()];
        if (!(std::fabs(found[i] - expected[i]) <= tolerance)) return false;
    }
    return true;
}

// How large the channels of a head are: those of a pair mix.
std::vector<float> scales_of(const RmsNorm& norm, const Rope& rope) {
    if (norm.gamma.empty()) return {1.0F};
    std::vector<float> scales(norm.gamma.size());
    for (size_t i = 0; i < scales.size(); ++i) scales[i] = std::fabs(norm.gamma[i]);
    const size_t half = rope.inv_freq.size();
    for (size_t i = 0; i < half; ++i) {
        const size_t a = rope.neighbours ? 2 * i : i;
        const size_t b = rope.neighbours ? a + 1 : i + half;
        scales[a] = scales[b] = std::max(scales[a], scales[b]);
    }
    return scales;
}

// Constants that can be the frequencies of a head: positive and not growing.
std::optional<std::vector<float>> frequencies(const Constant& constant, size_t size) {
    const size_t count = ov::shape_size(constant.get_shape());
    if (!constant.get_element_type().is_real() || count < 2 || 2 * count > size) {
        return std::nullopt;
    }
    auto values = constant.cast_vector<float>();
    const bool falls = std::is_sorted(values.begin(), values.end(), std::greater<>());
    if (!falls || values.back() <= 0.0F || values.front() == values.back()) return std::nullopt;
    return values;
}

}  // namespace

void RopeTable::fill(const Rope& rope, const int64_t* positions, size_t count) {
    const size_t half = rope.inv_freq.size();
    cosines.resize(count * half);
    sines.resize(count * half);
    for (size_t row = 0; row < count; ++row) {
        for (size_t i = 0; i < half; ++i) {
            const float angle = static_cast<float>(positions[row]) * rope.inv_freq[i];
            cosines[row * half + i] = std::cos(angle);
            sines[row * half + i] = std::sin(angle);
        }
    }
}

void apply_rope(const Rope& rope, const RopeTable& table, size_t row, float* x, size_t heads,
                size_t size) {
    const size_t half = rope.inv_freq.size();
    const float* cosines = table.cosines.data() + row * half;
    const float* sines = table.sines.data() + row * half;
    const size_t step = rope.neighbours ? 2 : 1;
    const size_t apart = rope.neighbours ? 1 : half;
    for (size_t head = 0; head < heads; ++head, x += size) {
        for (size_t i = 0; i < half; ++i) {
            float* pair = x + i * step;
            const float a = pair[0];
            const float b = pair[apart];
            pair[0] = a * cosines[i] - b * sines[i];
            pair[apart] = b * cosines[i] + a * sines[i];
        }
    }
}

void apply_norm(const RmsNorm& norm, float* x, size_t heads, size_t size) {
    if (norm.gamma.empty()) return;
    const auto& vectors = kernels::vector_kernels();
    for (size_t head = 0; head < heads; ++head, x += size) {
        vectors.rms_norm(x, norm.gamma.data(), norm.epsilon, size, x);
    }
}

std::optional<Rope> find_rope(const Value& from, const Value& to, const Value& positions,
                              size_t heads, size_t size, const RmsNorm& norm) {
    constexpr size_t kRuns = std::size(kPositions);
    Probe graph;
    graph.begin_at(from);
    graph.begin_at(positions);
    if (graph.beginnings() != 2 || ov::shape_size(graph.shape(0)) != kTokens * heads * size) {
        return std::nullopt;
    }
    const ov::Tensor x = random_tensor(graph.shape(0), 1);
    std::vector<float> turned[kRuns];
    for (size_t run = 0; run < kRuns; ++run) {
        ov::Tensor places(ov::element::i64, {kTokens});
        std::copy_n(kPositions[run], kTokens, places.data<int64_t>());
        auto found = graph.run(to, {x, places});
        if (!found) return std::nullopt;
        turned[run] = std::move(*found);
    }
    const auto turns_like = [&](const Rope& rope, size_t run) {
        RopeTable table;
        table.fill(rope, kPositions[run], kTokens);
        std::vector<float> expected(x.data<float>(), x.data<float>() + x.get_size());
        apply_norm(norm, expected.data(), kTokens * heads, size);
        for (size_t row = 0; row < kTokens; ++row) {
            apply_rope(rope, table, row, expected.data() + row * heads * size, heads, size);
        }
        return close(turned[run], expected, scales_of(norm, rope));
    };
    for (const Constant* constant : graph.constants()) {
        const auto values = frequencies(*constant, size);
        if (!values) continue;
        for (const bool neighbours : {false, true}) {
            const Rope rope{*values, neighbours};
            if (turns_like(rope, 0) && turns_like(rope, 1)) return rope;
        }
    }
    return std::nullopt;
}

bool passes_through(const Value& from, const Value& to, const ov::OutputVector& others) {
    Probe graph;
    ov::TensorVector inputs;
    graph.begin_at(from);
    for (const Value& other : others) graph.begin_at(other);
    for (size_t i = 0; i <= others.size(); ++i) {
        inputs.push_back(random_tensor(graph.shape(i), static_cast<unsigned>(i)));
    }
    const auto moved = graph.run(to, inputs);
    const auto* data = inputs[0].data<float>();
    return moved && close(*moved, std::vector<float>(data, data + inputs[0].get_size()));
}

}  // namespace ovfast::ops
