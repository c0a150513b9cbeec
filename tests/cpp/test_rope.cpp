#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "ops/rope.hpp"
#include "rewrite_graphs.hpp"

namespace {

using namespace rewrite_graphs;
using ovfast::ops::find_rope;

constexpr int64_t kHeads = 2;
constexpr int64_t kSize = 16;
constexpr size_t kHalf = kSize / 2;

std::vector<float> frequencies(float base) {
    std::vector<float> values(kHalf);
    for (size_t i = 0; i < kHalf; ++i) {
        values[i] = std::pow(base, -static_cast<float>(i) / static_cast<float>(kHalf));
    }
    return values;
}

struct Graph {
    Value x;
    Value positions = make<op::Parameter>(ov::element::i64, ov::PartialShape{-1});

    explicit Graph(const ov::PartialShape& tokens) {
        ov::PartialShape shape = tokens;
        shape.push_back(kHeads * kSize);
        x = make<op::Parameter>(ov::element::f32, shape);
    }

    using Change = std::function<Value(const Value&)>;

    /// The halves of each head turned by positions times `inv_freq`, after `change`.
    Value turned(
        const Value& inv_freq,
        const Change& change = [](const Value& heads) { return heads; }) const {
        const auto axis = [](int64_t at) { return integers({at}); };
        const Value places =
            make<op::Unsqueeze>(make<op::Convert>(positions, ov::element::f32), axis(1));
        const Value angles = make<op::Unsqueeze>(make<op::Multiply>(places, inv_freq), axis(1));
        const Value cosines = make<op::Cos>(angles);
        const Value sines = make<op::Sin>(angles);
        const Value heads = change(make<op::Reshape>(x, integers({-1, kHeads, kSize}), false));
        const auto halves =
            std::make_shared<op::Split>(heads, op::Constant::create(ov::element::i64, {}, {2}), 2);
        const Value a = halves->output(0);
        const Value b = halves->output(1);
        const auto times = [](const Value& u, const Value& v) { return make<op::Multiply>(u, v); };
        const Value both = make<op::Concat>(
            ov::OutputVector{make<op::Subtract>(times(a, cosines), times(b, sines)),
                             make<op::Add>(times(b, cosines), times(a, sines))},
            2);
        return make<op::Reshape>(both, integers({-1, kHeads * kSize}), false);
    }

    std::optional<ovfast::ops::Rope> find(const Value& to,
                                          const ovfast::ops::RmsNorm& norm = {}) const {
        return find_rope(x, to, positions, kHeads, kSize, norm);
    }
};

Value inv_freq(float base) {
    return constant(ov::element::f32, {1, kHalf}, frequencies(base));
}

TEST(Rope, IsFoundWhereverTokensAreCounted) {
    for (const ov::PartialShape& tokens : {ov::PartialShape{-1}, ov::PartialShape{-1, -1},
                                           ov::PartialShape{-1, 1}, ov::PartialShape{1, -1}}) {
        const Graph graph(tokens);
        const auto rope = graph.find(graph.turned(inv_freq(10'000.0F)));
        ASSERT_TRUE(rope) << tokens;
        EXPECT_EQ(rope->inv_freq, frequencies(10'000.0F));
        EXPECT_FALSE(rope->neighbours);
    }
}

// As LongRoPE does: slower rotations for all tokens when one is beyond the trained context.
TEST(Rope, ThatDependsOnTheLengthIsNone) {
    for (const int64_t context : {4096, 32'768, 131'070}) {
        const Graph graph({-1, 1});
        const Value last = make<op::ReduceMax>(graph.positions, integers({0}));
        const Value beyond = make<op::Greater>(last, integers({context}));
        const Value chosen = make<op::Select>(beyond, inv_freq(1'000'000.0F), inv_freq(10'000.0F));
        EXPECT_FALSE(graph.find(graph.turned(chosen))) << context;
    }
}

ovfast::ops::RmsNorm norm_of(float least, float step) {
    ovfast::ops::RmsNorm norm{std::vector<float>(kSize), 0.01F};
    for (int64_t i = 0; i < kSize; ++i) norm.gamma[i] = least + step * static_cast<float>(i);
    return norm;
}

// Channels may be large, and a graph may round them to f16; others beside them are small.
TEST(Rope, IsFoundBehindTheNormOfHeads) {
    for (const auto& norm : {norm_of(1.0F, 0.0F), norm_of(-0.1F, 0.02F), norm_of(1.0F, 20.0F)}) {
        const auto normalized = [&](const Value& heads) {
            const Value mean =
                make<op::ReduceMean>(make<op::Multiply>(heads, heads), integers({2}), true);
            const Value root =
                make<op::Sqrt>(make<op::Add>(mean, constant(ov::element::f32, {}, {norm.epsilon})));
            const Value gamma = constant(ov::element::f32, {kSize}, norm.gamma);
            return f32(f16(make<op::Multiply>(make<op::Divide>(heads, root), gamma)));
        };
        const Graph graph({-1, 1});
        const Value turned = graph.turned(inv_freq(10'000.0F), normalized);
        EXPECT_TRUE(graph.find(turned, norm));
        EXPECT_FALSE(graph.find(turned));
        EXPECT_FALSE(graph.find(turned, norm_of(1.0F, 0.3F)));
        auto other = norm;
        other.gamma.back() *= 1.2F;
        EXPECT_FALSE(graph.find(turned, other));
    }
    const Graph plain({-1, 1});
    EXPECT_FALSE(plain.find(plain.turned(inv_freq(10'000.0F)), norm_of(1.0F, 0.0F)));
}

TEST(Rope, OfAnotherFormIsNone) {
    const Graph graph({-1, 1});
    const Value turned = graph.turned(inv_freq(10'000.0F));
    EXPECT_FALSE(graph.find(make<op::Multiply>(turned, constant(ov::element::f32, {1}, {1.1F}))));
    // Takes 7 tokens, and not those that it is tried with.
    EXPECT_FALSE(graph.find(make<op::Add>(turned, floats({7, kHeads * kSize}))));
}

}  // namespace
