#include <gtest/gtest.h>

#include <functional>
#include <openvino/core/model.hpp>
#include <openvino/opsets/opset13.hpp>

#include "engine/lm_head.hpp"
#include "kernels/pack.hpp"
#include "ops/packed_ops.hpp"
#include "ovfast/error.hpp"

namespace {

namespace op = ov::opset13;
namespace kernels = ovfast::kernels;

constexpr int64_t kHidden = 8;
constexpr int64_t kVocabulary = 20;

std::shared_ptr<ov::Node> constant(const ov::Shape& shape, float step) {
    std::vector<float> values(ov::shape_size(shape));
    for (size_t i = 0; i < values.size(); ++i) {
        values[i] = step * static_cast<float>(static_cast<int>(i * 7 % 23) - 11);
    }
    return op::Constant::create(ov::element::f32, shape, values);
}

using Build = std::function<ov::Output<ov::Node>(const ov::Output<ov::Node>& hidden)>;

struct Case {
    const char* name;
    bool splits;
    Build build;  // from [1, tokens, hidden] to logits
};

ov::Output<ov::Node> matmul(const ov::Output<ov::Node>& hidden, const ov::Shape& weights) {
    return std::make_shared<op::MatMul>(hidden, constant(weights, 0.03F), false, true);
}

/// An lm_head on packed weights, with f32 activations: its results must not depend on how many rows
/// there are.
ov::Output<ov::Node> packed(const ov::Output<ov::Node>& hidden, bool norm, bool residual) {
    kernels::PlainWeights plain;
    plain.format.bits = 16;
    plain.format.scales = kernels::ScaleKind::None;
    plain.format.offsets = kernels::OffsetKind::None;
    plain.format.floats = kernels::FloatKind::F16;
    plain.rows = kVocabulary;
    plain.columns = kHidden;
    for (size_t i = 0; i < kVocabulary * kHidden; ++i) {
        plain.floats.push_back(
            kernels::to_f16(0.03F * static_cast<float>(static_cast<int>(i * 7 % 23) - 11)));
    }
    std::vector<uint8_t> bytes(kernels::packed_bytes(plain.format, plain.rows, plain.columns) + 64);
    kernels::pack(plain, bytes.data());
    ovfast::ops::FullyConnected::Attributes attributes;
    attributes.rows = kVocabulary;
    attributes.columns = kHidden;
    attributes.norm = norm;
    attributes.epsilon = 1e-6F;
    attributes.residual = residual;
    ov::OutputVector inputs{hidden, op::Constant::create(ov::element::u8, {bytes.size()}, bytes)};
    if (norm) inputs.push_back(constant({kHidden}, 0.2F));
    if (residual) inputs.push_back(matmul(hidden, {20, 8}));
    const auto layer = std::make_shared<ovfast::ops::FullyConnected>(inputs, attributes);
    layer->set_mode(ovfast::ops::Activations::Exact);
    return layer;
}

const std::vector<Case> kCases = {
    {"plain", true, [](const auto& h) { return matmul(h, {20, 8}); }},
    {"bias", true,
     [](const auto& h) {
         return std::make_shared<op::Add>(matmul(h, {20, 8}), constant({20}, 0.1F));
     }},
    {"bias_of_three_dimensions", true,
     [](const auto& h) {
         return std::make_shared<op::Add>(matmul(h, {20, 8}), constant({1, 1, 20}, 0.1F));
     }},
    {"softcap", true,
     [](const auto& h) {
         const auto small =
             std::make_shared<op::Divide>(matmul(h, {20, 8}), constant({1, 1, 1}, -3.0F));
         return std::make_shared<op::Multiply>(std::make_shared<op::Tanh>(small),
                                               constant({}, -3.0F));
     }},
    {"weights_of_three_dimensions", true, [](const auto& h) { return matmul(h, {1, 20, 8}); }},
    {"reshaped", true,
     [](const auto& h) {
         return std::make_shared<op::Unsqueeze>(matmul(h, {20, 8}),
                                                op::Constant::create(ov::element::i64, {1}, {0}));
     }},
    {"packed", true, [](const auto& h) { return packed(h, false, false); }},
    {"packed_with_norm", true, [](const auto& h) { return packed(h, true, false); }},
    {"packed_with_residual", false, [](const auto& h) { return packed(h, false, true); }},
    {"packed_and_softcapped", true,
     [](const auto& h) {
         const auto small =
             std::make_shared<op::Divide>(packed(h, true, false), constant({1, 1, 1}, -3.0F));
         return std::make_shared<op::Tanh>(small);
     }},
    {"unknown_operation", false,
     [](const auto& h) { return std::make_shared<op::Sigmoid>(matmul(h, {20, 8})); }},
};

class SplitLmHead : public testing::TestWithParam<Case> {
protected:
    static std::shared_ptr<ov::Model> model() {
        const auto hidden =
            std::make_shared<op::Parameter>(ov::element::f32, ov::PartialShape{1, -1, kHidden});
        const auto layer = std::make_shared<op::Relu>(hidden);
        return std::make_shared<ov::Model>(ov::OutputVector{GetParam().build(layer)},
                                           ov::ParameterVector{hidden});
    }

