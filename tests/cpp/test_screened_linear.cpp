#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <openvino/core/model.hpp>
#include <openvino/op/parameter.hpp>
#include <openvino/op/result.hpp>

#include "ops/lm_head.hpp"
#include "ops/screened_linear.hpp"
#include "ops/unfused.hpp"
#include "ops_fixtures.hpp"
#include "random_weights.hpp"

namespace {

using namespace ovfast;
using namespace ovfast::ops;
using namespace ovfast::test;
using kernels::ActivationPrecision;
using kernels::PackedWeights;

struct Head {
    std::vector<uint8_t> whole, high, low;
    std::vector<float> gamma, metric, bounds;

    Head(size_t rows, size_t columns) {
        whole = packed_bytes(kernels::testing::random_weights(
            {8, kernels::ScaleKind::F16, kernels::OffsetKind::Symmetric, kernels::FloatKind::None,
             32},
            rows, columns, 3));
        gamma = random_floats(columns, 4, 0.1F, 3.0F);
        metric = kernels::screening_metric(gamma.data(), columns);
        const auto weights = view(whole);
        high.resize(kernels::packed_bytes(kernels::high_half(weights.format()), rows, columns));
        low.resize(kernels::packed_bytes(kernels::low_half(weights.format()), rows, columns));
        bounds.resize(rows);
        kernels::split(weights, metric.data(), high.data(), low.data(), bounds.data());
    }
    static PackedWeights view(const std::vector<uint8_t>& bytes) {
        return PackedWeights::view(bytes.data(), bytes.size());
    }
};

class Screened : public testing::TestWithParam<ActivationPrecision> {};

TEST_P(Screened, GivesTheLargestExactly) {
    const size_t width = 5003;
    const size_t columns = 256;
    const Head head(width, columns);
    const auto high = Head::view(head.high);
    const auto low = Head::view(head.low);
    for (const size_t rows : {1, 3, 16, 17}) {
        const auto x = random_floats(rows * columns, 11);
        const InputNorm norm{head.gamma.data(), 1e-6F};
        ScreenedJob job;
        job.high = &high;
        job.low = &low;
        job.bounds = head.bounds.data();
        job.metric = head.metric.data();
        std::vector<float> all(rows * width);
        job.out = all.data();
        EXPECT_EQ(run_screened_linear(x.data(), rows, columns, norm, job, GetParam()),
                  rows * width);
        for (const size_t top_k : {1, 5, 50, 6000}) {
            std::vector<float> some(rows * width, 7.0F);
            job.out = some.data();
            job.top_k = top_k;
            const size_t computed =
                run_screened_linear(x.data(), rows, columns, norm, job, GetParam());
            EXPECT_LE(computed, rows * width);
            if (rows <= 3 && top_k == 1) {
                EXPECT_LT(computed, rows * width / 2) << "nothing was saved";
            }
            for (size_t row = 0; row < rows; ++row) {
                const float* expected = all.data() + row * width;
                const float* found = some.data() + row * width;
                std::vector<float> order(expected, expected + width);
                std::sort(order.begin(), order.end(), std::greater<>());
                const float least = order[std::min(top_k, width) - 1];
                for (size_t n = 0; n < width; ++n) {
                    if (found[n] == -std::numeric_limits<float>::infinity()) {
                        ASSERT_LT(expected[n], least) << rows << " rows, top " << top_k;
                    } else {
                        // One row may take another kernel, which adds in another order.
                        ASSERT_NEAR(found[n], expected[n], 1e-4F * std::fabs(least));
                    }
                }
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Precisions, Screened,
                         testing::Values(ActivationPrecision::Int8, ActivationPrecision::Exact));

TEST(LMHead, ReplacesAFullyConnected) {
    const size_t width = 999;
    const size_t columns = 64;
    const Head head(width, columns);
    const auto x =
        std::make_shared<ov::op::v0::Parameter>(ov::element::f32, ov::PartialShape{-1, 1, columns});
    const auto gamma = ov::op::v0::Constant::create(ov::element::f32, {columns}, head.gamma);
    FullyConnected::Attributes attributes;
    attributes.rows = width;
    attributes.columns = columns;
    attributes.norm = true;
    attributes.epsilon = 1e-6F;
    auto layer = std::make_shared<FullyConnected>(
        ov::OutputVector{x, u8_constant(head.whole), gamma}, attributes);
    layer->set_mode(ActivationPrecision::Exact);
    const auto split = split_to_lm_head(*layer);
    ASSERT_NE(split, nullptr);
    const ov::Model before(ov::OutputVector{layer}, ov::ParameterVector{x});
    const auto after = std::make_shared<ov::Model>(ov::OutputVector{split}, ov::ParameterVector{x});

    ov::Tensor input(ov::element::f32, {2, 1, columns});
    const auto values = random_floats(2 * columns, 1);
    std::copy(values.begin(), values.end(), input.data<float>());
    const auto run = [&](const ov::Model& model) {
        ov::TensorVector out{ov::Tensor(ov::element::f32, ov::Shape{0})};
        EXPECT_TRUE(model.evaluate(out, {input}));
        return std::vector<float>(out[0].data<float>(), out[0].data<float>() + out[0].get_size());
    };
    const auto expected = run(before);
    const auto found = run(*after);
    ASSERT_EQ(unfuse(after), 1U);
    const auto standard = run(*after);
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
        // Sums of 64 terms up to 100.
        ASSERT_NEAR(found[i], expected[i], 1e-4);
        ASSERT_NEAR(standard[i], expected[i], 1e-4);
    }
}

}  // namespace
