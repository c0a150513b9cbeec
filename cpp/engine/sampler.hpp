#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "ovfast/sampling.hpp"

namespace ovfast {

/// Draws the tokens of one sequence. Owns what sampling remembers: token counts for the penalties
/// and the state of the random generator. Not thread-safe; one sequence, one sampler.
class Sampler {
public:
    struct Choice {
        int64_t token_id = 0;
        std::optional<PositionLogprobs> logprobs;
    };

    /// `answer` is the index among `params.n` answers: each draws its own random stream.
    /// `banned_before_minimum` are the ids (end of sequence, stop tokens) that may not come while
    /// fewer than `params.min_new_tokens` tokens were generated.
    Sampler(const SamplingParams& params, const std::vector<int64_t>& prompt_ids,
            std::vector<int64_t> banned_before_minimum, size_t answer = 0);

    /// Chooses the next token from `logits[vocab_size]` and records it. The logits are only read.
    /// Throws ModelError when they hold NaN or +infinity, or nothing finite.
    Choice sample(const float* logits, size_t vocab_size);
};

}  // namespace ovfast
