#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <limits>
#include <openvino/core/model.hpp>
#include <openvino/op/parameter.hpp>
#include <openvino/pass/serialize.hpp>
#include <openvino/runtime/core.hpp>
#include <sstream>
#include <thread>

#include "kernels/cpu_features.hpp"
#include "ops/packed_ops.hpp"
#include "ops/unfused.hpp"
#include "ops_fixtures.hpp"
#include "ovfast/ops.hpp"

namespace {

using namespace ovfast::ops;
using namespace ovfast::test;
using ovfast::kernels::Isa;
using testing::HasSubstr;

constexpr int64_t kColumns = 96;

std::shared_ptr<ov::Node> vector(int64_t size, unsigned seed, float low = -1.0F) {
    const auto count = static_cast<size_t>(size);
    return ov::op::v0::Constant::create(ov::element::f32, {count},
                                        random_floats(count, seed, low, 1.0F));
}

// Inputs of an operation on `x`, and on the residual if it takes one.
struct Graph {
    ov::ParameterVector parameters;
    std::shared_ptr<PackedOp> op;

    std::shared_ptr<ov::Model> model() const {
        return std::make_shared<ov::Model>(op->outputs(), parameters);
    }
};

std::shared_ptr<ov::op::v0::Parameter> parameter(int64_t columns, bool rank_known = true) {
    return std::make_shared<ov::op::v0::Parameter>(
        ov::element::f32,
        rank_known ? ov::PartialShape{-1, -1, columns} : ov::PartialShape::dynamic());
}

Graph fully_connected(bool norm, bool bias, bool residual, int64_t rows = 52,
                      int64_t columns = kColumns) {
    Graph graph;
    graph.parameters = {parameter(columns)};
    ov::OutputVector inputs{graph.parameters[0], packed_constant(rows, columns, 1)};
    if (norm) inputs.push_back(vector(columns, 2, 0.5F));
    if (bias) inputs.push_back(vector(rows, 3));
    if (residual) {
        graph.parameters.push_back(parameter(rows, false));
        inputs.push_back(graph.parameters[1]);
    }
    FullyConnected::Attributes a;
    a.rows = rows;
    a.columns = columns;
    a.norm = norm;
    a.epsilon = 1e-5F;
    a.bias = bias;
    a.residual = residual;
    graph.op = std::make_shared<FullyConnected>(inputs, a);
    return graph;
}

Graph qkv(bool norm, int64_t biases) {
    Graph graph;
    graph.parameters = {parameter(kColumns)};
    QKV::Attributes a;
    a.columns = kColumns;
    a.q_rows = 80;
    a.k_rows = 24;
    a.v_rows = 40;
    a.norm = norm;
    a.epsilon = 1e-5F;
    a.biases = biases;
    ov::OutputVector inputs{graph.parameters[0], packed_constant(a.q_rows, kColumns, 1),
                            packed_constant(a.k_rows, kColumns, 4),
                            packed_constant(a.v_rows, kColumns, 7)};
    if (norm) inputs.push_back(vector(kColumns, 2, 0.5F));
    if (biases & 1) inputs.push_back(vector(a.q_rows, 3));
    if (biases & 2) inputs.push_back(vector(a.k_rows, 5));
    if (biases & 4) inputs.push_back(vector(a.v_rows, 6));
    graph.op = std::make_shared<QKV>(inputs, a);
    return graph;
}

Graph gated_mlp(Gate gate, bool norm, bool residual) {
    Graph graph;
    graph.parameters = {parameter(kColumns)};
    GatedMLP::Attributes a;
    a.columns = kColumns;
    a.intermediate = 256;
    a.rows = 72;
    a.gate = gate;
    a.norm = norm;
    a.epsilon = 1e-5F;
    a.residual = residual;
    ov::OutputVector inputs{graph.parameters[0], packed_constant(a.intermediate, kColumns, 1),
                            packed_constant(a.intermediate, kColumns, 4),
                            packed_constant(a.rows, a.intermediate, 7)};
    if (norm) inputs.push_back(vector(kColumns, 2, 0.5F));
    if (residual) {
        graph.parameters.push_back(parameter(a.rows, false));
        inputs.push_back(graph.parameters[1]);
    }
    graph.op = std::make_shared<GatedMLP>(inputs, a);
    return graph;
}

Graph embedding(ov::element::Type ids, size_t rows = 30) {
    Graph graph;
    graph.parameters = {std::make_shared<ov::op::v0::Parameter>(ids, ov::PartialShape{-1, -1})};
    Embedding::Attributes a;
    a.rows = static_cast<int64_t>(rows);
    a.columns = kColumns;
    graph.op = std::make_shared<Embedding>(
        ov::OutputVector{graph.parameters[0], packed_constant(rows, kColumns, 1)}, a);
    return graph;
}

ov::Tensor tensor(const ov::Shape& shape, unsigned seed) {
    ov::Tensor result(ov::element::f32, shape);
    const auto values = random_floats(result.get_size(), seed);
    std::copy(values.begin(), values.end(), result.data<float>());
    return result;
}

// On the host, node by node: a sanitizer cannot load the CPU plugin.
ov::TensorVector infer(const std::shared_ptr<ov::Model>& model, const ov::TensorVector& inputs) {
    ov::TensorVector outputs;
    for (size_t i = 0; i < model->outputs().size(); ++i) {
        outputs.emplace_back(ov::element::f32, ov::Shape{0});
    }
    EXPECT_TRUE(model->evaluate(outputs, inputs));
    return outputs;
}

struct Case {
    const char* name;
    Graph (*build)();
};

const std::vector<Case> kCases = {
    {"fully_connected", [] { return fully_connected(false, false, false); }},
    {"fully_connected_norm", [] { return fully_connected(true, false, false); }},
    {"fully_connected_bias", [] { return fully_connected(false, true, false); }},
    {"fully_connected_residual", [] { return fully_connected(false, false, true); }},
    {"fully_connected_all", [] { return fully_connected(true, true, true); }},
    {"columns_in_no_chunks", [] { return fully_connected(false, true, false, 33, 100); }},
    {"columns_in_no_chunks_norm", [] { return fully_connected(true, true, false, 33, 100); }},
    {"one_column_of_blocks", [] { return fully_connected(true, true, true, 5, 32); }},
    {"qkv", [] { return qkv(false, 0); }},
    {"qkv_norm_biases", [] { return qkv(true, 7); }},
    {"qkv_some_biases", [] { return qkv(false, 5); }},
    {"silu", [] { return gated_mlp(Gate::Silu, false, false); }},
    {"silu_norm_residual", [] { return gated_mlp(Gate::Silu, true, true); }},
    {"gelu_tanh_norm", [] { return gated_mlp(Gate::GeluTanh, true, false); }},
    {"gelu_erf_residual", [] { return gated_mlp(Gate::GeluErf, false, true); }},
};

class PackedOps : public testing::TestWithParam<std::tuple<Case, Activations>> {
protected:
    static Graph graph() {
        Graph built = std::get<0>(GetParam()).build();
        built.op->set_mode(std::get<1>(GetParam()));
        return built;
    }

