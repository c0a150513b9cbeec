#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "ops/decoder_stack.hpp"
#include "ops/kv_store.hpp"
#include "rewrite_graphs.hpp"

namespace {

using namespace rewrite_graphs;
using ovfast::ops::DecoderStack;
using ovfast::ops::KvStore;
using ovfast::ops::PagedAttention;

constexpr size_t kColumns = 64;
constexpr size_t kHeads = 4;
constexpr size_t kKvHeads = 2;
constexpr size_t kSize = 32;
constexpr size_t kBlocks = 2;
constexpr size_t kLayers = 3;

Value scalar(float value) {
    return constant(ov::element::f32, {}, {value});
}

Value gamma(size_t size) {
    return floats({size}, 0.5F, 2.0F);
}

Value rms_norm(const Value& x, const Value& gamma, int64_t axis = -1) {
    const Value squares = make<op::Power>(x, scalar(2.0F));
    const Value mean = make<op::ReduceMean>(squares, integers({axis}), true);
    const Value root = make<op::Sqrt>(make<op::Add>(mean, scalar(1e-3F)));
    return make<op::Multiply>(make<op::Multiply>(x, make<op::Power>(root, scalar(-1.0F))), gamma);
}

/// What distinguishes models, and what is none of them.
struct Form {
    bool head_norms = false, post_norms = false;
    size_t theta = 10'000;
    bool norm_turned_heads = false;  // after the rotation
    bool norm_all_heads = false;     // one norm for all
    bool scale_sum = false;          // attention's result is scaled before x is added
    bool read_middle = false;        // what is between attention and MLP is read elsewhere too
};

class Decoder {
public:
    explicit Decoder(const std::vector<Form>& layers) {
        positions_->get_output_tensor(0).set_names({"position_ids"});
        Value x = x_;
        for (const Form& form : layers) x = layer(x, form);
        outputs_.insert(outputs_.begin(), make<op::Tanh>(x));
        model_ = std::make_shared<ov::Model>(
            outputs_,
            ov::ParameterVector{x_, positions_, past_, begins_, blocks_, block_begins_, store_});
        ovfast::ops::rewrite_to_packed(model_);
        for (const auto& node : model_->get_ops()) {
            if (const auto packed = std::dynamic_pointer_cast<ovfast::ops::PackedOp>(node)) {
                packed->set_mode(ovfast::ops::Activations::Exact);
            }
        }
    }

    const std::shared_ptr<ov::Model>& model() const { return model_; }
    size_t fuse() { return ovfast::ops::fuse_decoder_stack(model_); }

    /// A prompt, then one token: both results.
    std::vector<float> run() const {
        std::vector<ovfast::kernels::KvLayer> layers;
        std::vector<std::vector<uint16_t>> memory;
        for (size_t i = 0; i < attentions_; ++i) {
            for (int part = 0; part < 2; ++part) {
                memory.emplace_back(kBlocks * kKvHeads * kSize * ovfast::kernels::kAttentionBlock);
            }
            layers.push_back({memory.end()[-2].data(), memory.end()[-1].data()});
        }
        const KvStore store(layers, kBlocks);
        std::vector<float> values;
        int32_t past = 0;
        for (const int32_t rows : {7, 1}) {
            const auto ints = [](const std::vector<int32_t>& numbers) {
                ov::Tensor tensor(ov::element::i32, {numbers.size()});
                std::copy(numbers.begin(), numbers.end(), tensor.data<int32_t>());
                return tensor;
            };
            ov::Tensor x(ov::element::f32, {static_cast<size_t>(rows), 1, kColumns});
            std::mt19937 random(3 + past);
            std::normal_distribution<float> normal;
            std::generate_n(x.data<float>(), x.get_size(), [&] { return normal(random); });
            ov::Tensor positions(ov::element::i64, {static_cast<size_t>(rows)});
            for (int32_t i = 0; i < rows; ++i) positions.data<int64_t>()[i] = past + i;
            ov::Tensor number(ov::element::i64, {1});
            number.data<int64_t>()[0] = store.number();
            const auto found = evaluate(model_, {x, positions, ints({past}), ints({0, rows}),
                                                 ints({1}), ints({0, 1}), number});
            values.insert(values.end(), found[0].begin(), found[0].end());
            past += rows;
        }
        return values;
    }

private:
    Value turned(const Value& heads, size_t theta) const {
        std::vector<float> inv_freq(kSize / 2);
        for (size_t i = 0; i < inv_freq.size(); ++i) {
            inv_freq[i] = std::pow(static_cast<float>(theta),
                                   -2.0F * static_cast<float>(i) / static_cast<float>(kSize));
        }
        const auto axis = [](int64_t at) { return integers({at}); };
        const Value places =
            make<op::Unsqueeze>(make<op::Convert>(positions_, ov::element::f32), axis(1));
        const Value angles = make<op::Unsqueeze>(
            make<op::Multiply>(places, constant(ov::element::f32, {1, kSize / 2}, inv_freq)),
            axis(1));
        const auto halves =
            std::make_shared<op::Split>(heads, op::Constant::create(ov::element::i64, {}, {2}), 2);
        const auto times = [](const Value& u, const Value& v) { return make<op::Multiply>(u, v); };
        const Value a = halves->output(0), b = halves->output(1);
        const Value cosines = make<op::Cos>(angles), sines = make<op::Sin>(angles);
        return make<op::Concat>(
            ov::OutputVector{make<op::Subtract>(times(a, cosines), times(b, sines)),
                             make<op::Add>(times(b, cosines), times(a, sines))},
            2);
    }

