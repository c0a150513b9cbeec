#include "text/token_table.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string_view>

#include "openvino/core/attribute_visitor.hpp"
#include "openvino/op/slice.hpp"
#include "ovfast/error.hpp"
#include "text/utf8.hpp"

namespace ovfast {
namespace {

using ov::op::v0::Constant;

std::string_view type_of(const ov::Node& node) {
    return node.get_type_info().name;
}

/// The constant behind an input. Older converters wrote strings packed, with an operation that
/// unpacks them, so that folding may be needed.
std::shared_ptr<Constant> constant_input(const ov::Node& node, size_t port,
                                         const ov::element::Type& type) {
    const ov::Output<ov::Node> source = node.input_value(port);
    const auto producer = source.get_node_shared_ptr();
    auto constant = ov::as_type_ptr<Constant>(producer);
    if (!constant) {
        ov::OutputVector folded(producer->get_output_size());
        if (producer->constant_fold(folded, producer->input_values()))
            constant = ov::as_type_ptr<Constant>(folded[source.get_index()].get_node_shared_ptr());
    }
    if (!constant || constant->get_element_type() != type)
        throw ModelError("detokenizer: expected input " + std::to_string(port) + " of " +
                         std::string(type_of(node)) + " to be a constant of type " +
                         type.to_string() + ", got " + std::string(type_of(*producer)) +
                         " of type " + source.get_element_type().to_string());
    return constant;
}

std::string string_input(const ov::Node& node, size_t port) {
    const auto constant = constant_input(node, port, ov::element::u8);
    return {constant->get_data_ptr<char>(), constant->get_byte_size()};
}

/// Reads the skip_tokens attribute, where older converters kept the list.
class SkipTokensVisitor : public ov::AttributeVisitor {
public:
    std::vector<int64_t> skip_tokens;

