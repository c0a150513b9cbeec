#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "text/stop_strings.hpp"

namespace ovfast {
namespace {

using testing::ElementsAre;

struct Result {
    std::vector<std::string> shown;  // a piece for each push, then what finish() gives
    std::string match;

    std::string text() const {
        std::string all;
        for (const std::string& piece : shown) all += piece;
        return all;
    }
};

Result run(const std::vector<std::string>& stops, const std::vector<std::string>& pieces,
           bool include = false) {
    StopStrings filter(stops, include);
    Result result;
    for (const std::string& piece : pieces) result.shown.push_back(filter.push(piece));
    result.shown.push_back(filter.finish());
    result.match = filter.match();
    EXPECT_EQ(filter.matched(), !result.match.empty());
    return result;
}

TEST(StopStrings, WithoutStopStringsTextPassesAtOnce) {
    EXPECT_THAT(run({}, {"ab", "", "c"}).shown, ElementsAre("ab", "", "c", ""));
}

TEST(StopStrings, HoldsBackWhatMayBecomeOneAndNoMore) {
    EXPECT_THAT(run({"STOP"}, {"xS", "T", "aST", "O", "x"}).shown,
                ElementsAre("x", "", "STa", "", "STOx", ""));
}

TEST(StopStrings, FindsOneThatSpansPieces) {
    const Result result = run({"<|end|>"}, {"hello <", "|", "en", "d|", "> world", "more"});
    EXPECT_THAT(result.shown, ElementsAre("hello ", "", "", "", "", "", ""));
    EXPECT_EQ(result.match, "<|end|>");
}

TEST(StopStrings, IncludesTheMatchWhenAsked) {
    EXPECT_EQ(run({"END"}, {"a E", "N", "D b"}, true).text(), "a END");
    EXPECT_EQ(run({"END"}, {"a E", "N", "D b"}, false).text(), "a ");
}

TEST(StopStrings, FinishGivesBackWhatWasHeld) {
    const Result result = run({"END"}, {"a E", "N"});
    EXPECT_THAT(result.shown, ElementsAre("a ", "", "EN"));
    EXPECT_EQ(result.match, "");
}

TEST(StopStrings, TheOneThatBeginsFirstWins) {
    const Result result = run({"cd", "bcde"}, {"abcdef"}, true);
    EXPECT_EQ(result.match, "bcde");
    EXPECT_EQ(result.text(), "abcde");
}

TEST(StopStrings, ThenTheLongest) {
    EXPECT_EQ(run({"b", "bcd", "bc"}, {"abcde"}).match, "bcd");
}

TEST(StopStrings, DoesNotWaitForALongerOne) {
    EXPECT_EQ(run({"\n", "\n\n"}, {"a\n", "\n"}).match, "\n");
}

TEST(StopStrings, OverlapsItself) {
    // The first "aab" begins at the second a; a search that forgot its progress would miss it.
    EXPECT_EQ(run({"aab"}, {"a", "a", "a", "b"}).text(), "a");
    EXPECT_EQ(run({"abab!"}, {"ababab", "!"}).text(), "ab");
}

TEST(StopStrings, CutsOnlyBetweenCharacters) {
    // 结 and 线 share their first byte; 😀 and 😁 share three.
    EXPECT_THAT(run({"结束"}, {"线", "结", "果", "结束"}).shown,
                ElementsAre("线", "", "结果", "", ""));
    EXPECT_THAT(run({"😀"}, {"a😁", "b"}).shown, ElementsAre("a😁", "b", ""));
}

TEST(StopStrings, RefusesWhatCannotBeAStopString) {
    EXPECT_THROW(StopStrings({"a", ""}, false), std::invalid_argument);
    const std::string character = "\xE7\xBB\x93";
    for (const std::string& broken :
         {character.substr(1), character.substr(0, 2), "a" + character.substr(0, 1)}) {
        EXPECT_THROW(StopStrings({broken}, false), std::invalid_argument);
    }
    EXPECT_NO_THROW(StopStrings({character, "\xC3\xA9", "\xF0\x9F\x98\x80", "a"}, false));
}

TEST(StopStrings, LongStopStringsCostNoMoreThanTheText) {
    // Looking again at everything that is held back would take 10^10 steps here.
    const std::string stop = std::string(100'000, 'a') + "b";
    StopStrings filter({stop}, false);
    size_t shown = 0;
    for (int i = 0; i < 200'000; ++i) shown += filter.push("a").size();
    EXPECT_EQ(shown, 100'000U);
    filter.push("b");
    EXPECT_TRUE(filter.matched());
}

/// What the contract says, by looking at the whole text after each piece.
Result expected(const std::vector<std::string>& stops, const std::vector<std::string>& pieces,
                bool include) {
    Result result;
    std::string text;
    size_t shown = 0;
    for (const std::string& piece : pieces) {
        result.shown.emplace_back();
        if (!result.match.empty()) continue;
        text += piece;
        size_t begin = text.size();
        for (const std::string& stop : stops) {
            const size_t found = text.find(stop);
            if (found == std::string::npos || found > begin) continue;
            if (found < begin || stop.size() > result.match.size()) result.match = stop;
            begin = found;
        }
        size_t end = text.size();
        if (!result.match.empty()) {
            end = begin + (include ? result.match.size() : 0);
        } else {
            for (const std::string& stop : stops) {
                for (size_t length = 1; length < stop.size() && length <= text.size(); ++length) {
                    const size_t start = text.size() - length;
                    if (text.compare(start, length, stop, 0, length) == 0) {
                        end = std::min(end, start);
                    }
                }
            }
        }
        result.shown.back() = text.substr(shown, end - shown);
        shown = end;
    }
    result.shown.push_back(result.match.empty() ? text.substr(shown) : "");
    return result;
}

bool whole_characters(const std::string& text) {
    size_t missing = 0;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        const bool continuation = (byte & 0xC0U) == 0x80U;
        if (continuation != (missing > 0)) return false;
        if (continuation) {
            --missing;
        } else {
            missing = byte >= 0xF0U ? 3 : byte >= 0xE0U ? 2 : byte >= 0xC0U ? 1 : 0;
        }
    }
    return missing == 0;
}

TEST(StopStrings, AgreesWithSearchingTheWholeText) {
    // Few characters, many of whose bytes agree, make near misses and overlaps common.
    const std::vector<std::string> alphabet{"a", "b", "结", "线", "😀", "😁", "é"};
    std::mt19937 generator(1);
    const auto random = [&](size_t limit) { return generator() % limit; };
    const auto text = [&](size_t shortest, size_t longest, size_t letters) {
        std::string result;
        for (size_t i = shortest + random(longest - shortest + 1); i > 0; --i) {
            result += alphabet[random(letters)];
        }
        return result;
    };
    size_t matches = 0;
    for (int round = 0; round < 20'000; ++round) {
        const size_t letters = 2 + random(alphabet.size() - 1);
        std::vector<std::string> stops(1 + random(3));
        for (auto& stop : stops) stop = text(1, 5, letters);
        std::vector<std::string> pieces(random(12));
        for (auto& piece : pieces) piece = text(0, 3, letters);
        const bool include = random(2) == 0;

        const Result want = expected(stops, pieces, include);
        const Result got = run(stops, pieces, include);
        ASSERT_EQ(got.shown, want.shown) << "round " << round;
        ASSERT_EQ(got.match, want.match) << "round " << round;
        for (const auto& piece : got.shown) ASSERT_TRUE(whole_characters(piece)) << piece;
        matches += want.match.empty() ? 0 : 1;
    }
    EXPECT_GT(matches, 5000U);
    EXPECT_LT(matches, 17'000U);
}

}  // namespace
}  // namespace ovfast