    Value query_or_key(const Value& x, size_t count, const Form& form) const {
        const auto heads = static_cast<int64_t>(count);
        const auto width = static_cast<int64_t>(count * kSize);
        Value y = linear(x, int4(count * kSize, kColumns));
        if (form.norm_all_heads) y = rms_norm(y, gamma(count * kSize));
        y = reshape(y, {-1, heads, kSize});
        if (form.head_norms) y = rms_norm(y, gamma(kSize));
        y = turned(y, form.theta);
        if (form.norm_turned_heads) y = rms_norm(y, gamma(kSize));
        return reshape(y, {-1, width});
    }

    Value layer(const Value& x, const Form& form) {
        const Value normalized = rms_norm(x, gamma(kColumns));
        const Value q = query_or_key(normalized, kHeads, form);
        const Value k = query_or_key(normalized, kKvHeads, form);
        const Value v = reshape(linear(normalized, int4(kKvHeads * kSize, kColumns)),
                                {-1, static_cast<int64_t>(kKvHeads * kSize)});
        PagedAttention::Attributes attributes;
        attributes.shape = {kHeads, kKvHeads, kSize, kSize, 0.2F, 0};
        attributes.layer = attentions_++;
        const Value attention = make<PagedAttention>(
            ov::OutputVector{q, k, v, past_, begins_, blocks_, block_begins_, store_}, attributes);
        Value y = linear(reshape(attention, {-1, 1, static_cast<int64_t>(kHeads * kSize)}),
                         int4(kColumns, kHeads * kSize));
        if (form.post_norms) y = rms_norm(y, gamma(kColumns));
        if (form.scale_sum) y = make<op::Multiply>(y, scalar(0.5F));
        const Value middle = make<op::Add>(y, x);
        if (form.read_middle) outputs_.push_back(make<op::Tanh>(middle));
        const Value in = rms_norm(middle, gamma(kColumns));
        const Value gate = make<op::Swish>(linear(in, int4(96, kColumns)));
        Value z =
            linear(make<op::Multiply>(gate, linear(in, int4(96, kColumns))), int4(kColumns, 96));
        if (form.post_norms) z = rms_norm(z, gamma(kColumns));
        return make<op::Add>(z, middle);
    }

    template <typename... Dimensions>
    static std::shared_ptr<op::Parameter> input(const ov::element::Type& type,
                                                Dimensions... dimensions) {
        return std::make_shared<op::Parameter>(type, ov::PartialShape{dimensions...});
    }

    std::shared_ptr<op::Parameter> x_ = input(ov::element::f32, -1, 1, int64_t{kColumns}),
                                   positions_ = input(ov::element::i64, -1),
                                   past_ = input(ov::element::i32, -1),
                                   begins_ = input(ov::element::i32, -1),
                                   blocks_ = input(ov::element::i32, -1),
                                   block_begins_ = input(ov::element::i32, -1),
                                   store_ = input(ov::element::i64, 1);
    size_t attentions_ = 0;
    ov::OutputVector outputs_;
    std::shared_ptr<ov::Model> model_;
};

class DecoderStackTest : public testing::Test {
protected:
    void SetUp() override {
        if (!ovfast::kernels::attention_supported()) GTEST_SKIP() << "no AVX-512 with BF16";
    }
};

/// All layers but those behind the first `fused` are one node, and the model gives what it gave.
void fuses(const std::vector<Form>& layers, size_t fused) {
    Decoder decoder(layers);
    const auto expected = decoder.run();
    ASSERT_EQ(decoder.fuse(), fused);
    EXPECT_EQ(count(decoder.model(), "DecoderStack"), fused > 0);
    EXPECT_EQ(count(decoder.model(), "PagedAttention"), layers.size() - fused);
    const auto found = decoder.run();
    ASSERT_EQ(found.size(), expected.size());
    // f32 throughout, but for what attention rounds to bf16: another order of sums in a norm may
    // turn the last bit of a query's or key's channel, 2^-8 of one of 32 terms.
    for (size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 2e-3F) << i;
}

TEST_F(DecoderStackTest, HoldsLayersOfAllForms) {
    for (const bool head_norms : {false, true}) {
        for (const bool post_norms : {false, true}) {
            SCOPED_TRACE(testing::Message() << head_norms << ' ' << post_norms);
            fuses(std::vector<Form>(kLayers, {head_norms, post_norms}), kLayers);
        }
    }
}

// As Gemma's, whose layers with a window turn faster than those without.
TEST_F(DecoderStackTest, HoldsRotationsThatTakeTurns) {
    const Form fast{true, true, 100}, slow{true, true, 10'000};
    fuses({fast, slow, fast, fast, slow}, 5);
}

TEST_F(DecoderStackTest, EndsBeforeALayerOfAnotherForm) {
    const Form known{true, true};
    Form other = known;
    other.scale_sum = true;
    fuses({known, known, other, known}, 2);
    fuses({other, known}, 0);
}

TEST_F(DecoderStackTest, LeavesWhatIsNoDecoderLayer) {
    Form turned_first, all_heads, scaled, read;
    turned_first.norm_turned_heads = true;
    all_heads.norm_all_heads = true;
    scaled.scale_sum = true;
    read.read_middle = true;
    for (const Form& form : {turned_first, all_heads, scaled, read}) {
        fuses({form, form}, 0);
        Form with_norms = form;
        with_norms.post_norms = true;
        fuses({with_norms, with_norms}, 0);
    }
}

}  // namespace
