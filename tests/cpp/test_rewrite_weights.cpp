#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "ops/rewrite.hpp"
#include "ops/unfused.hpp"
#include "ovfast/error.hpp"
#include "rewrite_graphs.hpp"

namespace {

using namespace rewrite_graphs;
using testing::ElementsAre;
using testing::IsEmpty;

// ---- weights ----------------------------------------------------------------------------------

struct WeightCase {
    const char* name;
    const char* format;
    std::function<Value()> weights;  // of [24, 64], or transposed
    bool transposed = false;
};

std::ostream& operator<<(std::ostream& stream, const WeightCase& value) {
    return stream << value.name;
}

const auto i4 = ov::element::i4;
const auto u4 = ov::element::u4;
const auto i8 = ov::element::i8;
const auto u8 = ov::element::u8;

Value centered(const Value& value, const Value& zero_points) {
    return make<op::Subtract>(f16(value), f16(zero_points));
}

Value matrix(const Value& value) {
    return f32(reshape(value, {24, 64}));
}

const std::vector<WeightCase> kWeights = {
    {"i4_groups", "u4 g32 f16 symmetric", [] { return int4(24, 64); }},
    {"i4_rows", "u4 g64 f16 symmetric",
     [] { return f32(product(f16(codes(i4, {24, 64}, -8, 7)), powers({24, 1}))); }},
    {"i4_in_f32", "u4 g32 f16 symmetric",
     [] {
         return reshape(product(f32(codes(i4, {24, 2, 32}, -8, 7)), f32(powers({24, 2, 1}))),
                        {24, 64});
     }},
    {"scales_first", "u4 g32 f16 symmetric",
     [] { return matrix(product(powers({24, 2, 1}), f16(codes(i4, {24, 2, 32}, -8, 7)))); }},
    {"i8_of_five_bits", "u5 g32 f16 symmetric",
     [] { return matrix(product(f16(codes(i8, {24, 2, 32}, -16, 15)), powers({24, 2, 1}))); }},
    {"i8_of_six_bits_in_small_groups", "u6 g16 f16 symmetric",
     [] { return matrix(product(f16(codes(i8, {24, 4, 16}, -32, 31)), powers({24, 4, 1}))); }},
    {"i8_rows", "u8 g64 f16 symmetric",
     [] { return f32(product(f16(codes(i8, {24, 64}, -128, 127)), powers({24, 1}))); }},
    {"i8_one_scale", "u8 g64 f16 symmetric",
     [] { return f32(product(f16(codes(i8, {24, 64}, -128, 127)), powers({}))); }},
    {"u4_zero_points", "u4 g32 f16 zero-point",
     [] {
         return matrix(
             product(centered(codes(u4, {24, 2, 32}, 0, 15), codes(u4, {24, 2, 1}, 0, 15)),
                     powers({24, 2, 1})));
     }},
    {"u4_zero_points_beyond_codes", "u4 g32 f16 zero-point",
     [] {
         return matrix(
             product(centered(codes(u4, {24, 2, 32}, 0, 15), codes(u8, {24, 2, 1}, 0, 40)),
                     powers({24, 2, 1})));
     }},
    {"u4_without_zero_points", "u4 g32 f16 zero-point",
     [] { return matrix(product(f16(codes(u4, {24, 2, 32}, 0, 15)), powers({24, 2, 1}))); }},
    {"u4_zero_points_all_8", "u4 g32 f16 symmetric",
     [] {
         return matrix(product(centered(codes(u4, {24, 2, 32}, 0, 15), codes(u4, {24, 2, 1}, 8, 8)),
                               powers({24, 2, 1})));
     }},
    {"u4_one_zero_point", "u4 g32 f16 zero-point",
     [] {
         return matrix(product(centered(codes(u4, {24, 2, 32}, 0, 15), codes(u8, {}, 7, 7)),
                               powers({24, 2, 1})));
     }},
    {"u8_zero_points", "u8 g64 f16 zero-point",
     [] {
         return f32(product(centered(codes(u8, {24, 64}, 0, 255), codes(u8, {24, 1}, 0, 255)),
                            powers({24, 1})));
     }},
    {"u8_zero_points_stored_as_floats", "u8 g64 f16 zero-point",
     [] {
         return f32(product(
             centered(codes(u8, {24, 64}, 0, 255), codes(ov::element::f16, {24, 1}, 100, 140)),
             powers({24, 1})));
     }},
    {"i8_zero_points", "u8 g64 f16 zero-point",
     [] {
         return f32(product(centered(codes(i8, {24, 64}, -128, 127), codes(i8, {24, 1}, -20, 90)),
                            powers({24, 1})));
     }},
    {"scales_f32", "u8 g64 f32 symmetric",
     [] { return product(f32(codes(i8, {24, 64}, -128, 127)), floats({24, 1}, 0.01F, 0.02F)); }},
    {"scales_f32_that_are_f16", "u8 g64 f16 symmetric",
     [] {
         return product(f32(codes(i8, {24, 64}, -128, 127)), powers({24, 1}, ov::element::f32));
     }},
    {"transposed_rows", "u8 g64 f16 symmetric",
     [] { return f32(product(f16(codes(i8, {64, 24}, -128, 127)), powers({1, 24}))); }, true},
    {"transposed_groups", "u4 g32 f16 zero-point",
     [] {
         return f32(
             reshape(product(centered(codes(u4, {2, 32, 24}, 0, 15), codes(u4, {2, 1, 24}, 0, 15)),
                             powers({2, 1, 24})),
                     {64, 24}));
     },
     true},
    {"transpose_node", "u4 g32 f16 symmetric",
     [] {
         const Value stored =
             reshape(product(f16(codes(i4, {2, 32, 24}, -8, 7)), powers({2, 1, 24})), {64, 24});
         return f32(make<op::Transpose>(stored, integers({1, 0})));
     }},
    {"f16", "f16", [] { return f32(f16(floats({24, 64}))); }},
    {"bf16", "bf16", [] { return f32(convert(floats({24, 64}), ov::element::bf16)); }},
    {"f32_that_are_f16", "f16", [] { return powers({24, 64}, ov::element::f32); }},
    {"f32_that_are_bf16", "bf16",
     [] {
         // Too small for f16.
         return constant(ov::element::f32, {24, 64},
                         std::vector<float>(24 * 64, std::ldexp(1.0F, -60)));
     }},
    {"f16_transposed", "f16", [] { return f32(codes(ov::element::f16, {64, 24}, -99, 99)); }, true},
};

class Matrices : public testing::TestWithParam<WeightCase> {};

TEST_P(Matrices, ArePackedAsTheyAre) {
    const WeightCase& test = GetParam();
    const auto x = activations({-1, -1, 64});
    const auto graph =
        model({make<op::MatMul>(x, folded(test.weights()), false, !test.transposed)}, {x});
    const auto layers = rewrite_and_compare(graph);
    ASSERT_EQ(layers.size(), 1U);
    EXPECT_EQ(layers[0].reason, "");
    EXPECT_EQ(layers[0].operation, "FullyConnected");
    EXPECT_EQ(layers[0].format, test.format);
    EXPECT_THAT(operations(graph), ElementsAre("FullyConnected"));
    EXPECT_EQ(count(graph, "MatMul"), 0U);
}

INSTANTIATE_TEST_SUITE_P(Forms, Matrices, testing::ValuesIn(kWeights),
                         [](const auto& form) { return std::string(form.param.name); });

TEST(RewriteWeights, RoundsNothingOfScalesThatTheGraphMultipliesInF16) {
    const auto x = activations({-1, 64});
    const Value scales = folded(f16(floats({24, 2, 1}, 0.01F, 0.02F)));
    const auto graph =
        model({linear(x, matrix(product(f16(codes(i4, {24, 2, 32}, -8, 7)), scales)))}, {x});
    // The graph rounds each weight to f16 (2^-11 of it), the packed ones are the exact products.
    rewrite_and_compare(graph, {}, 5e-4F);
    EXPECT_THAT(operations(graph), ElementsAre("FullyConnected"));
}

// ---- what is left alone -----------------------------------------------------------------------

struct LeftCase {
    const char* name;
    const char* reason;
    std::function<Value(const Value& x)> build;
    ov::PartialShape input{-1, -1, 64};
};

std::ostream& operator<<(std::ostream& stream, const LeftCase& value) {
    return stream << value.name;
}

const std::vector<LeftCase> kLeft = {
    {"f32_weights", "weights are f32 and not exactly f16 or bf16",
     [](const Value& x) { return linear(x, floats({24, 64})); }},
    {"computed_weights", "weights are not constant",
     [](const Value& x) {
         const Value rows = make<op::ReduceSum>(x, integers({0, 1}), false);
         return linear(x, make<op::Add>(int4(24, 64), rows));
     }},
    {"three_dimensions", "weights have 3 dimensions",
     [](const Value& x) {
         return linear(x, f32(product(f16(codes(i8, {1, 24, 64}, -9, 9)), powers({1, 24, 1}))));
     }},
    {"small_groups", "weights are in groups of 8",
     [](const Value& x) {
         return linear(x, matrix(product(f16(codes(i8, {24, 8, 8}, -9, 9)), powers({24, 8, 1}))));
     }},
    {"groups_of_16_that_fill_no_chunk",
     "weights are in groups of 16, and 48 columns are no multiple of 32",
     [](const Value& x) {
         const Value codes_of_16 = f16(codes(i8, {24, 3, 16}, -9, 9));
         return linear(x, f32(reshape(product(codes_of_16, powers({24, 3, 1})), {24, 48})));
     },
     {-1, -1, 48}},
    {"scales_of_columns", "scales are [1, 64] for weights [24, 64]",
     [](const Value& x) {
         return linear(x, f32(product(f16(codes(i8, {24, 64}, -9, 9)), powers({1, 64}))));
     }},
    {"scales_of_weights", "scales are [24, 64] for weights [24, 64]",
     [](const Value& x) {
         return linear(x, f32(product(f16(codes(i8, {24, 64}, -9, 9)), powers({24, 64}))));
     }},
    {"groups_of_rows", "weights are reshaped from [2, 12, 64] to [24, 64]",
     [](const Value& x) {
         return linear(x, matrix(product(f16(codes(i8, {2, 12, 64}, -9, 9)), powers({2, 1, 64}))));
     }},
    {"fractional_zero_points", "zero points are not whole numbers from 0 to 255",
     [](const Value& x) {
         const Value zero_points = constant(ov::element::f16, {24, 1}, std::vector(24, 7.5F));
         return linear(x,
                       f32(product(make<op::Subtract>(f16(codes(u4, {24, 64}, 0, 15)), zero_points),
                                   powers({24, 1}))));
     }},
    {"float_codes", "weights are of type f8e4m3",
     [](const Value& x) {
         return linear(
             x, f32(product(f16(codes(ov::element::f8e4m3, {24, 64}, -8, 8)), powers({24, 1}))));
     }},
    {"two_bits", "weights are of type u2",
     [](const Value& x) {
         return linear(x,
                       f32(product(f16(codes(ov::element::u2, {24, 64}, 0, 3)), powers({24, 1}))));
     }},
    {"fake_quantized_weights", "weights are fake-quantized",
     [](const Value& x) {
         const auto limit = [](float value) { return constant(ov::element::f32, {}, {value}); };
         return linear(x, make<op::FakeQuantize>(floats({24, 64}), limit(-1), limit(1), limit(-1),
                                                 limit(1), 255));
     }},
    {"fake_quantized_activations", "activations are fake-quantized",
     [](const Value& x) {
         const auto limit = [](float value) { return constant(ov::element::f32, {}, {value}); };
         return linear(make<op::FakeQuantize>(x, limit(-2), limit(2), limit(-2), limit(2), 255),
                       int4(24, 64));
     }},
    {"transposed_activations",
     "activations are transposed",
     [](const Value& x) { return make<op::MatMul>(x, int4(24, 64), true, true); },
     {-1, 64, -1}},
    {"one_dimension",
     "activations have 1 dimensions",
     [](const Value& x) { return linear(x, int4(24, 64)); },
     {64}},
    {"five_dimensions",
     "activations have 5 dimensions",
     [](const Value& x) { return linear(x, int4(24, 64)); },
     {1, 1, 1, -1, 64}},
    {"f16_activations", "activations are of type f16",
     [](const Value& x) {
         const Value weights = product(f16(codes(i8, {24, 64}, -9, 9)), powers({24, 1}));
         return f32(linear(f16(x), weights));
     }},
};

class LeftAlone : public testing::TestWithParam<LeftCase> {};

TEST_P(LeftAlone, WithTheReason) {
    const LeftCase& test = GetParam();
    const auto x = activations(test.input);
    const auto graph = model({test.build(x)}, {x});
    const size_t nodes = graph->get_ops().size();
    const auto layers = ovfast::ops::rewrite_to_packed(graph);
    ASSERT_EQ(layers.size(), 1U);
    EXPECT_EQ(layers[0].reason, test.reason);
    EXPECT_EQ(layers[0].operation, "");
    EXPECT_EQ(layers[0].packed_bytes, 0U);
    EXPECT_EQ(graph->get_ops().size(), nodes);
    EXPECT_THAT(operations(graph), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(Forms, LeftAlone, testing::ValuesIn(kLeft),
                         [](const auto& form) { return std::string(form.param.name); });

TEST(RewriteWeights, LeavesFloatsWhenAsked) {
    const auto x = activations({-1, 64});
    const auto graph = model({linear(x, powers({24, 64}, ov::element::f32))}, {x});
    RewriteOptions options;
    options.pack_floats = false;
    const auto layers = ovfast::ops::rewrite_to_packed(graph, options);
    ASSERT_EQ(layers.size(), 1U);
    EXPECT_EQ(layers[0].reason, "weights are floats");
    EXPECT_EQ(layers[0].source_bytes, 24U * 64 * 4);
}

TEST(RewriteWeights, IgnoresMultiplicationsThatAreNoLayers) {
    const auto x = activations({-1, -1, 64});
    const auto y = activations({-1, -1, 64});
    const auto positions = activations({-1, 1, -1});
    const auto graph = model(
        {
            make<op::MatMul>(x, y, false, true),
            make<op::MatMul>(floats({1, 32, 1}), positions),
        },
        {x, y, positions});
    EXPECT_THAT(ovfast::ops::rewrite_to_packed(graph), IsEmpty());
}

// ---- embeddings and sharing -------------------------------------------------------------------

std::shared_ptr<op::Parameter> some_ids() {
    return std::make_shared<op::Parameter>(ov::element::i64, ov::PartialShape{-1, -1});
}

Value embedding(const Value& table, const Value& ids, int64_t axis = 0) {
    return make<op::Gather>(table, ids, op::Constant::create(ov::element::i64, {}, {axis}));
}

TEST(RewriteWeights, SharesATableWithATiedLayer) {
    for (const bool same_node : {true, false}) {
        // Equal bytes are as good as the same constant.
        const auto table = [] {
            generator().seed(11);
            return int4(40, 64);
        };
        const Value weights = table();
        const auto ids = some_ids();
        const auto graph =
            model({linear(make<op::Tanh>(embedding(weights, ids)), same_node ? weights : table())},
                  {ids});
        const auto layers = rewrite_and_compare(graph);
        ASSERT_THAT(operations(graph), ElementsAre("Embedding", "FullyConnected"));
        const ov::Node* packed[2] = {};
        for (const auto& node : graph->get_ops())
            if (std::dynamic_pointer_cast<ovfast::ops::PackedOp>(node))
                packed[node->get_type_name() == std::string("Embedding")] =
                    node->get_input_node_ptr(1);
        EXPECT_EQ(packed[0], packed[1]);
        EXPECT_EQ(layers[0].packed_bytes, 0U);
        EXPECT_GT(layers[1].packed_bytes, 0U);
    }
}

TEST(RewriteWeights, EmbedsFromTheHalvesOfATiedLmHead) {
    constexpr size_t words = 16384;  // the fewest that are split
    for (const bool exact : {true, false}) {
        for (const bool symmetric : {true, false}) {
            // f16 scales in f32, so that the graph rounds nothing.
            const Value drawn = floats({words, 1}, 0.01F, 0.02F);
            const Value scales = exact ? f32(folded(f16(drawn))) : drawn;
            const Value codes_f32 = f32(codes(u8, {words, 64}, 0, 255));
            const Value zeros =
                f32(codes(u8, {words, 1}, symmetric ? 128 : 0, symmetric ? 128 : 255));
            const Value table = product(make<op::Subtract>(codes_f32, zeros), scales);
            const auto ids = some_ids();
            const Value rows = embedding(table, ids);
            const auto graph = model({rows, linear(make<op::Tanh>(rows), table)}, {ids});
            const auto inputs = some_inputs(graph);
            const auto expected = evaluate(graph, inputs)[0];
            const auto layers = rewrite_and_compare(graph, {}, 1e-4F);
            ASSERT_THAT(operations(graph), ElementsAre("Embedding", "LMHead"));
            const ov::Node* ours[2] = {};
            for (const auto& node : graph->get_ops())
                if (std::dynamic_pointer_cast<ovfast::ops::PackedOp>(node))
                    ours[node->get_type_name() == std::string("LMHead")] = node.get();
            if (!exact) {
                EXPECT_EQ(ours[0]->get_input_size(), 2U);
                continue;
            }
            ASSERT_EQ(ours[0]->get_input_size(), 3U);
            for (const size_t index : {1, 2})
                EXPECT_EQ(ours[0]->get_input_node_ptr(index), ours[1]->get_input_node_ptr(index));
            EXPECT_EQ(evaluate(graph, inputs)[0], expected);
            EXPECT_EQ(layers[0].format, symmetric
                                            ? "u4 g64 f16 half-symmetric, u4 g64 f16 symmetric"
                                            : "u4 g64 f16 f32, u4 g64 f16 symmetric");
            EXPECT_EQ(layers[0].packed_bytes, 0U);
            EXPECT_GT(layers[1].packed_bytes, words * 64);
            ASSERT_EQ(ovfast::ops::unfuse(graph), 2U);
            EXPECT_EQ(evaluate(graph, inputs)[0], expected);
        }
    }
}

TEST(RewriteWeights, EmbedsFromATableInF16) {
    const auto ids = some_ids();
    const Value table = product(f16(codes(i8, {40, 64}, -128, 127)), powers({40, 1}));
    const auto graph = model({f32(embedding(table, ids, -2))}, {ids});
    rewrite_and_compare(graph);
    EXPECT_THAT(operations(graph), ElementsAre("Embedding"));
    EXPECT_EQ(count(graph, "Convert"), 0U);
}

TEST(RewriteWeights, KeepsGathersThatAreNoEmbedding) {
    const auto ids = some_ids();
    const auto other_axis = model({embedding(int4(40, 64), ids, 1)}, {ids});
    EXPECT_THAT(ovfast::ops::rewrite_to_packed(other_axis), IsEmpty());

    const auto rows = activations({3, 64});
    const auto some_rows = model({embedding(rows, ids)}, {rows, ids});
    EXPECT_THAT(ovfast::ops::rewrite_to_packed(some_rows), IsEmpty());

    const auto f32_table = model({embedding(floats({40, 64}), ids)}, {ids});
    const auto layers = ovfast::ops::rewrite_to_packed(f32_table);
    ASSERT_EQ(layers.size(), 1U);
    EXPECT_EQ(layers[0].reason, "weights are f32 and not exactly f16 or bf16");

    const Value f16_table = product(f16(codes(i8, {40, 64}, -9, 9)), powers({40, 1}));
    const auto f16_rows = model({make<op::Tanh>(embedding(f16_table, ids))}, {ids});
    const auto f16_layers = ovfast::ops::rewrite_to_packed(f16_rows);
    ASSERT_EQ(f16_layers.size(), 1U);
    EXPECT_EQ(f16_layers[0].reason, "rows are of type f16");
}

// ---- options ----------------------------------------------------------------------------------

TEST(RewriteWeights, AsksForLargeMatricesInPieces) {
    const size_t rows = 40'000;
    const auto x = activations({-1, 32});
    const auto graph = model({linear(x, int4(rows, 32, "the weights"))}, {x});
    RewriteOptions options;
    options.split_lm_head = false;
    std::vector<size_t> firsts;
    options.source = [&](const std::string&, const RewriteOptions::Piece& piece) {
        EXPECT_EQ(piece.rows, rows);
        firsts.push_back(piece.first);
        ovfast::kernels::PlainWeights plain;
        plain.format.bits = 4;
        plain.rows = piece.count;
        plain.columns = piece.columns;
        plain.codes.assign(piece.count * piece.columns, 9);  // 1 above the middle
        for (size_t row = piece.first; row < piece.first + piece.count; ++row) {
            plain.scales.push_back(static_cast<float>(row % 1000));
        }
        return std::optional(plain);
    };
    const auto layers = ovfast::ops::rewrite_to_packed(graph, options);
    ASSERT_EQ(layers.size(), 1U);
    EXPECT_GT(firsts.size(), 1U);
    ov::Tensor input(ov::element::f32, {1, 32});
    std::fill_n(input.data<float>(), 32, 1.0F);
    const auto found = evaluate(graph, {input})[0];
    ASSERT_EQ(found.size(), rows);
    for (size_t row = 0; row < rows; ++row) {
        // Rounding of 32 weights of the same value and size, less what their zero point takes away.
        ASSERT_NEAR(found[row], 32.0F * static_cast<float>(row % 1000), 0.05F) << row;
    }
}

TEST(RewriteWeights, AsksForBetterWeights) {
    const auto x = activations({-1, 64});
    const auto graph = model({linear(x, int4(24, 64, "the weights"))}, {x});
    RewriteOptions options;
    options.source = [](const std::string& name, const RewriteOptions::Piece& piece) {
        EXPECT_EQ(name, "the weights");
        const size_t rows = piece.count;
        const size_t columns = piece.columns;
        ovfast::kernels::PlainWeights ones;
        ones.format.bits = 16;
        ones.format.scales = ovfast::kernels::ScaleKind::None;
        ones.format.offsets = ovfast::kernels::OffsetKind::None;
        ones.format.floats = ovfast::kernels::FloatKind::BF16;
        ones.format.group = static_cast<uint32_t>(columns);
        ones.rows = rows;
        ones.columns = columns;
        ones.floats.assign(rows * columns, ovfast::kernels::to_bf16(1.0F));
        return std::optional(ones);
    };
    const auto layers = ovfast::ops::rewrite_to_packed(graph, options);
    ASSERT_EQ(layers.size(), 1U);
    EXPECT_EQ(layers[0].format, "bf16");
    ov::Tensor input(ov::element::f32, {1, 64});
    std::fill_n(input.data<float>(), 64, 0.5F);
    EXPECT_THAT(evaluate(graph, {input})[0], testing::Each(32.0F));
}

TEST(RewriteWeights, RefusesBetterWeightsOfAnotherShape) {
    const auto x = activations({-1, 64});
    const auto graph = model({linear(x, int4(24, 64))}, {x});
    RewriteOptions options;
    options.source = [](const std::string&, const RewriteOptions::Piece&) {
        return std::optional<ovfast::kernels::PlainWeights>(std::in_place);
    };
    EXPECT_THROW(ovfast::ops::rewrite_to_packed(graph, options), std::invalid_argument);
}

TEST(RewriteWeights, ReportsProgressAndFreesWhatItPacked) {
    const auto x = activations({-1, 64});
    std::vector<std::weak_ptr<ov::Node>> sources;
    Value y = x;
    for (const char* name : {"first", "second", "third"}) {
        const Value weights = int4(64, 64, name);
        sources.push_back(weights.get_node_shared_ptr());
        y = make<op::Tanh>(linear(y, weights));
    }
    const auto graph = model({y}, {x});
    y = {};
    std::vector<std::string> names;
    std::vector<double> fractions;
    RewriteOptions options;
    options.progress = [&](double fraction, const std::string& name) {
        // The layer before has let go of its source, or all of them would be held at the end.
        for (size_t i = 0; i < names.size(); ++i) EXPECT_TRUE(sources[i].expired()) << i;
        names.push_back(name);
        fractions.push_back(fraction);
        return true;
    };
    ovfast::ops::rewrite_to_packed(graph, options);
    EXPECT_THAT(names, ElementsAre("first", "second", "third"));
    EXPECT_THAT(fractions, ElementsAre(testing::DoubleNear(1.0 / 3, 1e-9),
                                       testing::DoubleNear(2.0 / 3, 1e-9), 1.0));
}

TEST(RewriteWeights, CanBeCancelled) {
    const auto x = activations({-1, 64});
    const auto graph = model({linear(x, int4(24, 64))}, {x});
    RewriteOptions options;
    options.progress = [](double, const std::string&) { return false; };
    EXPECT_THROW(ovfast::ops::rewrite_to_packed(graph, options), ovfast::Error);
}

}  // namespace
