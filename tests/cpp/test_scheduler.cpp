#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "engine/scheduler.hpp"

namespace {

using namespace ovfast;
using testing::ElementsAre;

constexpr int64_t kBlock = 4;  // tokens in a block

class SchedulerTest : public testing::Test {
protected:
    Scheduler make(int32_t blocks, int64_t batch_tokens = 100, int64_t sequences = 100,
                   int64_t cached_blocks = 0) {
        return Scheduler({batch_tokens, sequences, kBlock, cached_blocks}, blocks,
                         {[this](int32_t from, int32_t to) { copies.emplace_back(from, to); },
                          [this](uint64_t from, uint64_t to) { forks.emplace_back(from, to); },
                          [this](uint64_t sequence) { released.push_back(sequence); }});
    }

    std::unique_ptr<Sequence> sequence(int64_t prompt, int64_t answers = 1) {
        SamplingParams params;
        params.n = answers;
        params.temperature = answers > 1 ? 1.0 : 0.0;
        auto request = std::make_shared<RequestState>(
            std::vector<int64_t>(static_cast<size_t>(prompt), 7), params, flag);
        auto first = std::make_unique<Sequence>();
        first->request = request;
        first->tokens = request->prompt_ids;
        for (int64_t i = 1; i < answers; ++i) {
            auto sibling = std::make_unique<Sequence>();
            sibling->request = request;
            first->siblings.push_back(std::move(sibling));
        }
        return first;
    }

    // One engine step: every sequence that was sampled gets a token.
    std::vector<Sequence*> step(Scheduler& scheduler) {
        std::vector<Sequence*> sampled = scheduler.plan(batch);
        check_batch();
        scheduler.computed();
        std::vector<Sequence*> all;
        for (Sequence* s : sampled) {
            all.push_back(s);
            for (Sequence* sibling : scheduler.fork(*s)) all.push_back(sibling);
        }
        for (Sequence* s : all) s->tokens.push_back(8);
        return all;
    }

    // What the model relies on, whatever was planned.
    void check_batch() const {
        ASSERT_EQ(batch.begins.size(), batch.past_lengths.size() + 1);
        ASSERT_EQ(batch.block_begins.size(), batch.begins.size());
        ASSERT_EQ(batch.begins.back(), static_cast<int32_t>(batch.token_ids.size()));
        ASSERT_EQ(batch.positions.size(), batch.token_ids.size());
        ASSERT_EQ(batch.sequences.size(), batch.past_lengths.size());
        std::vector<int32_t> written;
        for (size_t i = 0; i < batch.past_lengths.size(); ++i) {
            const int32_t tokens = batch.begins[i + 1] - batch.begins[i];
            ASSERT_GT(tokens, 0);
            const int32_t end = batch.past_lengths[i] + tokens;
            const int32_t blocks = batch.block_begins[i + 1] - batch.block_begins[i];
            EXPECT_EQ(blocks, (end + kBlock - 1) / kBlock);
            EXPECT_LE(end, batch.max_context);
            for (int32_t b = batch.past_lengths[i] / static_cast<int32_t>(kBlock); b < blocks;
                 ++b) {
                written.push_back(batch.blocks[static_cast<size_t>(batch.block_begins[i] + b)]);
            }
        }
        std::sort(written.begin(), written.end());
        EXPECT_EQ(std::adjacent_find(written.begin(), written.end()), written.end())
            << "two sequences write to one block";
    }

