// Attention against its definition in double precision: every path, with pasts, windows, pieces of
// context and shared heads.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention.hpp"
#include "kernels/pack.hpp"

namespace ovfast::kernels {
namespace {

double bf16(float value) {
    return from_bf16(to_bf16(value));
}

struct Free {
    void operator()(std::byte* memory) const { ::operator delete(memory, std::align_val_t{64}); }
};

std::unique_ptr<std::byte, Free> aligned(size_t bytes) {
    return std::unique_ptr<std::byte, Free>(
        static_cast<std::byte*>(::operator new(bytes, std::align_val_t{64})));
}

struct Case {
    AttentionShape shape;
    size_t past;
    size_t rows;
    size_t splits;
};

// One sequence whose keys and values all come through store_keys_values(), in scattered blocks.
class Sequence {
public:
    Sequence(const Case& test, unsigned seed) : test_(test), random_(seed) {
        const AttentionShape& shape = test.shape;
        total_ = test.past + test.rows;
        const size_t blocks = (total_ + kAttentionBlock - 1) / kAttentionBlock;
        for (size_t b = 0; b < blocks; ++b) numbers_.push_back(static_cast<int32_t>(b));
        std::shuffle(numbers_.begin(), numbers_.end(), random_);
        // Never written memory is not zero: new blocks must be cleared by whoever begins them.
        keys_.assign(blocks * shape.kv_heads * shape.key_block(), 0x7FC0);
        values_.assign(blocks * shape.kv_heads * shape.value_block(), 0x7FC0);
        fill(k_, total_ * shape.kv_heads * shape.key_size);
        fill(v_, total_ * shape.kv_heads * shape.value_size);
        fill(q_, test.rows * shape.heads * shape.key_size);
    }

    KvLayer layer() { return {keys_.data(), values_.data()}; }

    void store() {
        // In two parts, as a prompt and what follows it.
        for (const auto& [from, to] : {std::pair<size_t, size_t>{0, test_.past},
                                       std::pair<size_t, size_t>{test_.past, total_}}) {
            if (from == to) continue;
            AttentionInput input;
            input.k_stride = test_.shape.kv_heads * test_.shape.key_size;
            input.v_stride = test_.shape.kv_heads * test_.shape.value_size;
            input.k = k_.data() + from * input.k_stride;
            input.v = v_.data() + from * input.v_stride;
            const AttentionSequence sequence{0, to - from, from, numbers_.data()};
            for (size_t head = 0; head < test_.shape.kv_heads; ++head) {
                store_keys_values(test_.shape, input, sequence, head, layer());
            }
        }
    }

    std::vector<float> run() {
        const AttentionShape& shape = test_.shape;
        const size_t group = shape.heads / shape.kv_heads;
        const size_t queries = test_.rows * group;
        AttentionInput input;
        input.q = q_.data();
        input.q_stride = shape.heads * shape.key_size;
        const AttentionSequence sequence{0, test_.rows, test_.past, numbers_.data()};
        std::vector<float> out(test_.rows * shape.heads * shape.value_size);
        std::vector<float> maxima(test_.splits * queries);
        std::vector<float> sums(test_.splits * queries);
        std::vector<float> weighted(test_.splits * queries * shape.value_size);
        const size_t bytes = attention_scratch_bytes(shape, queries);
        constexpr size_t guard = 64;
        const auto scratch = aligned(bytes + guard);
        std::memset(scratch.get() + bytes, 0x5A, guard);
        for (size_t head = 0; head < shape.kv_heads; ++head) {
            const size_t blocks = numbers_.size();
            for (size_t s = 0; s < test_.splits; ++s) {
                AttentionPiece piece{head, 0, queries, 0, 0};
                piece.from_token = blocks * s / test_.splits * kAttentionBlock;
                piece.to_token =
                    std::min(total_, blocks * (s + 1) / test_.splits * kAttentionBlock);
                attend(shape, input, sequence, layer(), piece,
                       {maxima.data() + s * queries, sums.data() + s * queries,
                        weighted.data() + s * queries * shape.value_size},
                       scratch.get());
            }
            for (size_t i = 0; i < queries; ++i) {
                merge_attention(shape, maxima.data() + i, sums.data() + i,
                                weighted.data() + i * shape.value_size, test_.splits, queries,
                                out.data() + i % test_.rows * shape.heads * shape.value_size +
                                    (head * group + i / test_.rows) * shape.value_size);
            }
        }
        for (size_t i = 0; i < guard; ++i) {
            EXPECT_EQ(scratch.get()[bytes + i], std::byte{0x5A}) << "scratch overrun by " << i;
        }
        return out;
    }

