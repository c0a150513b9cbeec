#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "ovfast/export.hpp"
#include "ovfast/sampling.hpp"

namespace ovfast {

/// Draws the tokens of one sequence. Owns what sampling remembers: token counts for the penalties
/// and the state of the random generator. Not thread-safe; one sequence, one sampler.
///
/// What is drawn is fixed to the last bit of the random number, so that a few lines of NumPy can
/// reproduce it:
/// - Penalties change float32 logits; the arithmetic is double, the result rounded to float32.
/// - The weight of a token is w = exp((logit - largest logit) / temperature), in double.
/// - The order of tokens is descending logit, among equals ascending id.
/// - top-k keeps the first k in that order. top-p then keeps the shortest prefix whose weights sum
///   to at least top_p times the sum of what top-k kept. min-p then keeps what has w >= min_p.
/// - A draw takes one uniform number u and the first token in the order at which the running sum of
///   the kept weights exceeds u times their sum. When nothing is filtered (top_k, top_p and min_p
///   all off, or top_k as large as the vocabulary) the order is ascending id instead.
/// - u = (next() >> 11) * 2^-53 with next() of SplitMix64: state += 0x9E3779B97F4A7C15, then
///   z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9, z = (z ^ z >> 27) * 0x94D049BB133111EB,
///   z ^ z >> 31. With S(x) as the first output of the state x, the state starts at
///   S(S(seed) + answer). Greedy choices take no number, every other choice takes one.
class OVFAST_API Sampler {
public:
    struct Choice {
        int64_t token_id = 0;
        std::optional<PositionLogprobs> logprobs;
    };

    /// `answer` is the index among `params.n` answers: each draws its own random stream.
    /// `banned_before_minimum` are the ids (end of sequence, stop tokens) that may not come while
    /// fewer than `params.min_new_tokens` tokens were generated. Ids beyond the vocabulary are
    /// ignored. Throws std::invalid_argument when an id is negative or params are invalid.
    Sampler(const SamplingParams& params, const std::vector<int64_t>& prompt_ids,
            const std::vector<int64_t>& banned_before_minimum, size_t answer = 0);

    /// Chooses the next token from `logits[vocab_size]` and records it. The logits are only read.
    /// Throws ModelError when they hold NaN or +infinity, or nothing finite that is allowed.
    Choice sample(const float* logits, size_t vocab_size);

    /// How many of the largest logits sample() looks at, not counting those of tokens whose logits
    /// it lowers, whose ids are appended to `lowered`; all logits that are not below the last of
    /// them must be right, others may be -infinity. 0: it looks at all logits.
    size_t largest_needed(std::vector<int64_t>& lowered) const;

private:
    /// A token whose logit is changed before the choice.
    struct Tracked {
        int64_t id;
        int64_t generated;  ///< times that it was generated
        bool in_prompt;
        bool banned;  ///< until min_new_tokens are there
    };

    Tracked& track(int64_t id);
    float adjusted(const Tracked& token, float logit) const;
    void record(int64_t id);
    double next_uniform();

    SamplingParams params_;
    std::vector<Tracked> tracked_;  ///< ascending id
    int64_t generated_ = 0;
    uint64_t random_state_ = 0;
};

}  // namespace ovfast
