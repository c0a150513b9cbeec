// Properties that need C++: order of ties at block edges, allocation, threads, validation of every
// option. The choices themselves are compared with a NumPy reference in tests/python.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/sampler.hpp"
#include "ovfast/error.hpp"

namespace {

std::atomic<size_t> allocations{0};

}  // namespace

// Counts what the tests allocate. Not inlined: GCC takes one half of an inlined pair for a
// mismatch.
[[gnu::noinline]] void* operator new(size_t size) {
    ++allocations;
    if (void* memory = std::malloc(size != 0 ? size : 1)) return memory;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept {
    std::free(memory);
}

namespace ovfast {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kVocabulary = 151'937;  // odd: no block or vector width divides it

std::vector<float> random_logits(size_t size, unsigned seed, float spread = 4.0F) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0.0F, spread);
    std::vector<float> logits(size);
    for (float& logit : logits) logit = normal(generator);
    return logits;
}

SamplingParams with(double temperature, std::optional<uint64_t> seed = 1) {
    SamplingParams params;
    params.temperature = temperature;
    params.seed = seed;
    return params;
}

std::vector<int64_t> draw(const SamplingParams& params, const std::vector<float>& logits,
                          size_t count, const std::vector<int64_t>& prompt = {}) {
    Sampler sampler(params, prompt, {});
    std::vector<int64_t> ids;
    for (size_t i = 0; i < count; ++i) {
        ids.push_back(sampler.sample(logits.data(), logits.size()).token_id);
    }
    return ids;
}

TEST(Sampler, GreedyFindsThePeakWhereverItIs) {
    std::vector<float> logits(1000, -3.0F);
    for (size_t position = 0; position < logits.size(); ++position) {
        logits[position] = -2.5F;
        EXPECT_THAT(draw(with(0.0), logits, 1), ElementsAre(position));
        logits[position] = -3.0F;
    }
}

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
    for (const size_t first : {0U, 15U, 255U, 256U, 700U}) {
        std::vector<float> logits(1000, -3.0F);
        for (size_t position = first; position < logits.size(); position += 17) {
            logits[position] = 2.0F;
        }
        EXPECT_THAT(draw(with(0.0), logits, 1), ElementsAre(first));
    }
}

TEST(Sampler, ReadsNothingBehindTheLogits) {
    for (const size_t size : {1U, 255U, 256U, 257U, 511U}) {
        std::vector<float> logits = random_logits(size + 300, 5);
        for (size_t i = size; i < logits.size(); ++i) logits[i] = 100.0F;
        for (const double temperature : {0.0, 1.0, 50.0}) {
            Sampler sampler(with(temperature), {}, {});
            for (int i = 0; i < 20; ++i) {
                EXPECT_LT(sampler.sample(logits.data(), size).token_id, static_cast<int64_t>(size));
            }
        }
    }
}

TEST(Sampler, TemperatureDrawFollowsTheDocumentedGenerator) {
    // Equal logits of 2^16 tokens in ascending order: the token is the number's first 16 bits.
    // The outputs of SplitMix64 here were computed with arbitrary-precision integers.
    const std::vector<float> logits(size_t{1} << 16U, 0.5F);
    EXPECT_THAT(draw(with(1.0, 0), logits, 3), ElementsAre(9090, 63642, 18208));
    SamplingParams params = with(1.0, 42);
    Sampler third(params, {}, {}, 3);
    EXPECT_EQ(third.sample(logits.data(), logits.size()).token_id, 30642);
}

