#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "ops/rewrite.hpp"
#include "rewrite_graphs.hpp"

namespace {

using namespace rewrite_graphs;
using testing::ElementsAre;
using testing::IsEmpty;

// ---- bias, rows taken apart -------------------------------------------------------------------

TEST(Rewrite, FoldsABias) {
    for (const ov::Shape& shape : {ov::Shape{24}, ov::Shape{1, 24}, ov::Shape{1, 1, 24}}) {
        const auto x = activations({-1, -1, 64});
        const auto graph = model({make<op::Add>(floats(shape), linear(x, int4(24, 64)))}, {x});
        rewrite_and_compare(graph);
        EXPECT_THAT(operations(graph), ElementsAre("FullyConnected"));
        EXPECT_EQ(count(graph, "Add"), 0U);
    }
}

TEST(Rewrite, KeepsAdditionsThatAreNoBias) {
    const auto keeps = [](const ov::Shape& shape, int64_t rows = 3) {
        const auto x = activations({-1, rows, 64});
        const auto graph = model({make<op::Add>(linear(x, int4(24, 64)), floats(shape))}, {x});
        rewrite_and_compare(graph);
        EXPECT_EQ(count(graph, "Add"), 1U);
        EXPECT_THAT(operations(graph), ElementsAre("FullyConnected"));
    };
    keeps({3, 1});
    keeps({24, 1}, 24);
    keeps({3, 24});
    keeps({1});
    keeps({1, 1, 1, 24});  // adds a dimension
}

TEST(Rewrite, KeepsABiasWhoseProductIsReadToo) {
    const auto x = activations({-1, 64});
    const Value product = linear(x, int4(24, 64));
    const auto graph = model({make<op::Add>(product, floats({24})), make<op::Relu>(product)}, {x});
    rewrite_and_compare(graph);
    EXPECT_EQ(count(graph, "Add"), 1U);
}

using Split = std::function<ov::OutputVector(const Value&)>;

ov::OutputVector slices(const Value& value, const std::vector<int64_t>& bounds) {
    ov::OutputVector parts;
    for (size_t i = 0; i + 1 < bounds.size(); ++i)
        parts.push_back(make<op::Slice>(value, integers({bounds[i]}), integers({bounds[i + 1]}),
                                        integers({1}), integers({2})));
    return parts;
}

TEST(Rewrite, PacksRowsApartThatTheGraphTakesApart) {
    const std::vector<Split> splits = {
        [](const Value& value) {
            return std::make_shared<op::VariadicSplit>(value, integers({-1}), integers({20, 7, -1}))
                ->outputs();
        },
        [](const Value& value) {
            return std::make_shared<op::Split>(value,
                                               op::Constant::create(ov::element::i64, {}, {2}), 3)
                ->outputs();
        },
        [](const Value& value) { return slices(value, {0, 20, -11, INT64_MAX}); },
    };
    for (const Split& split : splits) {
        const auto x = activations({-1, -1, 64});
        const Value biased = make<op::Add>(linear(x, int4(48, 64)), floats({48}));
        ov::OutputVector outputs;
        for (const Value& part : split(biased)) outputs.push_back(make<op::Tanh>(part));
        const auto graph = model(outputs, {x});
        rewrite_and_compare(graph);
        EXPECT_THAT(operations(graph), ElementsAre("QKV"));
    }
}

TEST(Rewrite, KeepsSlicesThatDoNotTileTheRows) {
    const std::vector<Split> splits = {
        [](const Value& value) { return slices(value, {0, 20, 40}); },
        [](const Value& value) {
            return ov::OutputVector{slices(value, {0, 24})[0], slices(value, {12, 36})[0]};
        },
        [](const Value& value) {
            ov::OutputVector parts = slices(value, {0, 30, 48});
            parts.push_back(slices(value, {0, 30}).front());
            return parts;
        },
        [](const Value& value) {
            return std::make_shared<op::Split>(value,
                                               op::Constant::create(ov::element::i64, {}, {1}), 3)
                ->outputs();
        },
    };
    for (const Split& split : splits) {
        const auto x = activations({-1, 3, 64});
        ov::OutputVector outputs;
        for (const Value& part : split(linear(x, int4(48, 64))))
            outputs.push_back(make<op::Tanh>(part));
        const auto graph = model(outputs, {x});
        rewrite_and_compare(graph);
        EXPECT_THAT(operations(graph), ElementsAre("FullyConnected"));
    }
}

// ---- QKV --------------------------------------------------------------------------------------

TEST(Rewrite, JoinsThreeLayersOfOneInput) {
    const auto x = activations({-1, -1, 64});
    const Value v = make<op::Add>(linear(x, int4(16, 64), "v"), floats({16}));
    const Value k = linear(x, int4(16, 64), "k");
    const Value q = make<op::Add>(linear(x, int4(48, 64), "q"), floats({48}));
    const auto graph = model({v, k, q}, {x});
    const auto layers = rewrite_and_compare(graph);
    ASSERT_THAT(operations(graph), ElementsAre("QKV"));
    ASSERT_EQ(layers.size(), 1U);
    EXPECT_EQ(layers[0].name, "q");
    EXPECT_EQ(layers[0].format, "u4 g32 f16 symmetric, u4 g32 f16 symmetric, u4 g32 f16 symmetric");
    EXPECT_EQ(layers[0].source_bytes, 80U * (32 + 4));
    EXPECT_GE(layers[0].packed_bytes, layers[0].source_bytes);
}

TEST(Rewrite, JoinsOnlyThree) {
    for (const size_t layers : {2, 4}) {
        const auto x = activations({-1, 64});
        ov::OutputVector outputs;
        for (size_t i = 0; i < layers; ++i) outputs.push_back(linear(x, int4(16, 64)));
        const auto graph = model(outputs, {x});
        rewrite_and_compare(graph);
        EXPECT_THAT(operations(graph),
                    testing::ElementsAreArray(std::vector<std::string>(layers, "FullyConnected")));
    }
}

// ---- gated MLPs -------------------------------------------------------------------------------

using Activation = std::function<Value(const Value&)>;

Value silu(const Value& value) {
    return make<op::Swish>(value);
}

Value gated_mlp(const Value& x, const Activation& activation) {
    const Value gate = activation(linear(x, int4(96, 64), "gate"));
    return linear(make<op::Multiply>(gate, linear(x, int4(96, 64), "up")), int4(64, 96), "down");
}

TEST(Rewrite, JoinsGatedMlps) {
    const std::vector<std::pair<ovfast::ops::Gate, Activation>> activations_of = {
        {ovfast::ops::Gate::Silu, silu},
        {ovfast::ops::Gate::Silu,
         [](const Value& value) {
             return make<op::Swish>(value, constant(ov::element::f32, {}, {1.0F}));
         }},
        {ovfast::ops::Gate::Silu,
         [](const Value& value) { return make<op::Multiply>(value, make<op::Sigmoid>(value)); }},
        {ovfast::ops::Gate::Silu,
         [](const Value& value) { return make<op::Multiply>(make<op::Sigmoid>(value), value); }},
        {ovfast::ops::Gate::GeluTanh,
         [](const Value& value) {
             return make<op::Gelu>(value, ov::op::GeluApproximationMode::TANH);
         }},
        {ovfast::ops::Gate::GeluErf,
         [](const Value& value) {
             return make<op::Gelu>(value, ov::op::GeluApproximationMode::ERF);
         }},
    };
    for (const auto& [gate, activation] : activations_of) {
        const auto x = activations({-1, -1, 64});
        const auto graph = model({gated_mlp(x, activation)}, {x});
        const auto layers = rewrite_and_compare(graph);
        ASSERT_THAT(operations(graph), ElementsAre("GatedMLP"));
        EXPECT_EQ(layers[0].name, "down");
        for (const auto& node : graph->get_ops()) {
            if (const auto mlp = ov::as_type_ptr<ovfast::ops::GatedMLP>(node)) {
                EXPECT_EQ(mlp->attributes().gate, gate);
            }
        }
    }
}

TEST(Rewrite, JoinsMlpsWithMergedGateAndUp) {
    for (const bool gate_first : {true, false}) {
        const auto x = activations({-1, -1, 64});
        const auto parts = slices(linear(x, int4(192, 64)), {0, 96, 192});
        const Value gate = silu(parts[gate_first ? 0 : 1]);
        const auto graph =
            model({linear(make<op::Multiply>(parts[gate_first ? 1 : 0], gate), int4(64, 96))}, {x});
        rewrite_and_compare(graph);
        EXPECT_THAT(operations(graph), ElementsAre("GatedMLP"));
    }
}

TEST(Rewrite, KeepsMlpsThatAreMoreThanThat) {
    using Build = std::function<ov::OutputVector(const Value&)>;
    const auto read = [](const Value& value) { return make<op::Tanh>(value); };
    const std::vector<Build> builds = {
        [&](const Value& x) {  // the gate is read elsewhere
            const Value gate = linear(x, int4(96, 64));
            return ov::OutputVector{
                linear(make<op::Multiply>(silu(gate), linear(x, int4(96, 64))), int4(64, 96)),
                read(gate)};
        },
        [&](const Value& x) {  // the activation is
            const Value gate = silu(linear(x, int4(96, 64)));
            return ov::OutputVector{
                linear(make<op::Multiply>(gate, linear(x, int4(96, 64))), int4(64, 96)),
                read(gate)};
        },
        [&](const Value& x) {  // the product is
            const Value product =
                make<op::Multiply>(silu(linear(x, int4(96, 64))), linear(x, int4(96, 64)));
            return ov::OutputVector{linear(product, int4(64, 96)), read(product)};
        },
        [&](const Value& x) {  // a bias
            const Value gate = silu(make<op::Add>(linear(x, int4(96, 64)), floats({96})));
            return ov::OutputVector{
                linear(make<op::Multiply>(gate, linear(x, int4(96, 64))), int4(64, 96))};
        },
        [&](const Value& x) {  // two inputs
            const Value gate = silu(linear(read(x), int4(96, 64)));
            return ov::OutputVector{
                linear(make<op::Multiply>(gate, linear(x, int4(96, 64))), int4(64, 96))};
        },
        [&](const Value& x) {  // another activation
            const Value gate =
                make<op::Swish>(linear(x, int4(96, 64)), constant(ov::element::f32, {}, {1.7F}));
            return ov::OutputVector{
                linear(make<op::Multiply>(gate, linear(x, int4(96, 64))), int4(64, 96))};
        },
    };
    for (const Build& build : builds) {
        const auto x = activations({-1, 64});
        const auto graph = model(build(x), {x});
        rewrite_and_compare(graph);
        EXPECT_THAT(operations(graph),
                    ElementsAre("FullyConnected", "FullyConnected", "FullyConnected"));
    }
}

// ---- norms ------------------------------------------------------------------------------------

Value scalar(float value) {
    return constant(ov::element::f32, {}, {value});
}

Value power(const Value& value, float exponent) {
    return make<op::Power>(value, scalar(exponent));
}

Value mean_plus_epsilon(const Value& squares, int64_t axis = -1) {
    const Value mean = make<op::ReduceMean>(squares, integers({axis}), true);
    return make<op::Add>(mean, scalar(0.1F));
}

Value variance(const Value& x) {
    return mean_plus_epsilon(power(x, 2.0F));
}

/// x / sqrt(mean(x^2) + epsilon)
Value normalized(const Value& x) {
    return make<op::Multiply>(x, power(make<op::Sqrt>(variance(x)), -1.0F));
}

Value rms_norm(const Value& x) {
    return make<op::Multiply>(normalized(x), floats({64}));
}

size_t norms(const std::shared_ptr<ov::Model>& graph) {
    size_t found = 0;
    for (const auto& node : graph->get_ops()) {
        if (const auto full = ov::as_type_ptr<ovfast::ops::FullyConnected>(node))
            found += full->attributes().norm;
        if (const auto qkv = ov::as_type_ptr<ovfast::ops::QKV>(node))
            found += qkv->attributes().norm;
        if (const auto mlp = ov::as_type_ptr<ovfast::ops::GatedMLP>(node))
            found += mlp->attributes().norm;
    }
    return found;
}

TEST(Rewrite, FoldsNormsInAllTheirSpellings) {
    const std::vector<std::function<Value(const Value&)>> spellings = {
        rms_norm,
        normalized,  // gamma = 1, lost in an export
        [](const Value& x) {
            const Value root = make<op::Sqrt>(mean_plus_epsilon(make<op::Multiply>(x, x), 2));
            return make<op::Multiply>(floats({1, 1, 64}),
                                      make<op::Multiply>(make<op::Divide>(scalar(1), root), x));
        },
        [](const Value& x) {
            return make<op::Multiply>(make<op::Multiply>(x, power(variance(x), -0.5F)),
                                      folded(f32(f16(floats({64})))));
        },
        [](const Value& x) {
            const Value root = power(variance(x), 0.5F);
            return make<op::Multiply>(make<op::Divide>(x, root), floats({64}));
        },
        [](const Value& x) {  // Gemma stores gamma - 1
            const Value gamma = make<op::Add>(folded(f32(f16(floats({64})))), scalar(1));
            return make<op::Multiply>(normalized(x), gamma);
        },
        [](const Value& x) { return make<op::Multiply>(normalized(x), scalar(0.5F)); },
    };
    for (const auto& spelling : spellings) {
        const auto x = activations({-1, -1, 64});
        const auto graph = model({linear(spelling(x), int4(24, 64))}, {x});
        rewrite_and_compare(graph);
        EXPECT_THAT(operations(graph), ElementsAre("FullyConnected"));
        EXPECT_EQ(norms(graph), 1U);
        EXPECT_EQ(count(graph, "ReduceMean"), 0U);
    }
}

TEST(Rewrite, FoldsNormsIntoEveryLayerThatReadsThem) {
    const auto x = activations({-1, -1, 64});
    const Value attention = rms_norm(x);
    const Value mlp = rms_norm(x);
    const Value both = rms_norm(x);
    const auto graph = model({linear(attention, int4(48, 64)),
                              make<op::Add>(linear(attention, int4(16, 64)), floats({16})),
                              linear(attention, int4(16, 64)), gated_mlp(mlp, silu),
                              linear(both, int4(16, 64)), linear(both, int4(16, 64))},
                             {x});
    rewrite_and_compare(graph);
    EXPECT_THAT(operations(graph), testing::UnorderedElementsAre(
                                       "QKV", "GatedMLP", "FullyConnected", "FullyConnected"));
    EXPECT_EQ(norms(graph), 4U);
    EXPECT_EQ(count(graph, "ReduceMean"), 0U);
}

TEST(Rewrite, AsksForTheShapeBeforeANorm) {
    const auto x = activations({-1, -1, 64});
    const Value norm = rms_norm(x);
    const auto graph = model({linear(norm, int4(24, 64)), f32(make<op::ShapeOf>(norm))}, {x});
    rewrite_and_compare(graph);
    EXPECT_EQ(norms(graph), 1U);
    EXPECT_EQ(count(graph, "ReduceMean"), 0U);
}

TEST(Rewrite, KeepsNormsThatAreReadElsewhereOrAreNone) {
    const auto keeps = [](const std::function<ov::OutputVector(const Value&)>& build) {
        const auto x = activations({-1, 64, 64});
        const auto graph = model(build(x), {x});
        rewrite_and_compare(graph);
        EXPECT_EQ(norms(graph), 0U);
    };
    const auto layer = [](const Value& x) { return linear(x, int4(64, 64)); };
    keeps([&](const Value& x) {
        const Value norm = rms_norm(x);
        return ov::OutputVector{layer(norm), make<op::Tanh>(norm)};
    });
    keeps([&](const Value& x) {  // the norm is the residual
        const Value norm = rms_norm(x);
        return ov::OutputVector{make<op::Add>(layer(norm), norm)};
    });
    keeps([&](const Value& x) {  // four readers
        const Value norm = rms_norm(x);
        return ov::OutputVector{layer(norm), layer(norm), layer(norm), layer(norm)};
    });
    keeps([&](const Value& x) {  // the other axis
        const Value root = make<op::Sqrt>(mean_plus_epsilon(power(x, 2.0F), 1));
        return ov::OutputVector{layer(make<op::Divide>(x, root))};
    });
    keeps([&](const Value& x) {  // the mean of another value
        const Value root = make<op::Sqrt>(variance(make<op::Tanh>(x)));
        return ov::OutputVector{layer(make<op::Divide>(x, root))};
    });
    keeps([&](const Value& x) {  // gamma by rows
        return ov::OutputVector{layer(make<op::Multiply>(normalized(x), floats({64, 1})))};
    });
    keeps([&](const Value& x) {  // gamma adds a dimension
        return ov::OutputVector{layer(make<op::Multiply>(normalized(x), floats({1, 1, 1, 64})))};
    });
    keeps([&](const Value& x) {  // cubes
        return ov::OutputVector{layer(
            make<op::Divide>(x, make<op::Sqrt>(mean_plus_epsilon(power(make<op::Abs>(x), 3.0F)))))};
    });
}

// ---- residuals --------------------------------------------------------------------------------

TEST(Rewrite, FoldsResiduals) {
    const auto x = activations({-1, -1, 64});
    const Value first =
        make<op::Add>(x, make<op::Add>(linear(make<op::Tanh>(x), int4(64, 64)), floats({64})));
    const Value second = make<op::Add>(gated_mlp(rms_norm(first), silu), first);
    const auto graph = model({second}, {x});
    rewrite_and_compare(graph);
    EXPECT_THAT(operations(graph), ElementsAre("FullyConnected", "GatedMLP"));
    EXPECT_EQ(norms(graph), 1U);
    EXPECT_EQ(count(graph, "Add"), 0U);
}

TEST(Rewrite, FoldsOneOfTwoLayersIntoTheOther) {
    const auto x = activations({-1, 64});
    const auto graph =
        model({make<op::Add>(linear(x, int4(24, 64)), linear(x, int4(24, 64)))}, {x});
    rewrite_and_compare(graph);
    EXPECT_EQ(count(graph, "Add"), 0U);
    EXPECT_THAT(operations(graph), ElementsAre("FullyConnected", "FullyConnected"));
}

TEST(Rewrite, KeepsAdditionsThatAreNoResidual) {
    const auto keeps = [](const ov::PartialShape& shape, bool also_read) {
        const auto x = activations({-1, 3, 64});
        const auto y = activations(shape);
        const Value product = linear(x, int4(24, 64));
        ov::OutputVector outputs{make<op::Add>(product, y)};
        if (also_read) outputs.push_back(make<op::Tanh>(product));
        const auto graph = model(outputs, {x, y});
        rewrite_and_compare(graph);
        EXPECT_EQ(count(graph, "Add"), 1U);
    };
    keeps({-1, 3, 24}, true);
    keeps({1, 3, 24}, false);   // may broadcast
    keeps({-1, 1, 24}, false);  // broadcasts
    keeps({-1, 3, 1}, false);
    keeps({3, 24}, false);
}

TEST(Rewrite, FindsNothingToDoTheSecondTime) {
    const auto x = activations({-1, -1, 64});
    const Value sum = make<op::Add>(gated_mlp(rms_norm(x), silu), x);
    const auto graph = model({linear(rms_norm(sum), int4(24, 64))}, {x});
    const auto first = ovfast::ops::rewrite_to_packed(graph);
    const auto nodes = graph->get_ordered_ops();
    const auto second = ovfast::ops::rewrite_to_packed(graph);
    EXPECT_EQ(graph->get_ordered_ops(), nodes);
    ASSERT_EQ(second.size(), first.size());
    for (size_t i = 0; i < first.size(); ++i) {
        EXPECT_EQ(second[i].name, first[i].name);
        EXPECT_EQ(second[i].operation, first[i].operation);
        EXPECT_EQ(second[i].packed_bytes, first[i].packed_bytes);
    }
}

TEST(Rewrite, KeepsNamesOfOutputs) {
    const auto x = activations({-1, 64});
    const Value logits = make<op::Add>(linear(x, int4(24, 64), "lm_head"), floats({24}));
    logits.get_tensor().set_names({"logits"});
    const auto graph = model({logits}, {x});
    const auto layers = rewrite_and_compare(graph);
    EXPECT_THAT(graph->output(0).get_names(), testing::UnorderedElementsAre("logits"));
    EXPECT_EQ(layers[0].name, "lm_head");
}

}  // namespace
