#include "engine/sliding_window.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <openvino/op/util/read_value_base.hpp>
#include <openvino/opsets/opset13.hpp>
#include <openvino/runtime/properties.hpp>
#include <optional>

#include "ops/subgraph.hpp"
#include "ovfast/error.hpp"

namespace ovfast {
namespace {

namespace op = ov::opset13;
using Value = ov::Output<ov::Node>;

constexpr size_t kMaskInput = 3;     // of ScaledDotProductAttention
constexpr size_t kWindowInput = 10;  // of PagedAttentionExtension
constexpr size_t kAlibiInput = 11;

// Masks are run for so many tokens, behind a number of others.
constexpr int64_t kTokens = 3;
// A number in a graph that is larger is no window, but stands for "all".
constexpr int64_t kLargestWindow = 1 << 20;
constexpr int64_t kNotKnown = -1;
// Added to a score, this leaves nothing of it. Masks have -65504, the lowest f32 or -infinity.
constexpr float kHidden = -1e4F;

// The batch becomes 1, any other open dimension `count`.
ov::PartialShape closed(ov::PartialShape shape, int64_t count) {
    if (shape.rank().is_dynamic()) return shape;
    const auto open = std::count_if(shape.begin(), shape.end(),
                                    [](const auto& dimension) { return dimension.is_dynamic(); });
    bool batch = open > 1 || shape.size() == 1;
    for (auto& dimension : shape) {
        if (dimension.is_static()) continue;
        dimension = batch ? 1 : count;
        batch = false;
    }
    return shape;
}

bool is_named(const op::Parameter& input, const char* name) {
    return input.get_output_tensor(0).get_names().count(name) != 0;
}

// No padding, positions that follow each other; zeros for what masks do not depend on.
ov::Tensor values_of(const op::Parameter& input, const ov::Shape& shape, int64_t before) {
    ov::Tensor values(input.get_element_type(), shape);
    std::memset(values.data(), 0, values.get_byte_size());
    if (input.get_element_type() != ov::element::i64) return values;
    for (size_t i = 0; i < values.get_size(); ++i) {
        int64_t& value = values.data<int64_t>()[i];
        if (is_named(input, "attention_mask")) value = 1;
        if (is_named(input, "position_ids")) value = before + static_cast<int64_t>(i) % kTokens;
    }
    return values;
}

// The first token that one at `self` sees, if it sees all from there up to itself and no other.
std::optional<int64_t> first_seen(const std::vector<bool>& seen, int64_t self) {
    const auto first = std::find(seen.begin(), seen.end(), true);
    const auto after = std::find(first, seen.end(), false);
    if (after - seen.begin() != self + 1 || std::find(after, seen.end(), true) != seen.end()) {
        return std::nullopt;
    }
    return first - seen.begin();
}

// `truth`: the mask is true for what is seen; else 0 is added to its score. `tokens`: the window as
// far as it is known.
SlidingWindow window_of(const ov::Tensor& mask, bool truth, int64_t before, int64_t tokens) {
    const ov::Shape& shape = mask.get_shape();
    const auto all = static_cast<size_t>(before + kTokens);
    if (shape.size() < 2 || shape.back() != all || shape[shape.size() - 2] != kTokens) {
        return {0, "its mask for " + std::to_string(kTokens) + " tokens behind " +
                       std::to_string(before) + " others has the shape " + shape.to_string()};
    }
    const auto* values = mask.data<const float>();
    std::vector<bool> seen(all);
    for (size_t row = 0; row < mask.get_size() / all; ++row, values += all) {
        for (size_t key = 0; key < all; ++key) {
            seen[key] = truth ? values[key] != 0.0F : values[key] == 0.0F;
            if (!truth && !seen[key] && !(values[key] < kHidden)) {
                return {0, "its mask adds " + std::to_string(values[key]) + " to a score"};
            }
        }
        const int64_t self = before + static_cast<int64_t>(row) % kTokens;
        const auto first = first_seen(seen, self);
        if (first && tokens == kNotKnown) tokens = *first == 0 ? 0 : self + 1 - *first;
        if (!first || *first != (tokens == 0 ? 0 : std::max<int64_t>(0, self + 1 - tokens))) {
            return {0, "its mask is neither causal nor a sliding window"};
        }
    }
    return {tokens, ""};
}

// The masks of a model alone.
class Masks {
public:
    Masks(const ov::Model& model, const std::vector<Value>& masks, int64_t before)
        : before_(before) {
        for (const auto& input : model.get_parameters()) {
            const int64_t count = is_named(*input, "attention_mask") ? before + kTokens : kTokens;
            inputs_.push_back(graph_.begin_at(input, closed(input->get_partial_shape(), count)));
            values_.push_back(values_of(*input, inputs_.back()->get_shape(), before));
        }
        // Masks ask states for their size alone, so they need no values.
        for (const auto& node : model.get_ordered_ops()) {
            if (!ov::is_type<ov::op::util::ReadValueBase>(node)) continue;
            graph_.begin_at(node, closed(node->get_output_partial_shape(0), before));
        }
        for (const Value& mask : masks) {
            const Value copy = graph_.copy(mask);
            OPENVINO_ASSERT(copy.get_node() != nullptr, "the mask begins elsewhere");
            truths_.push_back(copy.get_element_type() == ov::element::boolean);
            outputs_.push_back(std::make_shared<op::Convert>(copy, ov::element::f32));
        }
    }

