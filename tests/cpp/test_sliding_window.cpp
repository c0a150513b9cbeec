#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <openvino/op/util/variable.hpp>
#include <openvino/opsets/opset13.hpp>

#include "engine/sliding_window.hpp"
#include "ovfast/error.hpp"

namespace {

namespace op = ov::opset13;
using ovfast::find_sliding_windows;
using ovfast::ModelError;
using ovfast::set_sliding_windows;
using ovfast::SlidingWindow;
using testing::HasSubstr;
using Value = ov::Output<ov::Node>;

template <typename T, typename... Args>
Value make(Args&&... args) {
    return std::make_shared<T>(std::forward<Args>(args)...);
}

Value integers(const std::vector<int64_t>& values) {
    return op::Constant::create(ov::element::i64, {values.size()}, values);
}

Value integer(int64_t value) {
    return op::Constant::create(ov::element::i64, {}, {value});
}

Value number(float value) {
    return op::Constant::create(ov::element::f32, {}, {value});
}

Value range(const Value& first, const Value& last) {
    return make<op::Range>(first, last, integer(1), ov::element::i64);
}

/// A dimension of a value, as a scalar.
Value size(const Value& value, int64_t dimension) {
    return make<op::Gather>(make<op::ShapeOf>(value), integer(dimension), integer(0));
}

/// What masks are made of: the inputs of a decoder and the state of one layer.
class Decoder {
public:
    Decoder() {
        for (const auto& input : inputs_) {
            input->get_output_tensor(0).set_names({input->get_friendly_name()});
        }
        ov::op::util::VariableInfo info{ov::PartialShape{-1, 2, -1, 8}, ov::element::f32, "keys"};
        const auto variable = std::make_shared<ov::op::util::Variable>(info);
        state_ = std::make_shared<op::ReadValue>(
            op::Constant::create(ov::element::f32, {1, 2, 0, 8}, {}), variable);
        past_ = make<op::Gather>(state_, beams_, integer(0));
        const auto embedded = make<op::Gather>(
            op::Constant::create(ov::element::f32, {4, 16}, std::vector<float>(64, 0.5F)), ids_,
            integer(0));
        new_keys_ = make<op::Transpose>(make<op::Reshape>(embedded, integers({0, 0, 2, 8}), true),
                                        integers({0, 2, 1, 3}));
        keys_ = make<op::Concat>(ov::OutputVector{past_, new_keys_}, 2);
        sinks_.push_back(std::make_shared<op::Assign>(keys_, variable));
    }

    void attend(const Value& mask) {
        add(make<op::ScaledDotProductAttention>(new_keys_, keys_, keys_, mask, false));
    }
    void attend(bool causal) {
        add(make<op::ScaledDotProductAttention>(new_keys_, keys_, keys_, causal));
    }

    std::shared_ptr<ov::Model> model() const {
        return std::make_shared<ov::Model>(results_, sinks_, inputs_);
    }

    /// Positions of the tokens [n, 1] and of all tokens [1, all], as GGUF's graphs have them.
    Value own() const { return make<op::Reshape>(positions_, integers({-1, 1}), false); }
    Value all() const {
        return make<op::Unsqueeze>(range(integer(0), size(mask_, 1)), integers({0}));
    }
    /// The same as PyTorch's, which ask the state and what was computed for their sizes.
    Value own_by_state() const {
        const Value before = size(past_, 2);
        return make<op::Unsqueeze>(range(before, make<op::Add>(before, size(new_keys_, 2))),
                                   integers({1}));
    }
    Value all_by_state() const {
        return make<op::Unsqueeze>(range(integer(0), size(keys_, 2)), integers({0}));
    }
    Value state() const { return past_; }
    Value padding() const { return mask_; }

private:
    void add(const Value& attention) {
        results_.push_back(std::make_shared<op::Result>(attention));
    }

    static std::shared_ptr<op::Parameter> input(const char* name, const ov::element::Type& type,
                                                const ov::PartialShape& shape) {
        const auto parameter = std::make_shared<op::Parameter>(type, shape);
        parameter->set_friendly_name(name);
        return parameter;
    }