    using ov::AttributeVisitor::on_adapter;
    void on_adapter(const std::string&, ov::ValueAccessor<void>&) override {}
    void on_adapter(const std::string& name,
                    ov::ValueAccessor<std::vector<int32_t>>& adapter) override {
        if (name == "skip_tokens") skip_tokens.assign(adapter.get().begin(), adapter.get().end());
    }
    void on_adapter(const std::string& name,
                    ov::ValueAccessor<std::vector<int64_t>>& adapter) override {
        if (name == "skip_tokens") skip_tokens = adapter.get();
    }
};

/// GPT-2's alphabet for bytes: those that print stand for themselves, the others for U+0100 and
/// following, in order. Index: the code point; value: the byte, or -1.
const std::array<int16_t, 0x144>& byte_level_alphabet() {
    static const auto alphabet = [] {
        std::array<int16_t, 0x144> bytes{};
        bytes.fill(-1);
        size_t next = 0x100;
        for (int16_t byte = 0; byte < 0x100; ++byte) {
            const bool prints = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
            bytes[prints ? static_cast<size_t>(byte) : next++] = byte;
        }
        return bytes;
    }();
    return alphabet;
}

/// The bytes that `token` spells in the byte-level alphabet. Added tokens ("<｜end｜>") need not be
/// written in it and are plain text then.
std::string from_byte_level(const std::string& token) {
    const auto& alphabet = byte_level_alphabet();
    std::string bytes;
    for (size_t i = 0; i < token.size();) {
        const Utf8Step step = next_utf8(std::string_view(token).substr(i));
        if (step.kind != Utf8Kind::character || step.length > 2) return token;
        const auto byte = [&](size_t k) { return static_cast<unsigned char>(token[i + k]); };
        const size_t code_point =
            step.length == 1 ? byte(0) : (byte(0) & 0x1Fu) << 6 | (byte(1) & 0x3Fu);
        if (code_point >= alphabet.size() || alphabet[code_point] < 0) return token;
        bytes += static_cast<char>(alphabet[code_point]);
        i += step.length;
    }
    return bytes;
}

/// The byte that "<0xE4>" stands for.
std::optional<char> from_byte_token(std::string_view token) {
    if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return std::nullopt;
    const auto digit = [](char c) {
        if (c >= '0' && c <= '9') return c - '0';
        if (c >= 'A' && c <= 'F') return c - 'A' + 10;
        if (c >= 'a' && c <= 'f') return c - 'a' + 10;
        return -1;
    };
    const int high = digit(token[3]);
    const int low = digit(token[4]);
    if (high < 0 || low < 0) return std::nullopt;
    return static_cast<char>(high * 16 + low);
}

void replace_all(std::string& text, const std::string& from, const std::string& to) {
    for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
        text.replace(at, from.size(), to);
}

}  // namespace

TokenTable::TokenTable(const ov::Model& detokenizer) {
    const ov::ResultVector& results = detokenizer.get_results();
    if (results.size() != 1)
        throw ModelError("detokenizer: expected one output, got " + std::to_string(results.size()));

    // From the text back to the vocabulary, along the begins of the strings.
    auto node = results[0]->get_input_node_shared_ptr(0);
    if (type_of(*node) != "StringTensorPack")
        throw ModelError("detokenizer: expected the text to come from StringTensorPack, got " +
                         std::string(type_of(*node)));
    node = node->get_input_node_shared_ptr(0);
    bool joined = true;
    while (type_of(*node) != "VocabDecoder") {
        const std::string_view type = type_of(*node);
        size_t begins_port = 0;
        if (type == "FuzeRagged" && joined) {
            joined = false;
            begins_port = 2;
        } else if (type == "CharsToBytes" && joined) {  // joins as well
            joined = false;
            begins_port = 2;
            steps_.push_back({Step::byte_level, {}, {}});
        } else if (type == "ByteFallback" && !joined) {
            steps_.push_back({Step::byte_fallback, {}, {}});
        } else if (type == "RegexNormalization") {
            read_regex(*node, joined);
        } else if (type != "UTF8Validate") {  // which IncrementalDetokenizer does better
            throw ModelError("detokenizer: step " + std::string(type) +
                             (joined ? " on the joined text" : " on single tokens") +
                             " is not supported; convert the tokenizer from its tokenizer.json");
        }
        node = node->get_input_node_shared_ptr(begins_port);
    }
    if (joined) throw ModelError("detokenizer: nothing joins the tokens");
    std::reverse(steps_.begin(), steps_.end());
    read_vocabulary(*node);
    read_special_tokens(*node);
}

void TokenTable::read_vocabulary(const ov::Node& vocab_decoder) {
    begins_ = constant_input(vocab_decoder, 1, ov::element::i32);
    ends_ = constant_input(vocab_decoder, 2, ov::element::i32);
    chars_ = constant_input(vocab_decoder, 3, ov::element::u8);
    const size_t count = ov::shape_size(begins_->get_shape());
    if (count == 0 || begins_->get_shape().size() != 1 ||
        begins_->get_shape() != ends_->get_shape() ||
        count > static_cast<size_t>(std::numeric_limits<int32_t>::max()))
        throw ModelError("detokenizer: expected begins and ends of a vocabulary, got shapes " +
                         begins_->get_shape().to_string() + " and " +
                         ends_->get_shape().to_string());
    const auto* begins = begins_->get_data_ptr<int32_t>();
    const auto* ends = ends_->get_data_ptr<int32_t>();
    const auto bytes = static_cast<int64_t>(chars_->get_byte_size());
    for (size_t i = 0; i < count; ++i) {
        if (begins[i] < 0 || begins[i] > ends[i] || ends[i] > bytes)
            throw ModelError("detokenizer: token " + std::to_string(i) + " lies at bytes " +
                             std::to_string(begins[i]) + " to " + std::to_string(ends[i]) + " of " +
                             std::to_string(bytes));
    }
}

void TokenTable::read_special_tokens(const ov::Node& vocab_decoder) {
    if (vocab_decoder.get_input_size() > 4) {
        // A Slice turns the list on or off for good; we take the whole and decide at each call.
        auto list = vocab_decoder.get_input_node_shared_ptr(4);
        const bool sliced = ov::is_type<ov::op::v8::Slice>(list);
        const auto constant = sliced ? constant_input(*list, 0, ov::element::i32)
                                     : constant_input(vocab_decoder, 4, ov::element::i32);
        special_tokens_ = constant->cast_vector<int64_t>();
    } else {
        SkipTokensVisitor visitor;
        // Visiting is not const because a visitor may also set attributes.
        const_cast<ov::Node&>(vocab_decoder).visit_attributes(visitor);
        special_tokens_ = std::move(visitor.skip_tokens);
    }
    std::sort(special_tokens_.begin(), special_tokens_.end());
}

void TokenTable::read_regex(const ov::Node& regex, bool joined) {
    const std::string pattern = string_input(regex, 3);
    const std::string replacement = string_input(regex, 4);
    if (joined) {
        if (pattern == "^ " && replacement.empty()) {
            // Once, even if converters write it twice: for Unigram models they add one of their own
            // to that of the tokenizer.
            strips_space_ = true;
            return;
        }
        // "Cleaning up" spaces before punctuation destroys code ("x . y"), so that transformers
        // gave it up for BPE models; we leave it out for all.
        if (pattern.find("[\\\\.\\\\?\\\\!,]") != std::string::npos && replacement == "$1") return;
    } else if (!pattern.empty() && pattern.find_first_of("\\^$.|?*+()[]{}") == std::string::npos &&
               replacement.find_first_of("\\$") == std::string::npos) {
        steps_.push_back({Step::replace, pattern, replacement});
        return;
    }
    throw ModelError("detokenizer: replacing '" + pattern + "' by '" + replacement + "' in " +
                     (joined ? "the joined text" : "single tokens") + " is not supported");
}

bool TokenTable::is_special(int64_t token_id) const {
    return std::binary_search(special_tokens_.begin(), special_tokens_.end(), token_id);
}

std::string_view TokenTable::vocabulary_entry(int64_t token_id) const {
    if (token_id < 0 || static_cast<size_t>(token_id) >= size())
        throw std::invalid_argument("expected token ids from 0 to " + std::to_string(size() - 1) +
                                    ", got " + std::to_string(token_id));
    const int32_t begin = begins_->get_data_ptr<int32_t>()[token_id];
    const int32_t end = ends_->get_data_ptr<int32_t>()[token_id];
    return {chars_->get_data_ptr<char>() + begin, static_cast<size_t>(end - begin)};
}

void TokenTable::append_bytes(int64_t token_id, std::string& bytes) const {
    const std::string_view entry = vocabulary_entry(token_id);
    if (steps_.empty()) {
        bytes.append(entry);
        return;
    }
    std::string token(entry);
    for (const Step& step : steps_) {
        switch (step.kind) {
            case Step::replace:
                replace_all(token, step.from, step.to);
                break;
            case Step::byte_fallback:
                if (const auto byte = from_byte_token(token)) token.assign(1, *byte);
                break;
            case Step::byte_level:
                token = from_byte_level(token);
                break;
        }
    }
    bytes += token;
}

}  // namespace ovfast