TEST(Sampler, FlatDistributionIsCutCorrectly) {
    // Every token is as probable as every other: top-p keeps the first half of the ids, top-k the
    // first k, and draws reach all of what is kept and nothing else.
    const std::vector<float> logits(kVocabulary, 1.0F);
    SamplingParams half = with(1.0);
    half.top_p = 0.5;
    SamplingParams some = with(1.0);
    some.top_k = 5000;
    const auto check = [&](const SamplingParams& params, int64_t kept) {
        int64_t largest = 0;
        for (const int64_t id : draw(params, logits, 60)) {
            EXPECT_LT(id, kept);
            largest = std::max(largest, id);
        }
        EXPECT_GT(largest, kept * 8 / 10);
    };
    check(half, (kVocabulary + 1) / 2);
    check(some, 5000);
}

TEST(Sampler, SameSeedSameTokensInAnyThreadAndCompany) {
    SamplingParams params = with(1.3, 7);
    params.top_p = 0.97;
    params.frequency_penalty = 0.2;
    const auto logits = random_logits(kVocabulary, 1);
    const auto alone = draw(params, logits, 20);
    std::vector<std::vector<int64_t>> results(4);
    std::vector<std::thread> threads;
    for (auto& result : results) {
        threads.emplace_back([&] {
            // Another sequence takes turns on the same thread.
            Sampler sampler(params, {}, {});
            Sampler other(with(0.8, 9), {}, {});
            for (int i = 0; i < 20; ++i) {
                result.push_back(sampler.sample(logits.data(), logits.size()).token_id);
                other.sample(logits.data(), logits.size() / 2);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& result : results) EXPECT_EQ(result, alone);
}

TEST(Sampler, DoesNotAllocateAfterTheFirstToken) {
    const auto logits = random_logits(kVocabulary, 2);
    std::vector<SamplingParams> kinds(6, with(0.9));
    kinds[0] = with(0.0);
    kinds[1].top_k = 40;
    kinds[2].top_p = 0.95;
    kinds[3].min_p = 0.05;
    kinds[5].top_k = 40;
    kinds[5].repetition_penalty = 1.1;
    for (const SamplingParams& params : kinds) {
        // The prompt holds all tokens, so that new ones need no new entry.
        std::vector<int64_t> prompt(1000);
        for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int64_t>(i);
        const std::vector<float> some(logits.begin(), logits.begin() + 1000);
        Sampler sampler(params, prompt, {});
        sampler.sample(some.data(), some.size());
        sampler.sample(logits.data(), logits.size());
        const size_t before = allocations;
        for (int i = 0; i < 10; ++i) sampler.sample(some.data(), some.size());
        EXPECT_EQ(allocations, before);
    }
}

TEST(Sampler, LogprobsAreOfTheModelsOwnDistribution) {
    const std::vector<float> logits{std::log(0.5F), std::log(0.3F), std::log(0.2F), -kInfinity};
    SamplingParams params;
    params.repetition_penalty = 100.0;
    params.logprobs = 20;
    Sampler sampler(params, {2}, {});
    // log(0.2) * 100 puts token 2 last; negative logits of the others stay.
    const auto choice = sampler.sample(logits.data(), logits.size());
    ASSERT_TRUE(choice.logprobs.has_value());
    EXPECT_EQ(choice.token_id, 0);
    EXPECT_NEAR(choice.logprobs->chosen.logprob, std::log(0.5), 1e-6);
    ASSERT_EQ(choice.logprobs->top.size(), 4U);
    EXPECT_EQ(choice.logprobs->top[2].token_id, 2);
    EXPECT_NEAR(choice.logprobs->top[2].logprob, std::log(0.2), 1e-6);
    EXPECT_EQ(choice.logprobs->top[3].logprob, -kInfinity);
}

TEST(Sampler, PenaltiesOverflowToTheLargestFloat) {
    // 3e38 / 0.001 would be +infinity, which only a broken model may have.
    SamplingParams params;
    params.repetition_penalty = 0.001;
    EXPECT_THAT(draw(params, {1.0F, 3e38F}, 2, {1}), ElementsAre(1, 1));
}

TEST(Sampler, ConstructorValidates) {
    SamplingParams params;
    params.top_p = 0.5;
    EXPECT_THROW(Sampler(params, {}, {}), std::invalid_argument);
    EXPECT_THROW(Sampler(with(0.0), {-1}, {}), std::invalid_argument);
    EXPECT_THROW(Sampler(with(0.0), {}, {-1}), std::invalid_argument);
    Sampler sampler(with(0.0), {}, {});
    EXPECT_THROW(sampler.sample(nullptr, 5), std::invalid_argument);
}

// ---- SamplingParams::validate -------------------------------------------------------------------

struct Invalid {
    const char* what;
    void (*change)(SamplingParams&);
    std::vector<std::string> message;  // parts that it must have
};

void PrintTo(const Invalid& invalid, std::ostream* out) {
    *out << invalid.what;
}

class InvalidParams : public testing::TestWithParam<Invalid> {};

TEST_P(InvalidParams, AreNamedWithTheirValue) {
    SamplingParams params;
    GetParam().change(params);
    try {
        params.validate();
        FAIL() << "accepted";
    } catch (const std::invalid_argument& error) {
        for (const auto& part : GetParam().message) EXPECT_THAT(error.what(), HasSubstr(part));
    }
}

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kHuge = std::numeric_limits<double>::infinity();

INSTANTIATE_TEST_SUITE_P(
    Each, InvalidParams,
    testing::Values(
        Invalid{"no tokens",
                [](auto& p) { p.max_new_tokens = 0; },
                {"max_new_tokens is 0", "at least 1"}},
        Invalid{"negative tokens",
                [](auto& p) { p.max_new_tokens = -5; },
                {"max_new_tokens is -5", "at least 1"}},
        Invalid{"no length", [](auto& p) { p.max_length = 0; }, {"max_length is 0", "at least 1"}},
        Invalid{"both lengths",
                [](auto& p) {
                    p.max_new_tokens = 5;
                    p.max_length = 6;
                },
                {"max_new_tokens is 5", "max_length is 6", "only one"}},
        Invalid{"negative minimum",
                [](auto& p) { p.min_new_tokens = -1; },
                {"min_new_tokens is -1", "at least 0"}},
        Invalid{"minimum above maximum",
                [](auto& p) {
                    p.max_new_tokens = 4;
                    p.min_new_tokens = 5;
                },
                {"min_new_tokens is 5", "at most max_new_tokens, 4"}},
        Invalid{"minimum above length",
                [](auto& p) {
                    p.max_length = 5;
                    p.min_new_tokens = 5;
                },
                {"min_new_tokens is 5", "less than max_length, 5"}},
        Invalid{"negative temperature",
                [](auto& p) { p.temperature = -0.5; },
                {"temperature is -0.5", ">= 0"}},
        Invalid{"NaN temperature",
                [](auto& p) { p.temperature = kNan; },
                {"temperature is nan", "finite"}},
        Invalid{"infinite temperature",
                [](auto& p) { p.temperature = kHuge; },
                {"temperature is inf", "finite"}},
        Invalid{"negative top_k",
                [](auto& p) {
                    p.temperature = 1.0;
                    p.top_k = -1;
                },
                {"top_k is -1", "at least 0"}},
        Invalid{"zero top_p",
                [](auto& p) {
                    p.temperature = 1.0;
                    p.top_p = 0.0;
                },
                {"top_p is 0", "(0, 1]"}},
        Invalid{"top_p a hair above 1",
                [](auto& p) {
                    p.temperature = 1.0;
                    p.top_p = 1.0000000000000002;
                },
                {"top_p is 1.0000000000000002", "(0, 1]"}},
        Invalid{"NaN top_p",
                [](auto& p) {
                    p.temperature = 1.0;
                    p.top_p = kNan;
                },
                {"top_p is nan", "(0, 1]"}},
        Invalid{"negative min_p",
                [](auto& p) {
                    p.temperature = 1.0;
                    p.min_p = -0.1;
                },
                {"min_p is -0.1", "[0, 1]"}},
        Invalid{"min_p above 1",
                [](auto& p) {
                    p.temperature = 1.0;
                    p.min_p = 1.5;
                },
                {"min_p is 1.5", "[0, 1]"}},
        Invalid{"NaN min_p",
                [](auto& p) {
                    p.temperature = 1.0;
                    p.min_p = kNan;
                },
                {"min_p is nan", "[0, 1]"}},
        Invalid{"greedy top_k", [](auto& p) { p.top_k = 5; }, {"top_k is 5", "temperature is 0"}},
        Invalid{
            "greedy top_p", [](auto& p) { p.top_p = 0.5; }, {"top_p is 0.5", "temperature is 0"}},
        Invalid{
            "greedy min_p", [](auto& p) { p.min_p = 0.5; }, {"min_p is 0.5", "temperature is 0"}},
        Invalid{"greedy n", [](auto& p) { p.n = 2; }, {"n is 2", "temperature is 0"}},
        Invalid{"zero repetition_penalty",
                [](auto& p) { p.repetition_penalty = 0.0; },
                {"repetition_penalty is 0", "> 0"}},
        Invalid{"infinite repetition_penalty",
                [](auto& p) { p.repetition_penalty = kHuge; },
                {"repetition_penalty is inf", "finite"}},
        Invalid{"NaN repetition_penalty",
                [](auto& p) { p.repetition_penalty = kNan; },
                {"repetition_penalty is nan", "finite"}},
        Invalid{"presence_penalty",
                [](auto& p) { p.presence_penalty = 2.1; },
                {"presence_penalty is 2.1", "[-2, 2]"}},
        Invalid{"NaN presence_penalty",
                [](auto& p) { p.presence_penalty = kNan; },
                {"presence_penalty is nan", "[-2, 2]"}},
        Invalid{"frequency_penalty",
                [](auto& p) { p.frequency_penalty = -2.1; },
                {"frequency_penalty is -2.1", "[-2, 2]"}},
        Invalid{"NaN frequency_penalty",
                [](auto& p) { p.frequency_penalty = kNan; },
                {"frequency_penalty is nan", "[-2, 2]"}},
        Invalid{"empty stop string",
                [](auto& p) { p.stop_strings = {"a", ""}; },
                {"stop_strings[1] is empty"}},
        Invalid{"negative stop token",
                [](auto& p) { p.stop_token_ids = {3, -2}; },
                {"stop_token_ids[1] is -2", ">= 0"}},
        Invalid{"no answers", [](auto& p) { p.n = 0; }, {"n is 0", "1 to 128"}},
        Invalid{"too many answers",
                [](auto& p) {
                    p.temperature = 1.0;
                    p.n = 129;
                },
                {"n is 129", "1 to 128"}},
        Invalid{
            "negative logprobs", [](auto& p) { p.logprobs = -1; }, {"logprobs is -1", "0 to 20"}},
        Invalid{
            "too many logprobs", [](auto& p) { p.logprobs = 21; }, {"logprobs is 21", "0 to 20"}}));

TEST(SamplingParams, AcceptsTheEndsOfEveryRange) {
    SamplingParams params;
    params.validate();
    params.max_new_tokens = params.min_new_tokens = 1;
    params.temperature = std::numeric_limits<double>::denorm_min();
    params.top_k = std::numeric_limits<int64_t>::max();
    params.top_p = 1e-300;
    params.min_p = 1.0;
    params.presence_penalty = -2.0;
    params.frequency_penalty = 2.0;
    params.repetition_penalty = 1e-300;
    params.seed = std::numeric_limits<uint64_t>::max();
    params.stop_strings = {"\n"};
    params.stop_token_ids = {0};
    params.n = 128;
    params.logprobs = 20;
    EXPECT_NO_THROW(params.validate());
}

}  // namespace
}  // namespace ovfast
