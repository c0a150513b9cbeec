#include "text/detokenizer.hpp"

#include <string_view>
#include <utility>

#include "text/token_table.hpp"
#include "text/utf8.hpp"

namespace ovfast {
namespace {

constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

}  // namespace

IncrementalDetokenizer::IncrementalDetokenizer(std::shared_ptr<const TokenTable> table,
                                               bool skip_special_tokens)
    : table_(std::move(table)),
      skip_special_tokens_(skip_special_tokens),
      strip_space_(table_->strips_space()) {}

std::string IncrementalDetokenizer::push(int64_t token_id) {
    std::string text;
    append(token_id, text);
    return text;
}

std::string IncrementalDetokenizer::finish() {
    std::string text;
    append_rest(text);
    return text;
}

void IncrementalDetokenizer::append(int64_t token_id, std::string& text) {
    if (skip_special_tokens_ && table_->is_special(token_id)) return;
    table_->append_bytes(token_id, pending_);

    std::string_view rest = pending_;
    if (strip_space_ && !rest.empty()) {
        if (rest.front() == ' ') rest.remove_prefix(1);
        strip_space_ = false;
    }
    while (!rest.empty()) {
        const Utf8Step step = next_utf8(rest);
        if (step.kind == Utf8Kind::truncated) break;
        text +=
            step.kind == Utf8Kind::character ? rest.substr(0, step.length) : kReplacementCharacter;
        rest.remove_prefix(step.length);
    }
    pending_.erase(0, pending_.size() - rest.size());
}

void IncrementalDetokenizer::append_rest(std::string& text) {
    if (!pending_.empty()) text += kReplacementCharacter;
    pending_.clear();
    strip_space_ = table_->strips_space();
}

}  // namespace ovfast