    StepBatch batch;
    std::vector<std::pair<int32_t, int32_t>> copies;
    std::vector<std::pair<uint64_t, uint64_t>> forks;
    std::vector<uint64_t> released;
    std::shared_ptr<std::atomic<bool>> flag = std::make_shared<std::atomic<bool>>(false);
};

TEST_F(SchedulerTest, PromptThenDecode) {
    Scheduler scheduler = make(10);
    scheduler.add(sequence(6));
    EXPECT_EQ(step(scheduler).size(), 1U);
    EXPECT_THAT(batch.positions, ElementsAre(0, 1, 2, 3, 4, 5));
    EXPECT_THAT(batch.logit_rows, ElementsAre(5));
    step(scheduler);
    EXPECT_THAT(batch.token_ids, ElementsAre(8));
    EXPECT_THAT(batch.positions, ElementsAre(6));
    EXPECT_THAT(batch.past_lengths, ElementsAre(6));
    EXPECT_EQ(batch.max_context, 7);
}

TEST_F(SchedulerTest, LongPromptComesInChunksAndOnlyTheLastWantsLogits) {
    Scheduler scheduler = make(10, 4);
    scheduler.add(sequence(10));
    EXPECT_TRUE(step(scheduler).empty());
    EXPECT_TRUE(batch.logit_rows.empty());
    EXPECT_TRUE(step(scheduler).empty());
    EXPECT_THAT(batch.past_lengths, ElementsAre(4));
    EXPECT_EQ(step(scheduler).size(), 1U);
    EXPECT_THAT(batch.positions, ElementsAre(8, 9));
    EXPECT_THAT(batch.logit_rows, ElementsAre(1));
}

TEST_F(SchedulerTest, DecodingComesBeforePrompts) {
    Scheduler scheduler = make(20, 5);
    scheduler.add(sequence(3));
    step(scheduler);
    scheduler.add(sequence(9));
    step(scheduler);
    EXPECT_THAT(batch.past_lengths, ElementsAre(3, 0));
    EXPECT_THAT(batch.begins, ElementsAre(0, 1, 5));
    EXPECT_THAT(batch.logit_rows, ElementsAre(0));
}

TEST_F(SchedulerTest, OthersWaitBeyondTheNumberOfSequences) {
    Scheduler scheduler = make(20, 100, 2);
    for (int i = 0; i < 3; ++i) scheduler.add(sequence(2));
    const auto first = step(scheduler);
    EXPECT_EQ(first.size(), 2U);
    scheduler.remove(*first[0]);
    EXPECT_EQ(step(scheduler).size(), 2U);  // the one that goes on, and the one that waited
}

TEST_F(SchedulerTest, AnswersShareThePromptAndCopyTheBlockTheyWrite) {
    Scheduler scheduler = make(10);
    scheduler.add(sequence(6, 3));
    EXPECT_EQ(step(scheduler).size(), 3U);
    EXPECT_TRUE(copies.empty());
    EXPECT_THAT(forks, ElementsAre(std::pair{0U, 1U}, std::pair{0U, 2U}));
    EXPECT_EQ(step(scheduler).size(), 3U);
    EXPECT_THAT(batch.sequences, ElementsAre(0, 1, 2));
    EXPECT_EQ(copies.size(), 2U);  // the last holder keeps the original
    EXPECT_EQ(batch.blocks[0], batch.blocks[2]);
    EXPECT_EQ(batch.blocks[0], batch.blocks[4]);
    step(scheduler);
    EXPECT_EQ(copies.size(), 2U);
}

TEST_F(SchedulerTest, SiblingsOfAFullBlockNeedNoCopy) {
    Scheduler scheduler = make(10);
    scheduler.add(sequence(8, 2));
    step(scheduler);
    step(scheduler);
    EXPECT_TRUE(copies.empty());
}

TEST_F(SchedulerTest, YoungestGivesWayAndComesBackWhole) {
    Scheduler scheduler = make(3);
    scheduler.add(sequence(4));
    scheduler.add(sequence(4));
    auto running = step(scheduler);
    ASSERT_EQ(running.size(), 2U);
    Sequence* old = running[0];
    Sequence* young = running[1];
    step(scheduler);  // both need a second block, one is left
    EXPECT_THAT(batch.past_lengths, ElementsAre(4));
    EXPECT_THAT(batch.sequences, ElementsAre(0));
    EXPECT_THAT(released, ElementsAre(1));
    EXPECT_EQ(young->computed, 0);
    EXPECT_EQ(young->tokens.size(), 5U);  // what it generated is kept
    for (int i = 0; i < 3; ++i) step(scheduler);
    EXPECT_EQ(old->tokens.size(), 9U);
    scheduler.remove(*old);
    EXPECT_THAT(released, ElementsAre(1, 0));
    EXPECT_THAT(step(scheduler), ElementsAre(young));
    EXPECT_THAT(batch.sequences, ElementsAre(1));
    EXPECT_EQ(batch.token_ids.size(), 5U);
}

TEST_F(SchedulerTest, PromptsThatFillTheCacheDoNotBlockEachOther) {
    Scheduler scheduler = make(4, 8);
    scheduler.add(sequence(1));
    step(scheduler);
    scheduler.add(sequence(8));
    int finished = 0;
    for (int i = 0; i < 40 && finished < 2; ++i) {
        for (Sequence* s : step(scheduler)) {
            if (s->tokens.size() >= 14) {
                scheduler.remove(*s);
                ++finished;
            }
        }
    }
    EXPECT_EQ(finished, 2);
    EXPECT_TRUE(scheduler.idle());
}

TEST_F(SchedulerTest, RemoveIfFreesWaitingAndRunning) {
    Scheduler scheduler = make(2);
    scheduler.add(sequence(8));
    step(scheduler);
    scheduler.add(sequence(8));
    scheduler.remove_if([](const RequestState&) { return true; });
    EXPECT_TRUE(scheduler.idle());
    scheduler.add(sequence(8));
    EXPECT_EQ(step(scheduler).size(), 1U);  // all blocks are free again
}

TEST_F(SchedulerTest, PromptThatBeginsAlikeIsNotComputedAgain) {
    Scheduler scheduler = make(10, 100, 100, 10);
    scheduler.add(sequence(9));
    Sequence* first = step(scheduler)[0];
    const std::vector<int32_t> blocks = first->blocks;
    scheduler.remove(*first);
    scheduler.add(sequence(9));
    Sequence* second = step(scheduler)[0];
    EXPECT_THAT(batch.past_lengths, ElementsAre(8));
    EXPECT_THAT(batch.positions, ElementsAre(8));
    EXPECT_EQ(second->blocks[0], blocks[0]);
    EXPECT_EQ(second->blocks[1], blocks[1]);
    scheduler.remove(*second);
    scheduler.add(sequence(8));  // its last token must be computed for the logits
    step(scheduler);
    EXPECT_THAT(batch.past_lengths, ElementsAre(4));
}

TEST_F(SchedulerTest, CachedPrefixesGiveWayToSequences) {
    Scheduler scheduler = make(4, 100, 100, 4);
    scheduler.add(sequence(16));
    Sequence* first = step(scheduler)[0];
    scheduler.remove(*first);
    auto other = sequence(14);
    other->tokens[0] = 99;
    scheduler.add(std::move(other));
    EXPECT_EQ(step(scheduler).size(), 1U);
    EXPECT_THAT(batch.past_lengths, ElementsAre(0));
}

// Random loads in a cache far too small for them: everything finishes, nothing is lost, and
// check_batch() holds at every step.
TEST_F(SchedulerTest, EverythingFinishesUnderPressure) {
    std::mt19937 random(1);
    for (int round = 0; round < 50; ++round) {
        const auto pick = [&](int low, int high) {
            return std::uniform_int_distribution<int>(low, high)(random);
        };
        const int32_t blocks = pick(6, 12);
        Scheduler scheduler = make(blocks, pick(1, 12), pick(3, 8), pick(0, 1) * blocks);
        std::map<Sequence*, size_t> wanted;
        size_t added = 0;
        size_t finished = 0;
        size_t expected = 0;
        for (int steps = 0; steps < 5000 && (added < 12 || !scheduler.idle()); ++steps) {
            if (added < 12 && pick(0, 2) == 0) {
                const int answers = pick(1, 3);
                scheduler.add(sequence(pick(1, 12), answers));
                ++added;
                expected += static_cast<size_t>(answers);
            }
            for (Sequence* s : step(scheduler)) {
                auto [it, fresh] = wanted.try_emplace(s, 0);
                if (fresh) {
                    it->second = s->tokens.size() + static_cast<size_t>(pick(0, 8));
                }
                if (s->tokens.size() > it->second) {
                    wanted.erase(it);
                    scheduler.remove(*s);
                    ++finished;
                }
            }
            if (HasFatalFailure() || HasNonfatalFailure()) return;
        }
        EXPECT_EQ(finished, expected) << "round " << round;
        EXPECT_TRUE(scheduler.idle());
    }
}

}  // namespace
