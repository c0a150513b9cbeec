#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "openvino/core/model.hpp"
#include "openvino/op/constant.hpp"

namespace ovfast {

/// The bytes that each token stands for, read from the graph of openvino_detokenizer.xml.
///
/// Such a graph looks every token up in a vocabulary, changes each one by itself (bytes for a
/// byte-level alphabet or for "<0xE4>", spaces for "▁"), joins them and, in SentencePiece style,
/// strips a space from the front. Because all but the last is done token by token, the text of a
/// sequence is the concatenation of its tokens' bytes, and knowing these makes streaming exact at
/// a constant cost a token; nothing need be compiled. A graph with any other step is refused.
class TokenTable {
public:
    /// Throws ModelError, naming the step, when the graph is not of that form.
    explicit TokenTable(const ov::Model& detokenizer);

    size_t size() const { return begins_->get_shape()[0]; }

    /// Whether the token is left out when special tokens are skipped.
    bool is_special(int64_t token_id) const;

    /// Appends the bytes of a token, of which a character may be only a part. Throws
    /// std::invalid_argument when the id is outside the vocabulary.
    void append_bytes(int64_t token_id, std::string& bytes) const;

    /// Whether a text loses the space that it begins with.
    bool strips_space() const { return strips_space_; }

private:
    struct Step {
        enum Kind { replace, byte_fallback, byte_level } kind;
        std::string from;  // of replace
        std::string to;
    };

    void read_vocabulary(const ov::Node& vocab_decoder);
    void read_special_tokens(const ov::Node& vocab_decoder);
    void read_regex(const ov::Node& regex, bool joined);
    std::string_view vocabulary_entry(int64_t token_id) const;

    // Constants keep the file mapped, and unlike the graph they need no code of the extension.
    std::shared_ptr<ov::op::v0::Constant> begins_;
    std::shared_ptr<ov::op::v0::Constant> ends_;
    std::shared_ptr<ov::op::v0::Constant> chars_;
    std::vector<int64_t> special_tokens_;  // sorted
    std::vector<Step> steps_;
    bool strips_space_ = false;
};

}  // namespace ovfast
