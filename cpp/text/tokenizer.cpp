#include <exception>
#include <future>
#include <stdexcept>
#include <string>
#include <utility>

#include "openvino/core/except.hpp"
#include "openvino/runtime/core.hpp"
#include "ovfast/error.hpp"
#include "ovfast/text.hpp"
#include "runtime/read_ir.hpp"
#include "text/detokenizer.hpp"
#include "text/encoder.hpp"
#include "text/token_table.hpp"
#include "text/utf8.hpp"

namespace ovfast {
namespace {

constexpr const char* kTokenizer = "openvino_tokenizer.xml";
constexpr const char* kDetokenizer = "openvino_detokenizer.xml";

void require_files(const ModelFiles& files) {
    for (const char* name : {kTokenizer, kDetokenizer}) {
        for (const char* extension : {".xml", ".bin"}) {
            const auto file = std::filesystem::path(name).replace_extension(extension);
            if (!files.has(file.string()))
                throw ModelError("expected the file " + (files.path() / file).string() +
                                 ", got none; export the model again, tokenizer included");
        }
    }
}

/// Runs `load`; whatever it throws becomes a ModelError that names the file.
template <typename Load>
auto load_model(const std::filesystem::path& xml, bool encrypted, Load&& load) {
    try {
        return load();
    } catch (const DecryptionError&) {
        throw;
    } catch (const std::exception& error) {
        throw ModelError("cannot load " + xml.string() +
                         (encrypted ? ", which is encrypted" : std::string(": ") + error.what()));
    }
}

}  // namespace

struct Tokenizer::Impl {
    Impl(const ModelFiles& files, const std::filesystem::path& extension);

    // First, hence destroyed last: it holds the library whose code the models run.
    ov::Core core;
    std::shared_future<std::unique_ptr<const Encoder>> encoder;
    std::shared_ptr<const TokenTable> token_table;
    std::optional<int64_t> eos_token_id;
};

Tokenizer::Impl::Impl(const ModelFiles& files, const std::filesystem::path& extension) {
    require_files(files);
    std::error_code error;
    if (!std::filesystem::is_regular_file(extension, error))
        throw std::invalid_argument("expected the openvino_tokenizers library, got no such file: " +
                                    extension.string());
    try {
        core.add_extension(extension.string());
    } catch (const std::exception& failure) {
        throw Error("cannot load " + extension.string() + ": " + failure.what());
    }
    // Building the merges takes a hundred times longer than reading the detokenizer, and the model
    // itself is loading at the same time.
    const bool encrypted = files.encrypted();
    encoder = std::async(std::launch::async, [this, encrypted, xml = files.path() / kTokenizer,
                                              read = prepare_ir(core, files, kTokenizer)] {
        return load_model(xml, encrypted,
                          [&] { return std::make_unique<const Encoder>(core, read()); });
    });
    token_table = load_model(files.path() / kDetokenizer, encrypted, [&] {
        const std::shared_ptr<ov::Model> detokenizer = read_ir(core, files, kDetokenizer);
        if (detokenizer->has_rt_info("eos_token_id")) {
            eos_token_id = detokenizer->get_rt_info<int64_t>("eos_token_id");
        }
        return std::make_shared<const TokenTable>(*detokenizer);
    });
}

Tokenizer::Tokenizer(const std::filesystem::path& model_dir, const std::filesystem::path& extension)
    : Tokenizer(*ModelFiles::folder(model_dir), extension) {}
Tokenizer::Tokenizer(const ModelFiles& files, const std::filesystem::path& extension)
    : impl_(std::make_unique<Impl>(files, extension)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<int64_t> Tokenizer::encode(const std::string& text, bool add_special_tokens) const {
    const size_t valid = valid_utf8_prefix(text);
    if (valid != text.size())
        throw std::invalid_argument("expected UTF-8, got an invalid sequence at byte " +
                                    std::to_string(valid) + " of " + std::to_string(text.size()));
    const Encoder& encoder = *impl_->encoder.get();
    try {
        return encoder.encode(text, add_special_tokens);
    } catch (const ov::Exception& error) {
        throw ModelError("the tokenizer failed on a text of " + std::to_string(text.size()) +
                         " bytes: " + error.what());
    }
}

std::string Tokenizer::decode(const std::vector<int64_t>& token_ids,
                              bool skip_special_tokens) const {
    IncrementalDetokenizer detokenizer(impl_->token_table, skip_special_tokens);
    std::string text;
    for (const int64_t token_id : token_ids) detokenizer.append(token_id, text);
    detokenizer.append_rest(text);
    return text;
}

size_t Tokenizer::vocab_size() const {
    return impl_->token_table->size();
}

std::optional<int64_t> Tokenizer::eos_token_id() const {
    return impl_->eos_token_id;
}

// Here because only this file knows what a Tokenizer holds.
IncrementalDetokenizer::IncrementalDetokenizer(const Tokenizer& tokenizer)
    : IncrementalDetokenizer(tokenizer.impl_->token_table, true) {}

}  // namespace ovfast