    std::shared_ptr<op::Parameter> ids_ = input("input_ids", ov::element::i64, {-1, -1}),
                                   mask_ = input("attention_mask", ov::element::i64, {-1, -1}),
                                   positions_ = input("position_ids", ov::element::i64, {-1, -1}),
                                   beams_ = input("beam_idx", ov::element::i32, {-1});
    ov::ParameterVector inputs_{ids_, mask_, positions_, beams_};
    std::shared_ptr<op::ReadValue> state_;
    Value past_, new_keys_, keys_;
    ov::ResultVector results_;
    ov::SinkVector sinks_;
};

Value both(const Value& a, const Value& b) {
    return make<op::LogicalAnd>(a, b);
}

Value causal(const Value& all, const Value& own) {
    return make<op::LessEqual>(all, own);
}

Value recent(const Value& all, const Value& own, int64_t tokens) {
    return make<op::Greater>(all, make<op::Subtract>(own, integer(tokens)));
}

/// [1, 1, n, all], added to scores.
Value added(const Value& seen, float hidden = -65504.0F) {
    const Value mask = make<op::Select>(seen, number(0.0F), number(hidden));
    return make<op::Unsqueeze>(mask, integers({0, 1}));
}

std::vector<SlidingWindow> windows_of(const Decoder& decoder) {
    static ov::Core core;
    return find_sliding_windows(core, *decoder.model());
}

SlidingWindow window_of(const Decoder& decoder) {
    const auto windows = windows_of(decoder);
    EXPECT_EQ(windows.size(), 1U);
    return windows.at(0);
}

void expect_window(const std::function<Value(const Decoder&)>& mask, int64_t tokens) {
    Decoder decoder;
    decoder.attend(mask(decoder));
    const SlidingWindow window = window_of(decoder);
    EXPECT_EQ(window.problem, "");
    EXPECT_EQ(window.tokens, tokens);
}

void expect_problem(const std::function<Value(const Decoder&)>& mask, const char* problem) {
    Decoder decoder;
    decoder.attend(mask(decoder));
    EXPECT_THAT(window_of(decoder).problem, HasSubstr(problem));
}

constexpr const char* kNeither = "neither causal nor a sliding window";

TEST(SlidingWindow, IsNoneInCausalMasksOfAllSpellings) {
    const auto lowest = std::numeric_limits<float>::lowest();
    const auto infinity = std::numeric_limits<float>::infinity();
    for (const float hidden : {-65504.0F, lowest, -infinity}) {
        expect_window([&](const Decoder& d) { return added(causal(d.all(), d.own()), hidden); }, 0);
    }
    expect_window([](const Decoder& d) { return causal(d.all(), d.own()); }, 0);
    expect_window(
        [](const Decoder& d) {
            const Value no_padding = make<op::Convert>(d.padding(), ov::element::boolean);
            return added(
                make<op::BitwiseAnd>(causal(d.all_by_state(), d.own_by_state()), no_padding));
        },
        0);
    expect_window(
        [](const Decoder& d) {
            const Value half = make<op::Convert>(added(causal(d.all(), d.own())), ov::element::f16);
            return make<op::Convert>(half, ov::element::f32);
        },
        0);
    // "All" as a number.
    expect_window(
        [](const Decoder& d) {
            return added(both(causal(d.all(), d.own()), recent(d.all(), d.own(), INT64_MAX / 2)));
        },
        0);
}

TEST(SlidingWindow, IsNoneInCausalMasksThatOnlyAPluginCanRun) {
#ifdef __SANITIZE_ADDRESS__
    GTEST_SKIP() << "the plugin opens a library of TBB in a way that AddressSanitizer refuses";
#endif
    expect_window(
        [](const Decoder& d) {
            const Value counted = make<op::CumSum>(d.padding(), integer(1));
            return added(causal(make<op::Subtract>(counted, integer(1)), d.own()));
        },
        0);
}

TEST(SlidingWindow, IsFoundInMasksOfAllSpellings) {
    for (const int64_t tokens : {1, 2, 3, 4, 63, 64, 5000}) {
        SCOPED_TRACE(tokens);
        expect_window(
            [&](const Decoder& d) {
                return added(both(causal(d.all(), d.own()), recent(d.all(), d.own(), tokens)));
            },
            tokens);
        // As GGUF's.
        expect_window(
            [&](const Decoder& d) {
                const Value oldest = make<op::Subtract>(d.own(), integer(tokens - 1));
                return added(
                    both(causal(d.all(), d.own()), make<op::GreaterEqual>(d.all(), oldest)));
            },
            tokens);
        // As PyTorch's.
        expect_window(
            [&](const Decoder& d) {
                const Value all = d.all_by_state(), own = d.own_by_state();
                const Value oldest = make<op::Add>(own, integer(-tokens));
                return make<op::BitwiseAnd>(make<op::Greater>(all, oldest), causal(all, own));
            },
            tokens);
    }
}

TEST(SlidingWindow, IsEachAttentionsOwn) {
    Decoder decoder;
    const Value all = decoder.all(), own = decoder.own();
    const Value near = added(both(causal(all, own), recent(all, own, 24)));
    const Value far = added(causal(all, own));
    for (const Value& mask : {near, near, far, near}) decoder.attend(mask);
    decoder.attend(true);
    std::vector<int64_t> tokens;
    for (const auto& window : windows_of(decoder)) {
        EXPECT_EQ(window.problem, "");
        tokens.push_back(window.tokens);
    }
    EXPECT_THAT(tokens, testing::UnorderedElementsAre(24, 24, 0, 24, 0));
}

TEST(SlidingWindow, MasksOfOtherFormsAreAProblem) {
    expect_problem(
        [](const Decoder& d) {  // ALiBi
            const Value distance =
                make<op::Convert>(make<op::Subtract>(d.all(), d.own()), ov::element::f32);
            return make<op::Add>(added(causal(d.all(), d.own())),
                                 make<op::Multiply>(distance, number(0.25F)));
        },
        "adds -16");
    expect_problem(
        [](const Decoder& d) {  // the first tokens see each other
            const Value prefix = make<op::Less>(d.all(), integer(5));
            return added(make<op::LogicalOr>(causal(d.all(), d.own()), prefix));
        },
        kNeither);
    expect_problem(
        [](const Decoder& d) {  // the first tokens are seen by all, besides a window
            const Value sinks = make<op::Less>(d.all(), integer(4));
            const Value window = recent(d.all(), d.own(), 24);
            return added(both(causal(d.all(), d.own()), make<op::LogicalOr>(window, sinks)));
        },
        kNeither);
    expect_problem(
        [](const Decoder& d) {  // chunks that see themselves alone
            const auto chunk = [](const Value& at) { return make<op::Divide>(at, integer(30)); };
            return added(
                both(causal(d.all(), d.own()), make<op::Equal>(chunk(d.all()), chunk(d.own()))));
        },
        kNeither);
    expect_problem([](const Decoder& d) { return added(make<op::Less>(d.all(), d.own())); },
                   kNeither);
    expect_problem(
        [](const Decoder& d) {  // one token ahead
            return added(causal(d.all(), make<op::Add>(d.own(), integer(1))));
        },
        kNeither);
    expect_problem(
        [](const Decoder& d) {  // one farther ahead
            const Value ahead = make<op::Equal>(d.all(), make<op::Add>(d.own(), integer(2)));
            return added(make<op::LogicalOr>(causal(d.all(), d.own()), ahead));
        },
        kNeither);
    expect_problem([](const Decoder& d) { return added(recent(d.all(), d.own(), 24)); }, kNeither);
    expect_problem(
        [](const Decoder& d) {  // tokens alike, as a whole
            return added(make<op::GreaterEqual>(d.all(), integer(0)));
        },
        "has the shape");
    expect_problem(
        [](const Decoder& d) {  // what is seen depends on the keys
            const Value norm = make<op::ReduceSum>(d.state(), integers({0, 1, 2, 3}), false);
            return make<op::Add>(added(causal(d.all(), d.own())), norm);
        },
        "cannot be run apart");
}

TEST(SlidingWindow, AttentionWithoutAMaskIsAProblemUnlessItIsCausal) {
    Decoder decoder;
    decoder.attend(false);
    EXPECT_THAT(window_of(decoder).problem, HasSubstr("it has no mask"));
    Decoder causal;
    causal.attend(true);
    EXPECT_EQ(window_of(causal).problem, "");
}

TEST(SlidingWindow, OneProblemHidesNoOtherMask) {
    Decoder decoder;
    const Value all = decoder.all(), own = decoder.own();
    decoder.attend(added(both(causal(all, own), recent(all, own, 24))));
    const Value sum = make<op::ReduceSum>(decoder.state(), integers({0, 1, 2, 3}), false);
    decoder.attend(make<op::Add>(added(causal(all, own)), sum));
    const auto windows = windows_of(decoder);
    ASSERT_EQ(windows.size(), 2U);
    const size_t bad = windows[0].problem.empty() ? 1 : 0;
    EXPECT_THAT(windows[bad].problem, HasSubstr("cannot be run apart"));
    EXPECT_EQ(windows[1 - bad].problem, "");
    EXPECT_EQ(windows[1 - bad].tokens, 24);
}

// ---- what becomes of them ----------------------------------------------------------------------

/// Stands for OpenVINO's, of which only two inputs matter here.
class PagedAttentionExtension : public ov::op::Op {
public:
    OPENVINO_OP("PagedAttentionExtension", "test")
    PagedAttentionExtension() = default;
    explicit PagedAttentionExtension(const ov::OutputVector& inputs) : Op(inputs) {
        constructor_validate_and_infer_types();
    }
    void validate_and_infer_types() override {
        set_output_type(0, ov::element::f32, get_input_partial_shape(0));
    }
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& in) const override {
        return std::make_shared<PagedAttentionExtension>(in);
    }
};