    // Enough for windows of any number that the masks are made with.
    int64_t enough_before() const {
        int64_t largest = 32;
        for (const auto* constant : graph_.constants()) {
            if (!constant->get_element_type().is_integral_number() ||
                ov::shape_size(constant->get_shape()) != 1) {
                continue;
            }
            const int64_t number = std::abs(constant->cast_vector<int64_t>().front());
            if (number <= kLargestWindow) largest = std::max(largest, number);
        }
        return 2 * largest;
    }

    // `windows`: what was found of the masks before; empty: nothing.
    std::vector<SlidingWindow> run(ov::Core& core, std::vector<SlidingWindow> windows) const {
        const ov::TensorVector tensors = results(core);
        const bool first = windows.empty();
        windows.resize(tensors.size());
        for (size_t i = 0; i < tensors.size(); ++i) {
            if (!windows[i].problem.empty()) continue;
            const int64_t tokens = first ? kNotKnown : windows[i].tokens;
            windows[i] = window_of(tensors[i], truths_[i], before_, tokens);
        }
        return windows;
    }

private:
    ov::TensorVector results(ov::Core& core) const {
        const auto model = std::make_shared<ov::Model>(outputs_, inputs_);
        ov::TensorVector tensors;
        try {
            for (size_t i = 0; i < outputs_.size(); ++i)
                tensors.emplace_back(ov::element::f32, ov::Shape{0});
            if (model->evaluate(tensors, values_)) return tensors;
        } catch (
            const ov::Exception&) {  // an operation that only plugins can run, which takes longer
        }
        ov::InferRequest request =
            core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32))
                .create_infer_request();
        for (size_t i = 0; i < values_.size(); ++i) request.set_input_tensor(i, values_[i]);
        request.infer();
        for (size_t i = 0; i < tensors.size(); ++i) tensors[i] = request.get_output_tensor(i);
        return tensors;
    }

    int64_t before_;
    ops::Subgraph graph_;
    ov::ParameterVector inputs_;
    ov::TensorVector values_;
    ov::OutputVector outputs_;
    std::vector<bool> truths_;
};

std::vector<SlidingWindow> run_masks(ov::Core& core, const ov::Model& model,
                                     const std::vector<Value>& masks) {
    try {
        // At the beginning, where some models' tokens see those after them, and far from it.
        const Masks none_before(model, masks, 0);
        const Masks many_before(model, masks, none_before.enough_before());
        return none_before.run(core, many_before.run(core, {}));
    } catch (const ov::Exception&) {
        if (masks.size() == 1) {
            return {{0, "its mask cannot be run apart from the rest of the model"}};
        }
    }
    // Whichever of them it was.
    std::vector<SlidingWindow> windows;
    for (const Value& mask : masks) windows.push_back(run_masks(core, model, {mask}).front());
    return windows;
}

}  // namespace

std::vector<SlidingWindow> find_sliding_windows(ov::Core& core, const ov::Model& model) {
    std::vector<Value> masks;  // distinct ones: layers share them
    std::vector<SlidingWindow> windows;
    std::vector<std::pair<size_t, size_t>> mask_of;  // window -> mask
    for (const auto& node : model.get_ordered_ops()) {
        const auto attention = ov::as_type_ptr<op::ScaledDotProductAttention>(node);
        if (!attention) continue;
        windows.emplace_back();
        if (attention->get_causal()) continue;
        if (attention->get_input_size() <= kMaskInput) {
            windows.back().problem = "it has no mask, so that tokens see those after them";
            continue;
        }
        const Value mask = attention->input_value(kMaskInput);
        const auto known = std::find(masks.begin(), masks.end(), mask);
        mask_of.emplace_back(windows.size() - 1, known - masks.begin());
        if (known == masks.end()) masks.push_back(mask);
    }
    const std::vector<SlidingWindow> found = run_masks(core, model, masks);
    for (const auto& [window, mask] : mask_of) windows[window] = found[mask];
    return windows;
}

void set_sliding_windows(const ov::Model& model, const std::vector<SlidingWindow>& windows) {
    std::vector<std::shared_ptr<ov::Node>> attentions;
    for (const auto& node : model.get_ordered_ops()) {
        if (std::string(node->get_type_name()) == "PagedAttentionExtension") {
            attentions.push_back(node);
        }
    }
    const std::string count = std::to_string(windows.size());
    if (attentions.size() != windows.size()) {
        throw ModelError("of " + count + " attentions, " + std::to_string(attentions.size()) +
                         " became paged");
    }
    for (size_t i = 0; i < windows.size(); ++i) {
        const ov::PartialShape& alibi = attentions[i]->get_input_partial_shape(kAlibiInput);
        const bool has_alibi = alibi.is_dynamic() || ov::shape_size(alibi.to_shape()) != 0;
        if (!windows[i].problem.empty() && !has_alibi) {
            throw ModelError("attention " + std::to_string(i + 1) + " of " + count + ": " +
                             windows[i].problem +
                             "; causal masks and sliding windows are supported");
        }
        if (windows[i].tokens == 0) continue;
        attentions[i]
            ->input(kWindowInput)
            .replace_source_output(op::Constant::create(ov::element::i32, {}, {windows[i].tokens}));
    }
}

}  // namespace ovfast
