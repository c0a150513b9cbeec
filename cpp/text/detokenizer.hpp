#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "ovfast/text.hpp"

namespace ovfast {

class TokenTable;

/// Turns a growing list of token ids into text, piece by piece, at O(1) a token: a text is the
/// concatenation of its tokens' bytes, and at most three bytes, those of an unfinished character,
/// are ever held back.
///
/// A piece never ends inside a character, and is valid UTF-8: bytes that can form no character
/// become U+FFFD as soon as that is certain. Pieces, then finish(), concatenate to
/// Tokenizer::decode() of all, which is done by this class as well.
class OVFAST_API IncrementalDetokenizer {
public:
    /// Leaves out special tokens. May outlive the tokenizer.
    explicit IncrementalDetokenizer(const Tokenizer& tokenizer);
    IncrementalDetokenizer(std::shared_ptr<const TokenTable> table, bool skip_special_tokens);

    /// Text that became certain with this token; may be empty. Throws std::invalid_argument when
    /// the id is outside the vocabulary.
    std::string push(int64_t token_id);
    /// What is still held back; U+FFFD for bytes that never became a character. After it, another
    /// text may begin.
    std::string finish();

private:
    friend class Tokenizer;  // whose decode() appends to one string

    void append(int64_t token_id, std::string& text);
    void append_rest(std::string& text);

    std::shared_ptr<const TokenTable> table_;
    bool skip_special_tokens_;
    bool strip_space_;     // if it comes next
    std::string pending_;  // bytes that are not yet text
};

}  // namespace ovfast
