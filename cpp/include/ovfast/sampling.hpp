#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ovfast/export.hpp"

namespace ovfast {

/// How the next token is chosen and when generation ends.
///
/// Order of operations, as in Hugging Face transformers: repetition penalty, frequency and presence
/// penalty, temperature, top-k, top-p, min-p, draw.
struct OVFAST_API SamplingParams {
    /// Tokens to generate at most. Unset: until the context is full. Excludes max_length.
    std::optional<int64_t> max_new_tokens;
    /// Prompt and generated tokens together, at most. Excludes max_new_tokens.
    std::optional<int64_t> max_length;
    /// End-of-sequence and stop tokens are not sampled before this many tokens.
    int64_t min_new_tokens = 0;

    /// 0 is greedy: the most probable token, the lowest id among equals. Otherwise logits are
    /// divided by it.
    double temperature = 0.0;
    /// Keep the k most probable tokens; 0 keeps all.
    int64_t top_k = 0;
    /// Keep the smallest set of most probable tokens whose probabilities sum to at least this, in
    /// (0, 1]; the token that crosses the bound is kept.
    double top_p = 1.0;
    /// Keep tokens at least min_p times as probable as the most probable one, in [0, 1].
    double min_p = 0.0;

    /// Logits of tokens already seen (prompt and output) are divided by it when positive and
    /// multiplied when negative (CTRL, arXiv:1909.05858); > 0, 1 is off.
    double repetition_penalty = 1.0;
    /// Subtracted once from logits of tokens already generated, in [-2, 2].
    double presence_penalty = 0.0;
    /// Subtracted from logits for each time the token was generated, in [-2, 2].
    double frequency_penalty = 0.0;

    /// Same seed, same random numbers, whatever else runs at the time. The logits that they meet
    /// may round differently in a larger batch, unless the model runs in f32. Unset: drawn from the
    /// system.
    std::optional<uint64_t> seed;

    /// Generation ends where one of these appears in the text.
    std::vector<std::string> stop_strings;
    /// The matched stop string is part of the text.
    bool include_stop_string = false;
    /// Generation ends with any of these, besides the model's own end-of-sequence tokens.
    std::vector<int64_t> stop_token_ids;
    /// Go on after the model's end-of-sequence tokens.
    bool ignore_eos = false;

    /// Answers to sample for one prompt, in [1, 128]; the prompt is computed once.
    int64_t n = 1;

    /// Report the log-probability of each generated token and of the k most probable ones, k in
    /// [0, 20]: log-softmax of the model's logits before penalties and temperature. Unset: none.
    std::optional<int64_t> logprobs;

    /// Throws std::invalid_argument that names the option, its value and what is allowed, also for
    /// options that contradict each other (top_p without temperature, n > 1 when greedy, ...).
    void validate() const;

    bool greedy() const { return temperature == 0.0; }
};

/// A token and its log-probability, natural logarithm.
struct TokenLogprob {
    int64_t token_id = 0;
    float logprob = 0.0F;
};

/// Log-probabilities at one generated position.
struct PositionLogprobs {
    TokenLogprob chosen;
    /// The k most probable tokens, most probable first.
    std::vector<TokenLogprob> top;
};

}  // namespace ovfast