    // On the host, node by node: a sanitizer cannot load the CPU plugin.
    static std::vector<float> infer(const std::shared_ptr<ov::Model>& model,
                                    const ov::TensorVector& inputs) {
        ov::TensorVector outputs{ov::Tensor(ov::element::f32, {0})};
        EXPECT_TRUE(model->evaluate(outputs, inputs));
        return {outputs[0].data<float>(), outputs[0].data<float>() + outputs[0].get_size()};
    }
};

TEST_P(SplitLmHead, GivesTheLogitsOfTheChosenTokens) {
    constexpr size_t kTokens = 5;
    ov::Tensor hidden(ov::element::f32, {1, kTokens, kHidden});
    for (size_t i = 0; i < hidden.get_size(); ++i) {
        hidden.data<float>()[i] = static_cast<float>(i % 13) / 3.0F - 1.5F;
    }
    const std::vector<float> all = infer(model(), {hidden});
    ASSERT_EQ(all.size(), kTokens * kVocabulary);

    const auto body = model();
    const auto lm_head = ovfast::split_lm_head(body);
    EXPECT_EQ(lm_head != nullptr, GetParam().splits);
    std::vector<int64_t> rows = {4, 1};
    std::vector<float> chosen =
        infer(body, {hidden, ov::Tensor(ov::element::i64, {rows.size()}, rows.data())});
    if (lm_head) {
        ASSERT_EQ(chosen.size(), rows.size() * kHidden);
        EXPECT_EQ(lm_head->output(0).get_partial_shape(), (ov::PartialShape{-1, kVocabulary}));
        const ov::Shape shape{rows.size(), static_cast<size_t>(kHidden)};
        chosen = infer(lm_head, {ov::Tensor(ov::element::f32, shape, chosen.data())});
    }
    ASSERT_EQ(chosen.size(), rows.size() * kVocabulary);
    for (size_t r = 0; r < rows.size(); ++r) {
        for (size_t v = 0; v < kVocabulary; ++v) {
            EXPECT_NEAR(chosen[r * kVocabulary + v],
                        all[static_cast<size_t>(rows[r]) * kVocabulary + v], 1e-5)
                << "row " << r << ", token " << v;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Heads, SplitLmHead, testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(SplitLmHeadErrors, RefusesWhatHasNoLogits) {
    const auto input =
        std::make_shared<op::Parameter>(ov::element::f32, ov::PartialShape::dynamic());
    const auto dynamic = std::make_shared<ov::Model>(
        ov::OutputVector{std::make_shared<op::Relu>(input)}, ov::ParameterVector{input});
    EXPECT_THROW(ovfast::split_lm_head(dynamic), ovfast::ModelError);
    const auto two = std::make_shared<ov::Model>(
        ov::OutputVector{std::make_shared<op::Relu>(input), std::make_shared<op::Abs>(input)},
        ov::ParameterVector{input});
    EXPECT_THROW(ovfast::split_lm_head(two), ovfast::ModelError);
}

}  // namespace
