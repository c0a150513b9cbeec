#include "engine/answer_writer.hpp"

#include <algorithm>
#include <utility>

namespace ovfast {

AnswerWriter::AnswerWriter(const Tokenizer& tokenizer, const SamplingParams& params,
                           const std::vector<int64_t>& prompt_ids,
                           const std::vector<int64_t>& end_ids, int64_t max_tokens, size_t answer)
    : sampler_(params, prompt_ids, end_ids, answer),
      detokenizer_(tokenizer),
      stop_strings_(params.stop_strings, params.include_stop_string),
      end_ids_(end_ids),
      tokens_left_(max_tokens),
      answer_(answer) {}

Delta AnswerWriter::write(const float* logits, size_t vocabulary) {
    Sampler::Choice choice = sampler_.sample(logits, vocabulary);
    --tokens_left_;

    Delta delta;
    delta.answer = answer_;
    delta.token_ids = {choice.token_id};
    if (choice.logprobs) delta.logprobs = {std::move(*choice.logprobs)};

    const bool ends =
        std::find(end_ids_.begin(), end_ids_.end(), choice.token_id) != end_ids_.end();
    // The token that ends an answer is no part of its text.
    if (!ends) delta.text = stop_strings_.push(detokenizer_.push(choice.token_id));
    if (ends || tokens_left_ <= 0) delta.text += rest_of_text();
    // Text that was held back may complete a stop string, so this is asked last.
    if (ends || stop_strings_.matched()) {
        delta.finish_reason = FinishReason::kStop;
    } else if (tokens_left_ <= 0) {
        delta.finish_reason = FinishReason::kLength;
    }
    return delta;
}

Delta AnswerWriter::cancel() {
    Delta delta;
    delta.answer = answer_;
    delta.text = rest_of_text();
    delta.finish_reason = FinishReason::kCancelled;
    return delta;
}

std::string AnswerWriter::rest_of_text() {
    std::string text = stop_strings_.push(detokenizer_.finish());
    return text + stop_strings_.finish();
}

}  // namespace ovfast
