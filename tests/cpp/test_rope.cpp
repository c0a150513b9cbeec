#include <gtest/gtest.h>

#include <cmath>

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

    /// The halves of each head turned by positions times `inv_freq`.
    Value turned(const Value& inv_freq) const {
        const auto axis = [](int64_t at) { return integers({at}); };
        const Value places =
            make<op::Unsqueeze>(make<op::Convert>(positions, ov::element::f32), axis(1));
        const Value angles = make<op::Unsqueeze>(make<op::Multiply>(places, inv_freq), axis(1));
        const Value cosines = make<op::Cos>(angles);
        const Value sines = make<op::Sin>(angles);
        const Value heads = make<op::Reshape>(x, integers({-1, kHeads, kSize}), false);
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

    std::optional<ovfast::ops::Rope> find(const Value& to) const {
        return find_rope(x, to, positions, kHeads, kSize);
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

TEST(Rope, OfAnotherFormIsNone) {
    const Graph graph({-1, 1});
    const Value turned = graph.turned(inv_freq(10'000.0F));
    EXPECT_FALSE(graph.find(make<op::Multiply>(turned, constant(ov::element::f32, {1}, {1.1F}))));
    // Takes 7 tokens, and not those that it is tried with.
    EXPECT_FALSE(graph.find(make<op::Add>(turned, floats({7, kHeads * kSize}))));
}

}  // namespace
