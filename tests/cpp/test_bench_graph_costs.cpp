#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <openvino/opsets/opset13.hpp>

#include "apps/bench/graph_costs.hpp"
#include "apps/bench/roofline.hpp"
#include "kernels/pack.hpp"
#include "ops/packed_ops.hpp"
#include "ops_fixtures.hpp"

namespace ovfast::bench {
namespace {

using namespace ov::opset13;
using testing::ElementsAre;
using testing::Pair;

std::shared_ptr<Parameter> input(const ov::PartialShape& shape,
                                 ov::element::Type type = ov::element::f32) {
    return std::make_shared<Parameter>(type, shape);
}

std::shared_ptr<Constant> weights(const ov::Shape& shape,
                                  ov::element::Type type = ov::element::f32) {
    // Not all alike, and not 0 or 1: those may share their memory.
    std::vector<float> values(ov::shape_size(shape));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 5) + 1.0F;
    return Constant::create(type, shape, values);
}

std::shared_ptr<ov::Model> model(const ov::Output<ov::Node>& output,
                                 const ov::ParameterVector& inputs) {
    return std::make_shared<ov::Model>(ov::OutputVector{output}, inputs);
}

TEST(GraphCosts, MatMulOfKnownShape) {
    const auto x = input({2, 3, 8});
    const auto y = std::make_shared<MatMul>(x, weights({5, 8}), false, true);
    const GraphCosts costs = count_graph(model(y, {x}));
    ASSERT_EQ(costs.nodes.size(), 1U);
    EXPECT_THAT(costs.weights, ElementsAre(Pair("f32", 5 * 8 * 4)));
    EXPECT_TRUE(costs.nodes[0].logits);
    bool incomplete = true;
    const Work work = inference_work(costs, incomplete);
    EXPECT_FALSE(incomplete);
    EXPECT_EQ(work.bytes, 160);
    EXPECT_EQ(work.f32_operations, 2 * 6 * 5 * 8);  // 6 rows
    EXPECT_EQ(work.int8_operations, 0);
}

TEST(GraphCosts, WeightsOnTheLeftAndBatchedOnes) {
    const auto x = input({8, 3});
    const auto left = std::make_shared<MatMul>(weights({5, 8}), x);
    bool incomplete = true;
    EXPECT_EQ(inference_work(count_graph(model(left, {x})), incomplete).f32_operations,
              2 * 5 * 8 * 3);
    const auto batch = input({4, 3, 8});
    const auto experts = std::make_shared<MatMul>(batch, weights({4, 8, 5}));
    EXPECT_EQ(inference_work(count_graph(model(experts, {batch})), incomplete).f32_operations,
              2 * 4 * 3 * 5 * 8);
    EXPECT_FALSE(incomplete);
}

// As NNCF compresses: u4 weights and zero points, f16 scales, all of which are read.
TEST(GraphCosts, CompressedWeights) {
    const auto codes =
        std::make_shared<Convert>(weights({6, 2, 32}, ov::element::u4), ov::element::f16);
    const auto zeros =
        std::make_shared<Convert>(weights({6, 2, 1}, ov::element::u4), ov::element::f16);
    const auto shifted = std::make_shared<Subtract>(codes, zeros);
    const auto scaled = std::make_shared<Multiply>(shifted, weights({6, 2, 1}, ov::element::f16));
    const auto shaped =
        std::make_shared<Reshape>(scaled, Constant::create(ov::element::i64, {2}, {6, 64}), false);
    const auto w = std::make_shared<Convert>(shaped, ov::element::f32);
    const auto x = input({-1, 64});
    const auto y = std::make_shared<MatMul>(x, w, false, true);
    const GraphCosts costs = count_graph(model(y, {x}));
    // 384 codes and 12 zero points of half a byte, 12 scales of two.
    EXPECT_THAT(costs.weights, ElementsAre(Pair("f16", 24), Pair("u4", 198)));
    ASSERT_EQ(costs.nodes.size(), 1U);
    EXPECT_TRUE(costs.nodes[0].int8);
    EXPECT_FALSE(costs.nodes[0].rows);  // dynamic
    bool incomplete = false;
    inference_work(costs, incomplete);
    EXPECT_TRUE(incomplete);
    // It gives the output: one row of a step of ten tokens.
    EXPECT_EQ(step_work(costs, {10, 1, 0}).int8_operations, 2 * 6 * 64);
}

TEST(GraphCosts, Convolutions) {
    const auto x = input({2, 3, 10, 10});
    const auto plain = std::make_shared<Convolution>(x, weights({4, 3, 3, 3}), ov::Strides{1, 1},
                                                     ov::CoordinateDiff{0, 0},
                                                     ov::CoordinateDiff{0, 0}, ov::Strides{1, 1});
    bool incomplete = true;
    Work work = inference_work(count_graph(model(plain, {x})), incomplete);
    EXPECT_FALSE(incomplete);
    EXPECT_EQ(work.f32_operations, 2.0 * (2 * 4 * 8 * 8) * (3 * 3 * 3));  // outputs x a filter
    EXPECT_EQ(work.bytes, 4 * 3 * 9 * 4);

    const auto grouped = std::make_shared<GroupConvolution>(
        x, weights({3, 2, 1, 3, 3}), ov::Strides{1, 1}, ov::CoordinateDiff{0, 0},
        ov::CoordinateDiff{0, 0}, ov::Strides{1, 1});
    work = inference_work(count_graph(model(grouped, {x})), incomplete);
    EXPECT_EQ(work.f32_operations, 2.0 * (2 * 6 * 8 * 8) * 9);

    const auto transposed = std::make_shared<ConvolutionBackpropData>(
        x, weights({3, 4, 3, 3}), ov::Strides{1, 1}, ov::CoordinateDiff{0, 0},
        ov::CoordinateDiff{0, 0}, ov::Strides{1, 1});
    work = inference_work(count_graph(model(transposed, {x})), incomplete);
    EXPECT_EQ(work.f32_operations, 2.0 * (2 * 3 * 10 * 10) * (4 * 9));
}

TEST(GraphCosts, FakeQuantizedConvolutionIsOfInt8) {
    const auto x = input({1, 3, 8, 8});
    const auto low = Constant::create(ov::element::f32, {}, {-1.0F});
    const auto high = Constant::create(ov::element::f32, {}, {1.0F});
    const auto quantized = std::make_shared<FakeQuantize>(x, low, high, low, high, 256);
    const auto y = std::make_shared<Convolution>(quantized, weights({4, 3, 1, 1}),
                                                 ov::Strides{1, 1}, ov::CoordinateDiff{0, 0},
                                                 ov::CoordinateDiff{0, 0}, ov::Strides{1, 1});
    bool incomplete = true;
    const Work work = inference_work(count_graph(model(y, {x})), incomplete);
    EXPECT_EQ(work.int8_operations, 2 * 4 * 3 * 64);
    EXPECT_EQ(work.f32_operations, 0);
}

TEST(GraphCosts, Attention) {
    const auto q = input({1, 8, 5, 16});
    const auto k = input({1, 8, 7, 16});
    const auto v = input({1, 8, 7, 32});
    const auto y = std::make_shared<ScaledDotProductAttention>(q, k, v, false);
    const GraphCosts costs = count_graph(model(y, {q, k, v}));
    bool incomplete = true;
    EXPECT_EQ(inference_work(costs, incomplete).f32_operations, 2 * 8 * 5 * 7 * (16 + 32));
    EXPECT_FALSE(incomplete);
    EXPECT_EQ(step_work(costs, {1, 1, 100}).f32_operations, 2 * 8 * 100 * (16 + 32));
    // By hand, as a MatMul of two activations.
    const auto scores = std::make_shared<MatMul>(q, k, false, true);
    EXPECT_EQ(inference_work(count_graph(model(scores, {q, k})), incomplete).f32_operations,
              2 * 8 * 5 * 7 * 16);
}

TEST(GraphCosts, TablesAreReadByRows) {
    const auto ids = input({1, 3}, ov::element::i64);
    const auto table = weights({1000, 16}, ov::element::f16);
    const auto rows = std::make_shared<Gather>(std::make_shared<Convert>(table, ov::element::f32),
                                               ids, Constant::create(ov::element::i64, {}, {0}));
    const GraphCosts costs = count_graph(model(rows, {ids}));
    EXPECT_EQ(costs.weight_bytes(), 32000U);
    bool incomplete = true;
    const Work work = inference_work(costs, incomplete);
    EXPECT_EQ(work.bytes, 3 * 32);
    EXPECT_EQ(work.f32_operations, 0);
}

// A table that is the lm_head, too: stored once, read by the lm_head as a whole.
TEST(GraphCosts, SharedWeightsCountOnceInSizeAndEachTimeInReading) {
    const auto ids = input({1, 3}, ov::element::i64);
    const auto table = weights({500, 8});
    const auto rows =
        std::make_shared<Gather>(table, ids, Constant::create(ov::element::i64, {}, {0}));
    const auto logits = std::make_shared<MatMul>(rows, table, false, true);
    const GraphCosts costs = count_graph(model(logits, {ids}));
    EXPECT_EQ(costs.weight_bytes(), 16000U);
    bool incomplete = true;
    EXPECT_EQ(inference_work(costs, incomplete).bytes, 16000 + 3 * 32);
}

TEST(GraphCosts, PackedWeightsHaveTheirRealSize) {
    kernels::PlainWeights plain;
    plain.format = {4, kernels::ScaleKind::F16, kernels::OffsetKind::Symmetric,
                    kernels::FloatKind::None, 32};
    plain.rows = 48;
    plain.columns = 64;
    plain.codes.assign(48 * 64, 3);
    plain.scales.assign(48 * 2, 0.5F);
    const size_t bytes = kernels::packed_bytes(plain.format, plain.rows, plain.columns);
    const auto packed = test::u8_constant(test::packed_bytes(plain));
    const auto x = input({-1, 64});
    const auto y = std::make_shared<ops::FullyConnected>(ov::OutputVector{x, packed},
                                                         ops::FullyConnected::Attributes{48, 64});
    const GraphCosts costs = count_graph(model(y->output(0), {x}));
    ASSERT_EQ(costs.nodes.size(), 1U);
    EXPECT_THAT(costs.weights, ElementsAre(Pair("packed " + plain.format.text(), bytes)));
    // 3 blocks of 16 rows: f16 scales of 2 groups, 2 chunks of 256 bytes; and a header of 64.
    EXPECT_EQ(bytes, 64U + 3 * (16 * 2 * 2 + 2 * 256));
    const Work work = step_work(costs, {1, 1, 0});
    EXPECT_EQ(work.bytes, static_cast<double>(bytes));
    EXPECT_EQ(work.int8_operations, 2 * 48 * 64);
}

TEST(GraphCosts, WhatIsNotCountedIsNamed) {
    const auto x = input({1, 2, 4});
    const auto state = input({1, 1, 3});
    const auto lengths = input({1}, ov::element::i32);
    const auto y = std::make_shared<GRUSequence>(x, state, lengths, weights({1, 9, 4}),
                                                 weights({1, 9, 3}), weights({1, 9}), 3,
                                                 ov::op::RecurrentSequenceDirection::FORWARD);
    const GraphCosts costs = count_graph(std::make_shared<ov::Model>(
        ov::OutputVector{y->output(0)}, ov::ParameterVector{x, state, lengths}));
    EXPECT_THAT(costs.not_counted, ElementsAre(Pair("GRUSequence", 1)));
    bool incomplete = false;
    inference_work(costs, incomplete);
    EXPECT_TRUE(incomplete);
}

MachineLimits machine() {
    MachineLimits limits;
    limits.rates = {10e9, 200e9, 50e9};
    limits.threads = 2;
    limits.probes = 1;
    return limits;
}

TEST(Roofline, TheLongerOfMemoryAndArithmeticBinds) {
    const Limit memory = limit_of({1e9, 2e9, 0}, machine());
    EXPECT_DOUBLE_EQ(memory.seconds(), 0.1);
    EXPECT_STREQ(memory.bound(), "memory");
    const Limit compute = limit_of({1e9, 20e9, 5e9}, machine());
    EXPECT_DOUBLE_EQ(compute.seconds(), 0.2);  // 0.1 for each kind
    EXPECT_STREQ(compute.bound(), "compute");
    EXPECT_DOUBLE_EQ(share({"", "", 1, {1e9, 0, 0}, 0.4}, machine()), 0.25);
    EXPECT_EQ(share({"", "", 1, {1e9, 0, 0}, 0.0}, machine()), 0.0);
}

TEST(Roofline, LayersAreJoinedByName) {
    GraphCosts costs;
    for (const char* name : {"model.layers.0.mlp", "model.layers.12.mlp", "fused away"}) {
        NodeCost node;
        node.name = name;
        node.type = "MatMul";
        node.bytes = 100;
        costs.nodes.push_back(node);
    }
    const auto rows =
        join_layers(costs, [](const NodeCost& node) { return std::optional(step_work(node, {})); },
                    {{"model.layers.0.mlp", 0.1},
                     {"model.layers.12.mlp", 0.3},
                     {"Add_1", 0.2},
                     {"Add_2", 0.1}});
    ASSERT_EQ(rows.size(), 3U);
    EXPECT_EQ(rows[0].name, "model.layers.12.mlp");
    EXPECT_EQ(rows[2].name, "other operations");
    EXPECT_EQ(rows[2].count, 2);
    EXPECT_DOUBLE_EQ(rows[2].seconds, 0.3);
    const auto kinds = by_kind(rows);
    ASSERT_EQ(kinds.size(), 2U);
    EXPECT_EQ(kinds[0].name, "model.layers.*.mlp");
    EXPECT_EQ(kinds[0].count, 2);
    EXPECT_DOUBLE_EQ(kinds[0].seconds, 0.4);
    EXPECT_EQ(kinds[0].work.bytes, 200);
}

}  // namespace
}  // namespace ovfast::bench