    // Exact: sums of at most 256 products in f32, in another order. Int8: codes of uniform random
    // values are off by 1/254 of their size (root mean square), bf16 by less; a gated MLP rounds
    // twice and multiplies two such results. The largest of 128 such products is half as large
    // again as that of 32, and with it the steps of their codes.
    static double tolerance() {
        switch (std::get<1>(GetParam())) {
            case Activations::Exact:
                return 3e-6;
            case Activations::Int8Group128:
                return 0.018;
            default:
                return 0.012;
        }
    }

    static ov::TensorVector inputs(const Graph& graph, const ov::Shape& leading) {
        ov::TensorVector inputs;
        unsigned seed = 20;
        for (const auto& parameter : graph.parameters) {
            ov::Shape shape = leading;
            const bool residual = parameter != graph.parameters[0];
            shape.push_back(
                static_cast<size_t>((residual ? graph.op->get_output_partial_shape(0)
                                              : parameter->get_partial_shape())[leading.size()]
                                        .get_length()));
            inputs.push_back(tensor(shape, seed++));
        }
        return inputs;
    }

    static void expect_equal(const ov::TensorVector& got, const ov::TensorVector& expected,
                             double tolerance) {
        ASSERT_EQ(got.size(), expected.size());
        for (size_t i = 0; i < got.size(); ++i) {
            ASSERT_EQ(got[i].get_shape(), expected[i].get_shape()) << "output " << i;
            EXPECT_LE(relative_error(got[i].data<const float>(), expected[i].data<const float>(),
                                     got[i].get_size()),
                      tolerance)
                << "output " << i << " of shape " << got[i].get_shape();
        }
    }
};

TEST_P(PackedOps, AgreeWithStandardOperations) {
    const Graph fused = graph();
    const auto model = fused.model();
    const auto standard = model->clone();
    ASSERT_EQ(unfuse(standard), 1);
    ASSERT_EQ(unfuse(standard), 0);
    EXPECT_EQ(standard->get_results()[0]->get_input_node_ptr(0)->get_friendly_name(),
              fused.op->get_friendly_name());
    // Shapes follow each other on one model; 300 rows are two pieces of a gated MLP.
    for (const ov::Shape& leading : {ov::Shape{1, 1}, {1, 300}, {2, 3}, {1, 40}, {5, 1}, {17, 1}}) {
        const auto values = inputs(fused, leading);
        expect_equal(infer(model, values), infer(standard, values), tolerance());
    }
}

TEST_P(PackedOps, AgreeWithStandardOperationsOnEveryInstructionSet) {
    const Graph fused = graph();
    const auto standard = fused.model()->clone();
    unfuse(standard);
    for (const Isa isa : ovfast::kernels::supported_isas()) {
        SCOPED_TRACE(ovfast::kernels::name(isa));
        ovfast::kernels::force_isa(isa);
        const auto before = ovfast::kernel_calls();
        for (const size_t rows : {1, 7, 64}) {
            const auto values = inputs(fused, {1, rows});
            expect_equal(infer(fused.model(), values), infer(standard, values), tolerance());
        }
        const auto after = ovfast::kernel_calls();
        EXPECT_NE(before, after);
        for (size_t i = 0; isa == Isa::Scalar && i < before.size(); ++i) {
            if (before[i] != after[i]) {
                EXPECT_EQ(before[i].first.rfind("scalar", 0), 0);
            }
        }
    }
    ovfast::kernels::force_isa({});
}

TEST_P(PackedOps, TakeNoRows) {
    const Graph fused = graph();
    for (const ov::Shape& leading : {ov::Shape{1, 0}, {0, 4}}) {
        const auto outputs = infer(fused.model(), inputs(fused, leading));
        ov::Shape expected = leading;
        expected.push_back(
            static_cast<size_t>(fused.op->get_output_partial_shape(0)[2].get_length()));
        EXPECT_EQ(outputs[0].get_shape(), expected);
    }
}

TEST_P(PackedOps, KeepOneRowsNaNToThatRow) {
    const Graph fused = graph();
    auto values = inputs(fused, {1, 3});
    const auto clean = infer(fused.model(), values);
    const size_t columns = values[0].get_shape()[2];
    values[0].data<float>()[columns + 3] = std::numeric_limits<float>::quiet_NaN();
    const auto got = infer(fused.model(), values);
    for (size_t i = 0; i < got.size(); ++i) {
        const size_t width = got[i].get_shape()[2];
        const float* value = got[i].data<const float>();
        for (size_t at = 0; at < 3 * width; ++at) {
            if (at / width == 1) {
                EXPECT_TRUE(std::isnan(value[at])) << "output " << i << " at " << at;
            } else {
                EXPECT_EQ(value[at], clean[i].data<const float>()[at]);
            }
        }
    }
}

TEST_P(PackedOps, SurviveAFile) {
    const Graph fused = graph();
    const auto values = inputs(fused, {1, 2});
    std::stringstream xml, bin;
    ov::pass::Serialize(xml, bin).run_on_model(fused.model());
    const std::string weights = bin.str();
    ov::Tensor tensor(ov::element::u8, {weights.size()});
    std::memcpy(tensor.data(), weights.data(), weights.size());
    ov::Core core;
    ovfast::register_ops(core);
    const auto read = core.read_model(xml.str(), tensor);
    const auto expected = infer(fused.model(), values);
    const auto got = infer(read, values);
    expect_equal(got, expected, 0.0);
    const auto* op = dynamic_cast<const PackedOp*>(read->get_results()[0]->get_input_node_ptr(0));
    ASSERT_NE(op, nullptr);
    EXPECT_EQ(op->mode().precision, std::get<1>(GetParam()));
}

TEST_P(PackedOps, RefuseDamagedWeights) {
    for (size_t damaged = 0; damaged < graph().op->get_input_size(); ++damaged) {
        const Graph fused = graph();
        const auto* constant =
            dynamic_cast<const ov::op::v0::Constant*>(fused.op->get_input_node_ptr(damaged));
        if (!constant || constant->get_element_type() != ov::element::u8) continue;
        auto bytes = constant->cast_vector<uint8_t>();
        bytes[bytes.size() / 2] ^= 16;
        fused.op->set_argument(damaged, u8_constant(bytes));
        fused.op->set_friendly_name("layer 7");
        try {
            infer(fused.model(), inputs(fused, {1, 1}));
            FAIL() << "input " << damaged;
        } catch (const ov::Exception& error) {
            EXPECT_THAT(error.what(), HasSubstr("layer 7"));
            EXPECT_THAT(error.what(), HasSubstr("input " + std::to_string(damaged)));
        }
        EXPECT_THROW(fused.op->verify_weights(), ov::Exception);
        EXPECT_THROW(unfuse(fused.model()), ov::Exception);
    }
    EXPECT_NO_THROW(graph().op->verify_weights());
}

INSTANTIATE_TEST_SUITE_P(All, PackedOps,
                         testing::Combine(testing::ValuesIn(kCases),
                                          testing::Values(Activations::Int8, Activations::Exact,
                                                          Activations::Int8Group128)),
                         [](const auto& tested) {
                             return std::string(std::get<0>(tested.param).name) + "_" +
                                    to_string(std::get<1>(tested.param));
                         });

TEST(PackedOpsTest, ReadWeightsWhereverTheyLie) {
    const Graph fused = fully_connected(false, true, false);
    const auto values = tensor({1, 2, kColumns}, 5);
    const auto expected = infer(fused.model(), {values});
    const auto bytes = packed_bytes(random_weights(52, kColumns, 1));
    for (const size_t shift : {1, 4, 31, 63}) {
        // Moved within the constant, as a file aligns it, and with the constant itself misaligned.
        const auto memory = std::make_shared<std::vector<uint8_t>>(bytes.size() + 192);
        auto* begin = memory->data() + 64 - reinterpret_cast<uintptr_t>(memory->data()) % 64;
        auto* constant = begin + 64 - shift;
        std::copy(bytes.begin(), bytes.end(), begin + 64);
        fused.op->set_argument(
            1, std::make_shared<ov::op::v0::Constant>(ov::element::u8, ov::Shape{bytes.size() + 63},
                                                      constant, std::shared_ptr<void>(memory)));
        const auto got = infer(fused.model(), {values});
        EXPECT_EQ(std::memcmp(got[0].data(), expected[0].data(), got[0].get_byte_size()), 0)
            << "moved by " << shift;
        std::copy(bytes.begin(), bytes.end(), constant);
        const auto again = infer(fused.model(), {values});
        EXPECT_EQ(std::memcmp(again[0].data(), expected[0].data(), again[0].get_byte_size()), 0)
            << "misaligned by " << shift;
    }
}

TEST(PackedOpsTest, VerifyOnceForAllClones) {
    const Graph fused = fully_connected(false, false, false);
    auto bytes = packed_bytes(random_weights(52, kColumns, 1));
    // As a plugin calls it: with the memory of the constant. Model::evaluate() copies constants.
    const auto run = [&](const ov::Node& op) {
        ov::TensorVector outputs{ov::Tensor(ov::element::f32, {0})};
        op.evaluate(outputs, {tensor({1, 1, kColumns}, 5),
                              ov::Tensor(ov::element::u8, {bytes.size()}, bytes.data())});
    };
    run(*fused.op);
    bytes.back() ^= 1;  // nobody looks again
    EXPECT_NO_THROW(run(*fused.op->clone_with_new_inputs(fused.op->input_values())));
    bytes.back() ^= 1;
    // Another matrix that came to lie at the same place is looked at.
    bytes[offsetof(ovfast::kernels::PackedHeader, checksum)] ^= 1;
    EXPECT_THROW(run(*fused.op), ov::Exception);
}

TEST(PackedOpsTest, RunInManyThreadsAtOnce) {
    const Graph fused = gated_mlp(Gate::Silu, true, false);
    const auto model = fused.model();
    const auto one = tensor({1, 1, kColumns}, 5);
    const auto many = tensor({1, 70, kColumns}, 6);
    const auto expected_one = infer(fused.model(), {one});
    const auto expected_many = infer(fused.model(), {many});
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&, i] {
            const auto mine = model->clone();
            for (int round = 0; round < 10; ++round) {
                const bool few = (round + i) % 2 == 0;
                const auto got = infer(mine, {few ? one : many});
                const auto& expected = few ? expected_one : expected_many;
                if (std::memcmp(got[0].data(), expected[0].data(), got[0].get_byte_size()) != 0) {
                    ++wrong;
                }
            }
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
}

template <typename Id>
void expect_rows(ov::element::Type type, const std::vector<Id>& ids) {
    const Graph fused = embedding(type);
    ov::Tensor input(type, {2, ids.size() / 2});
    std::copy(ids.begin(), ids.end(), input.data<Id>());
    const auto bytes = packed_bytes(random_weights(30, kColumns, 1));
    const auto table =
        ovfast::kernels::unpack(ovfast::kernels::PackedWeights::view(bytes.data(), bytes.size()));
    const auto got = infer(fused.model(), {input});
    ASSERT_EQ(got[0].get_shape(), (ov::Shape{2, ids.size() / 2, kColumns}));
    for (size_t i = 0; i < ids.size(); ++i) {
        EXPECT_EQ(std::memcmp(got[0].data<float>() + i * kColumns,
                              table.data() + static_cast<size_t>(ids[i]) * kColumns,
                              kColumns * sizeof(float)),
                  0)
            << "id " << ids[i];
    }
    const auto standard = fused.model()->clone();
    ASSERT_EQ(unfuse(standard), 1);
    const auto expected = infer(standard, {input});
    EXPECT_EQ(std::memcmp(got[0].data(), expected[0].data(), got[0].get_byte_size()), 0);
}

TEST(Embedding, GivesRowsOfTheTable) {
    expect_rows<int64_t>(ov::element::i64, {0, 29, 7, 7});
    expect_rows<int32_t>(ov::element::i32, {16, 15});
    expect_rows<int64_t>(ov::element::i64, {});
    std::vector<int32_t> prompt(100);
    for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>(i * 7 % 30);
    expect_rows<int32_t>(ov::element::i32, prompt);
}

TEST(Embedding, RefusesIdsOutsideOfTheTable) {
    for (const int64_t id : {int64_t{30}, int64_t{-1}, std::numeric_limits<int64_t>::min()}) {
        ov::Tensor input(ov::element::i64, {1, 2});
        input.data<int64_t>()[0] = 3;
        input.data<int64_t>()[1] = id;
        try {
            infer(embedding(ov::element::i64).model(), {input});
            FAIL() << id;
        } catch (const ov::Exception& error) {
            EXPECT_THAT(error.what(), HasSubstr("id " + std::to_string(id) + " at position 1"));
            EXPECT_THAT(error.what(), HasSubstr("30 rows"));
        }
    }
}

struct Refusal {
    const char* message;
    std::function<void()> build;
};

TEST(PackedOpsTest, RefuseInputsThatDoNotFit) {
    const auto x = parameter(kColumns);
    const auto packed = packed_constant(52, kColumns, 1);
    const auto fc = [](const ov::OutputVector& inputs, int64_t rows, int64_t columns,
                       bool bias = false, bool residual = false, float epsilon = 0.0F) {
        FullyConnected::Attributes a;
        a.rows = rows;
        a.columns = columns;
        a.bias = bias;
        a.residual = residual;
        a.epsilon = epsilon;
        return std::make_shared<FullyConnected>(inputs, a);
    };
    const auto f16 =
        std::make_shared<ov::op::v0::Parameter>(ov::element::f16, ov::PartialShape{1, kColumns});
    const std::vector<Refusal> refusals = {
        {"call for 2 inputs, got 1", [&] { fc({x}, 52, kColumns); }},
        {"call for 3 inputs, got 2", [&] { fc({x, packed}, 52, kColumns, true); }},
        {"rows must be positive, got 0", [&] { fc({x, packed}, 0, kColumns); }},
        {"columns must be positive, got -5", [&] { fc({x, packed}, 52, -5); }},
        {"epsilon must be a number of at least 0, got nan",
         [&] { fc({x, packed}, 52, kColumns, false, false, std::nanf("")); }},
        {"input 0 must be f32, got f16", [&] { fc({f16, packed}, 52, kColumns); }},
        {"last dimension of input 0 must be 100", [&] { fc({x, packed}, 52, 100); }},
        {"must be [50, 96], the packed ones are [52, 96]", [&] { fc({x, packed}, 50, kColumns); }},
        {"must be packed bytes, u8 with one dimension, got f32",
         [&] { fc({x, vector(10, 1)}, 52, kColumns); }},
        {"are no packed weights",
         [&] { fc({x, u8_constant(std::vector<uint8_t>(500, 7))}, 52, kColumns); }},
        {"bias (input 2) must be f32 [52], got f32 [51]",
         [&] { fc({x, packed, vector(51, 1)}, 52, kColumns, true); }},
        {"residual (input 2) must be f32 of the output's shape",
         [&] { fc({x, packed, parameter(51)}, 52, kColumns, false, true); }},
        {"biases must be 0 to 7, got 8", [&] { qkv(false, 8); }},
        {"ids (input 0) must be i32 or i64, got u8", [&] { embedding(ov::element::u8); }},
    };
    for (const auto& refusal : refusals) {
        try {
            refusal.build();
            ADD_FAILURE() << "expected: " << refusal.message;
        } catch (const ov::Exception& error) {
            EXPECT_THAT(error.what(), HasSubstr(refusal.message));
        }
    }
}

TEST(PackedOpsTest, RefuseValuesThatDoNotFit) {
    // What shapes of rank and size unknown leave to the moment of use.
    const Graph fused = fully_connected(false, false, true);
    const auto x = tensor({1, 2, kColumns}, 1);
    try {
        infer(fused.model(), {x, tensor({1, 3, 52}, 1)});
        FAIL();
    } catch (const ov::Exception& error) {
        EXPECT_THAT(error.what(), HasSubstr("must hold 104 f32 values"));
    }
    const auto any = parameter(0, false);
    FullyConnected::Attributes a;
    a.rows = 52;
    a.columns = kColumns;
    const auto op = std::make_shared<FullyConnected>(
        ov::OutputVector{any, packed_constant(52, kColumns, 1)}, a);
    EXPECT_TRUE(op->get_output_partial_shape(0).rank().is_dynamic());
    ov::TensorVector outputs{ov::Tensor(ov::element::f32, {0})};
    const ov::TensorVector wrong{tensor({2, 95}, 1), ov::Tensor(ov::element::u8, {8})};
    EXPECT_THROW(op->evaluate(outputs, wrong), ov::Exception);
    const ov::TensorVector no_weights{tensor({2, kColumns}, 1), ov::Tensor(ov::element::u8, {8})};
    EXPECT_THROW(op->evaluate(outputs, no_weights), ov::Exception);
}

TEST(PackedOpsTest, RefuseUnknownWordsInAFile) {
    std::stringstream xml, bin;
    ov::pass::Serialize(xml, bin).run_on_model(gated_mlp(Gate::Silu, false, false).model());
    const std::string weights = bin.str();
    ov::Tensor tensor(ov::element::u8, {weights.size()});
    std::memcpy(tensor.data(), weights.data(), weights.size());
    ov::Core core;
    ovfast::register_ops(core);
    for (const std::string word : {"silu", "int8"}) {
        std::string text = xml.str();
        text.replace(text.find('"' + word + '"') + 1, word.size(), "none");
        try {
            core.read_model(text, tensor);
            FAIL() << word;
        } catch (const ov::Exception& error) {
            EXPECT_THAT(error.what(), HasSubstr("got \"none\""));
        }
    }
}

}  // namespace