    // Of rounded inputs, so that what is left to differ are the weights' rounding and order of
    // sums.
    std::vector<double> expected() const {
        const AttentionShape& shape = test_.shape;
        const size_t group = shape.heads / shape.kv_heads;
        std::vector<double> out(test_.rows * shape.heads * shape.value_size);
        for (size_t row = 0; row < test_.rows; ++row) {
            for (size_t head = 0; head < shape.heads; ++head) {
                const size_t last = test_.past + row + 1;
                const size_t first =
                    shape.window != 0 && last > shape.window ? last - shape.window : 0;
                const float* q = q_.data() + (row * shape.heads + head) * shape.key_size;
                std::vector<double> weights(last - first);
                for (size_t t = first; t < last; ++t) {
                    const float* k =
                        k_.data() + (t * shape.kv_heads + head / group) * shape.key_size;
                    double score = 0;
                    for (size_t c = 0; c < shape.key_size; ++c) {
                        score += bf16(q[c] * shape.scale) * bf16(k[c]);
                    }
                    weights[t - first] = score;
                }
                const double maximum = *std::max_element(weights.begin(), weights.end());
                double sum = 0;
                for (double& weight : weights) sum += weight = std::exp(weight - maximum);
                for (size_t c = 0; c < shape.value_size; ++c) {
                    double value = 0;
                    for (size_t t = first; t < last; ++t) {
                        value +=
                            weights[t - first] / sum *
                            bf16(v_[(t * shape.kv_heads + head / group) * shape.value_size + c]);
                    }
                    out[(row * shape.heads + head) * shape.value_size + c] = value;
                }
            }
        }
        return out;
    }

    std::vector<float>& q() { return q_; }

private:
    void fill(std::vector<float>& values, size_t count) {
        std::normal_distribution<float> normal(0.0F, 1.0F);
        values.resize(count);
        for (float& value : values) value = normal(random_);
    }

    Case test_;
    std::mt19937 random_;
    size_t total_;
    std::vector<int32_t> numbers_;
    std::vector<uint16_t> keys_, values_;
    std::vector<float> q_, k_, v_;
};

AttentionShape shape_of(size_t heads, size_t kv_heads, size_t key_size, size_t value_size,
                        size_t window = 0) {
    return {heads, kv_heads, key_size, value_size, 1.0F / std::sqrt(static_cast<float>(key_size)),
            window};
}

std::vector<Case> cases() {
    std::vector<Case> all;
    const std::vector<AttentionShape> shapes{
        shape_of(14, 2, 64, 64), shape_of(4, 4, 32, 32),     shape_of(8, 1, 128, 96),
        shape_of(6, 2, 96, 128), shape_of(4, 2, 64, 64, 40), shape_of(16, 1, 64, 64, 1)};
    for (const AttentionShape& shape : shapes) {
        for (const size_t past : {0, 1, 32, 100, 1300}) {
            for (const size_t rows : {1, 2, 5, 33}) {
                if (past > 1000 && rows > 2 && shape.heads > 8) continue;  // the oracle takes long
                all.push_back({shape, past, rows, past + rows > 64 ? 3U : 1U});
            }
        }
    }
    all.push_back({shapes[0], 700, 70, 1});
    return all;
}

class Attention : public testing::TestWithParam<Isa> {
protected:
    void SetUp() override {
        if (!supported(GetParam())) GTEST_SKIP() << "no " << name(GetParam());
        force_isa(GetParam());
        if (!attention_supported()) GTEST_SKIP() << "no AVX-512 with BF16";
    }
    void TearDown() override { force_isa(std::nullopt); }
};

TEST_P(Attention, IsSoftmaxOfScoresTimesValues) {
    EXPECT_EQ(attention_tile_queries(), GetParam() == Isa::Amx ? 32U : 8U);
    unsigned seed = 0;
    for (const Case& test : cases()) {
        Sequence sequence(test, ++seed);
        sequence.store();
        const std::vector<float> found = sequence.run();
        const std::vector<double> expected = sequence.expected();
        for (size_t i = 0; i < found.size(); ++i) {
            // Weights are rounded to bf16 (2^-9 of each), values are about 1.
            ASSERT_NEAR(found[i], expected[i], 0.006)
                << "at " << i << ", heads " << test.shape.heads << "/" << test.shape.kv_heads
                << ", window " << test.shape.window << ", past " << test.past << ", rows "
                << test.rows << ", splits " << test.splits;
        }
    }
}

TEST_P(Attention, KeepsNotANumberToItsRow) {
    for (const size_t rows : {3, 40}) {
        const Case test{shape_of(4, 2, 64, 64), 70, rows, 2};
        Sequence sequence(test, 7);
        sequence.store();
        const std::vector<float> before = sequence.run();
        const size_t width = 4 * 64;
        sequence.q()[1 * width + 5] = std::numeric_limits<float>::quiet_NaN();
        const std::vector<float> after = sequence.run();
        for (size_t i = 0; i < after.size(); ++i) {
            if (i / width == 1 && i % width < 64) {
                ASSERT_TRUE(std::isnan(after[i])) << i;
            } else {
                ASSERT_EQ(after[i], before[i]) << i;
            }
        }
    }
}

TEST_P(Attention, SurvivesScoresFarApart) {
    const Case test{shape_of(2, 2, 32, 32), 100, 20, 1};
    Sequence sequence(test, 3);
    for (float& value : sequence.q()) value *= 1e4F;
    sequence.store();
    for (const float value : sequence.run()) ASSERT_TRUE(std::isfinite(value));
}

INSTANTIATE_TEST_SUITE_P(Isas, Attention, testing::Values(Isa::Avx512Vnni, Isa::Amx),
                         [](const auto& isa) { return std::string(name(isa.param)); });

}  // namespace
}  // namespace ovfast::kernels
