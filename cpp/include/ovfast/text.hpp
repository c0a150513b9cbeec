#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ovfast/export.hpp"
#include "ovfast/model_files.hpp"

namespace ovfast {

class IncrementalDetokenizer;

/// Text <-> token ids through openvino_tokenizer.xml and openvino_detokenizer.xml of a model
/// directory. Thread-safe.
class OVFAST_API Tokenizer {
public:
    /// `extension` is the path of the openvino_tokenizers library. Throws ModelError when the
    /// directory holds no tokenizer or a detokenizer that cannot be used, std::invalid_argument
    /// when there is no file `extension`. The tokenizer itself is compiled in the background: the
    /// first encode() waits for it, and throws ModelError when it cannot be loaded.
    Tokenizer(const std::filesystem::path& model_dir, const std::filesystem::path& extension);
    /// Of a folder or an encrypted directory (crypto.hpp), which may be closed afterwards.
    Tokenizer(const ModelFiles& files, const std::filesystem::path& extension);
    ~Tokenizer();
    Tokenizer(Tokenizer&&) noexcept;
    Tokenizer& operator=(Tokenizer&&) noexcept;

    /// Token ids of UTF-8 `text`. `add_special_tokens` adds what the model wants around a plain
    /// prompt (BOS); chat templates carry their own. Nothing is truncated or padded. Throws
    /// std::invalid_argument on invalid UTF-8, naming the byte offset.
    std::vector<int64_t> encode(const std::string& text, bool add_special_tokens = true) const;

    /// UTF-8 text of `token_ids`. Bytes that form no character become U+FFFD; spaces before
    /// punctuation are never "cleaned up". Throws std::invalid_argument when an id is outside the
    /// vocabulary.
    std::string decode(const std::vector<int64_t>& token_ids,
                       bool skip_special_tokens = true) const;

    /// How many ids decode() knows; the model's logits may be padded to more.
    size_t vocab_size() const;

    /// The end-of-sequence token that the tokenizer names, if it does. generation_config.json may
    /// name others besides.
    std::optional<int64_t> eos_token_id() const;

private:
    friend class IncrementalDetokenizer;
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace ovfast
