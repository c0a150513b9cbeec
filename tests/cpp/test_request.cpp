#include <gtest/gtest.h>

#include <thread>

#include "engine/request.hpp"
#include "ovfast/error.hpp"

namespace {

using namespace ovfast;
using std::chrono::milliseconds;

std::shared_ptr<RequestState> request(int64_t answers = 1) {
    SamplingParams params;
    params.n = answers;
    return std::make_shared<RequestState>(std::vector<int64_t>{1, 2}, params,
                                          std::make_shared<std::atomic<bool>>(false));
}

Delta piece(size_t answer, const char* text, FinishReason reason = FinishReason::kRunning) {
    Delta delta;
    delta.answer = answer;
    delta.text = text;
    delta.token_ids = {7};
    delta.finish_reason = reason;
    return delta;
}

TEST(RequestState, PiecesNobodyFetchedGrowTogetherByAnswer) {
    const auto state = request(2);
    for (int i = 0; i < 3; ++i) {
        state->add(piece(0, "a"));
        state->add(piece(1, "b"));
    }
    const auto pieces = state->next(milliseconds(0));
    ASSERT_EQ(pieces.size(), 2U);
    EXPECT_EQ(pieces[0].text, "aaa");
    EXPECT_EQ(pieces[1].text, "bbb");
    EXPECT_EQ(pieces[1].token_ids.size(), 3U);
    EXPECT_TRUE(state->next(milliseconds(0)).empty());
    EXPECT_FALSE(state->done());
}

TEST(RequestState, EndsWhenItsLastAnswerEnds) {
    const auto state = request(2);
    state->add(piece(0, "a", FinishReason::kStop), "stop");
    EXPECT_FALSE(state->ended());
    EXPECT_THROW(state->answers(), std::logic_error);
    state->add(piece(1, "b", FinishReason::kLength));
    EXPECT_TRUE(state->ended());
    EXPECT_FALSE(state->done());  // the pieces were not handed out
    state->next(milliseconds(0));
    EXPECT_TRUE(state->done());
    EXPECT_EQ(state->answers()[0].stop_string, "stop");
    EXPECT_EQ(state->answers()[1].finish_reason, FinishReason::kLength);
}

TEST(RequestState, AStepCountsOnceForAllAnswers) {
    const auto state = request(2);
    state->stepped(1, 0.5);
    state->stepped(2, 0.25);
    state->stepped(2, 0.25);
    state->end(FinishReason::kStop);
    EXPECT_EQ(state->metrics().steps, 2);
    EXPECT_DOUBLE_EQ(state->metrics().infer_seconds, 0.75);
}

TEST(RequestState, AFailureComesAfterThePiecesBeforeIt) {
    const auto state = request();
    state->add(piece(0, "a"));
    state->end(FinishReason::kError, std::make_exception_ptr(ModelError("broken")));
    EXPECT_EQ(state->next(milliseconds(0))[0].text, "a");
    EXPECT_FALSE(state->done());  // somebody who loops until done() must get to see it
    EXPECT_THROW(state->next(milliseconds(0)), ModelError);
    EXPECT_TRUE(state->done());
    EXPECT_THROW(state->wait(milliseconds(0)), ModelError);
}

TEST(RequestState, WaitsForAsLongAsItTakes) {
    const auto state = request();
    std::thread writer([&] {
        std::this_thread::sleep_for(milliseconds(20));
        state->add(piece(0, "a", FinishReason::kStop));
    });
    EXPECT_FALSE(state->wait(milliseconds(1)));
    EXPECT_TRUE(state->wait(milliseconds::max()));
    writer.join();
}

TEST(RequestState, CancellingTellsTheEngine) {
    SamplingParams params;
    const auto flag = std::make_shared<std::atomic<bool>>(false);
    RequestState state({1}, params, flag);
    EXPECT_FALSE(state.cancelled());
    state.cancel();
    EXPECT_TRUE(state.cancelled());
    EXPECT_TRUE(*flag);
}

}  // namespace
