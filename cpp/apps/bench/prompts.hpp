#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ovfast/text.hpp"

namespace ovfast::bench {

/// English-looking text of `words` words that another seed does not begin alike; same seed, same
/// text.
std::string sample_text(size_t words, uint64_t seed);

/// A prompt of exactly `tokens` tokens of such text, as the tokenizer splits it, with what it puts
/// before a plain prompt. Throws std::invalid_argument for less than one token.
std::vector<int64_t> build_prompt(const Tokenizer& tokenizer, int64_t tokens, uint64_t seed);

/// Prompts of a file, one a line; empty lines do not count. Of a .jsonl file, {"token_ids": [1, 2]}
/// or {"prompt": "text"} ("text" does too), else token ids, separated by blanks or commas. Throws
/// Error naming the file and the line.
std::vector<std::vector<int64_t>> read_prompts(const std::filesystem::path& file,
                                               const Tokenizer& tokenizer);

}  // namespace ovfast::bench
