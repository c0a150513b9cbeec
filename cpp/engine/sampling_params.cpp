#include <array>
#include <charconv>
#include <cmath>
#include <stdexcept>
#include <string>

#include "ovfast/sampling.hpp"

namespace ovfast {
namespace {

constexpr int64_t kMaxAnswers = 128;
constexpr int64_t kMaxLogprobs = 20;
constexpr double kMaxAdditivePenalty = 2.0;

std::string to_text(int64_t value) {
    return std::to_string(value);
}

// The shortest text that reads back as the same number: 1.0000000000000002 must not print as 1.
std::string to_text(double value) {
    std::array<char, 32> text;
    const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
    return {text.data(), end};
}

template <typename Value>
void require(bool holds, const std::string& option, Value value, const std::string& expected) {
    if (holds) return;
    throw std::invalid_argument(option + " is " + to_text(value) + "; expected " + expected);
}

void check_lengths(const SamplingParams& p) {
    if (p.max_new_tokens) {
        require(*p.max_new_tokens >= 1, "max_new_tokens", *p.max_new_tokens, "at least 1");
    }
    if (p.max_length) require(*p.max_length >= 1, "max_length", *p.max_length, "at least 1");
    require(p.min_new_tokens >= 0, "min_new_tokens", p.min_new_tokens, "at least 0");
    if (p.max_new_tokens && p.max_length) {
        throw std::invalid_argument("max_new_tokens is " + to_text(*p.max_new_tokens) +
                                    " and max_length is " + to_text(*p.max_length) +
                                    "; expected only one of them");
    }
    if (p.max_new_tokens) {
        require(p.min_new_tokens <= *p.max_new_tokens, "min_new_tokens", p.min_new_tokens,
                "at most max_new_tokens, " + to_text(*p.max_new_tokens));
    }
    if (p.max_length) {
        require(
            p.min_new_tokens < *p.max_length, "min_new_tokens", p.min_new_tokens,
            "less than max_length, " + to_text(*p.max_length) + ", which counts the prompt too");
    }
}

// Comparisons are written so that NaN fails them.
void check_distribution(const SamplingParams& p) {
    require(std::isfinite(p.temperature) && p.temperature >= 0.0, "temperature", p.temperature,
            "a finite number >= 0 (0 is greedy)");
    require(p.top_k >= 0, "top_k", p.top_k, "at least 0 (0 keeps all tokens)");
    require(p.top_p > 0.0 && p.top_p <= 1.0, "top_p", p.top_p,
            "a number in (0, 1] (1 keeps all tokens)");
    require(p.min_p >= 0.0 && p.min_p <= 1.0, "min_p", p.min_p,
            "a number in [0, 1] (0 keeps all tokens)");
    require(p.n >= 1 && p.n <= kMaxAnswers, "n", p.n, "1 to 128");

    if (!p.greedy()) return;
    const char* sampling_only =
        "its default, since temperature is 0 and the choice greedy; set temperature above 0";
    require(p.top_k == 0, "top_k", p.top_k, sampling_only);
    require(p.top_p == 1.0, "top_p", p.top_p, sampling_only);
    require(p.min_p == 0.0, "min_p", p.min_p, sampling_only);
    require(p.n == 1, "n", p.n,
            "1, since temperature is 0 and all answers would be the same; set temperature above 0");
}

void check_penalties(const SamplingParams& p) {
    require(std::isfinite(p.repetition_penalty) && p.repetition_penalty > 0.0, "repetition_penalty",
            p.repetition_penalty, "a finite number > 0 (1 is off)");
    require(std::abs(p.presence_penalty) <= kMaxAdditivePenalty, "presence_penalty",
            p.presence_penalty, "a number in [-2, 2] (0 is off)");
    require(std::abs(p.frequency_penalty) <= kMaxAdditivePenalty, "frequency_penalty",
            p.frequency_penalty, "a number in [-2, 2] (0 is off)");
}

void check_stops(const SamplingParams& p) {
    for (size_t i = 0; i < p.stop_strings.size(); ++i) {
        if (p.stop_strings[i].empty()) {
            throw std::invalid_argument("stop_strings[" + std::to_string(i) +
                                        "] is empty; expected text");
        }
    }
    for (size_t i = 0; i < p.stop_token_ids.size(); ++i) {
        require(p.stop_token_ids[i] >= 0, "stop_token_ids[" + std::to_string(i) + "]",
                p.stop_token_ids[i], "a token id >= 0");
    }
}

}  // namespace

void SamplingParams::validate() const {
    check_lengths(*this);
    check_distribution(*this);
    check_penalties(*this);
    check_stops(*this);
    if (logprobs) {
        require(*logprobs >= 0 && *logprobs <= kMaxLogprobs, "logprobs", *logprobs, "0 to 20");
    }
}

}  // namespace ovfast