/// One after the other; `slopes`: of ALiBi, for each.
std::shared_ptr<ov::Model> paged(const std::vector<size_t>& slopes) {
    const auto x = std::make_shared<op::Parameter>(ov::element::f32, ov::PartialShape{-1, 8});
    Value y = x;
    for (const size_t count : slopes) {
        ov::OutputVector inputs(10, y);
        inputs.push_back(op::Constant::create(ov::element::i32, {}, {7}));
        inputs.push_back(
            op::Constant::create(ov::element::f32, {count}, std::vector<float>(count)));
        y = make<PagedAttentionExtension>(inputs);
    }
    return std::make_shared<ov::Model>(ov::OutputVector{y}, ov::ParameterVector{x});
}

std::vector<int64_t> windows_in(const ov::Model& model) {
    std::vector<int64_t> windows;
    for (const auto& node : model.get_ordered_ops()) {
        if (!ov::is_type<PagedAttentionExtension>(node)) continue;
        const auto window = ov::as_type_ptr<op::Constant>(node->get_input_node_shared_ptr(10));
        EXPECT_EQ(window->get_element_type(), ov::element::i32);
        windows.push_back(window->cast_vector<int64_t>().at(0));
    }
    return windows;
}

TEST(SlidingWindow, IsGivenToPagedAttention) {
    const auto model = paged({0, 0, 0});
    set_sliding_windows(*model, {{5, ""}, {0, ""}, {24, ""}});
    EXPECT_THAT(windows_in(*model), testing::ElementsAre(5, 7, 24));
}

TEST(SlidingWindow, ProblemsAreRefused) {
    const SlidingWindow problem{0, "its mask is odd"};
    try {
        set_sliding_windows(*paged({0, 0}), {{0, ""}, problem});
        FAIL();
    } catch (const ModelError& error) {
        EXPECT_THAT(error.what(), HasSubstr("attention 2 of 2: its mask is odd"));
    }
    // The rewrite knows ALiBi, whose masks are odd.
    set_sliding_windows(*paged({0, 4}), {{0, ""}, problem});
}

TEST(SlidingWindow, AttentionsThatAreLostAreRefused) {
    EXPECT_THROW(set_sliding_windows(*paged({0}), {{5, ""}, {0, ""}}), ModelError);
    EXPECT_THROW(set_sliding_windows(*paged({0, 0}), {{5, ""}}), ModelError);
}

}  // namespace
