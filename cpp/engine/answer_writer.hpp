#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/sampler.hpp"
#include "ovfast/engine.hpp"
#include "text/detokenizer.hpp"
#include "text/stop_strings.hpp"

namespace ovfast {

/// Writes one answer: from the logits of a step to the next token, its text, and whether it ends.
class AnswerWriter {
public:
    /// `end_ids` are the tokens that end the answer, `max_tokens` is how many it may have.
    AnswerWriter(const Tokenizer& tokenizer, const SamplingParams& params,
                 const std::vector<int64_t>& prompt_ids, const std::vector<int64_t>& end_ids,
                 int64_t max_tokens, size_t answer);

    /// Samples the next token from `logits[vocabulary]`.
    Delta write(const float* logits, size_t vocabulary);
    /// See Sampler::largest_needed().
    size_t largest_needed(std::vector<int64_t>& lowered) const {
        return sampler_.largest_needed(lowered);
    }
    /// Ends the answer early: the text that was held back in case a character or a stop string
    /// went on.
    Delta cancel();

    /// The stop string that ended the answer; empty if none did.
    const std::string& stop_string() const { return stop_strings_.match(); }

private:
    std::string rest_of_text();

    Sampler sampler_;
    IncrementalDetokenizer detokenizer_;
    StopStrings stop_strings_;
    std::vector<int64_t> end_ids_;
    int64_t tokens_left_;
    size_t answer_;
};

}  // namespace ovfast
