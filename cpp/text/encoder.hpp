#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "openvino/runtime/core.hpp"

namespace ovfast {

/// The compiled tokenizer: UTF-8 text to token ids.
///
/// What the graph does after tokenizing (truncating, adding special tokens, padding, an attention
/// mask) is cut off. That leaves nothing that could cut a long prompt or pad a short one, and the
/// special tokens, which are constants of the graph, are added here when they are wanted.
class Encoder {
public:
    /// Compiles a tokenizer's graph; `core` knows the extension. Throws ModelError when it is not a
    /// tokenizer of one text.
    Encoder(ov::Core& core, const std::shared_ptr<ov::Model>& whole);

    /// Token ids of valid UTF-8.
    std::vector<int64_t> encode(const std::string& text, bool add_special_tokens) const;

private:
    void append_tokens(const std::string& text, std::vector<int64_t>& token_ids) const;

    std::vector<int64_t> prefix_;  // special tokens before the text ...
    std::vector<int64_t> suffix_;  // ... and after it
    mutable std::mutex mutex_;
    mutable ov::InferRequest request_;  // guarded by mutex_
};

}  // namespace ovfast
