#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ovfast/text.hpp"

namespace ovfast {

/// Turns a growing list of token ids into text, piece by piece, at O(1) a token: only a window of
/// the last few tokens is decoded each time, and its already emitted part is cut off.
///
/// A piece never ends inside a character: while the last token leaves bytes of an unfinished UTF-8
/// sequence, text is held back. Pieces, then finish(), concatenate to Tokenizer::decode() of all.
class IncrementalDetokenizer {
public:
    explicit IncrementalDetokenizer(const Tokenizer& tokenizer);

    /// Text that became certain with this token; may be empty.
    std::string push(int64_t token_id);
    /// What is still held back; U+FFFD for bytes that never became a character.
    std::string finish();
};

}  // namespace ovfast
