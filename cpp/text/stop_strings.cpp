#include "text/stop_strings.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace ovfast {
namespace {

bool is_continuation(char byte) {
    return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U;
}

size_t character_length(char first_byte) {
    const auto byte = static_cast<unsigned char>(first_byte);
    if (byte < 0xC0U) return 1;
    if (byte < 0xE0U) return 2;
    return byte < 0xF0U ? 3 : 4;
}

/// Whether the text begins and ends where characters do. A stop string that does occurs in valid
/// UTF-8 only at character boundaries, so cutting there splits no character.
bool whole_characters(const std::string& text) {
    if (is_continuation(text.front())) return false;
    size_t last = text.size() - 1;
    while (is_continuation(text[last])) --last;
    return text.size() - last == character_length(text[last]);
}

}  // namespace

StopStrings::Automaton::Automaton(std::string stop_string)
    : text(std::move(stop_string)), fallback(text.size() + 1, 0) {
    for (size_t length = 1; length < text.size(); ++length) {
        size_t prefix = fallback[length];
        while (prefix > 0 && text[prefix] != text[length]) prefix = fallback[prefix];
        fallback[length + 1] = text[prefix] == text[length] ? prefix + 1 : 0;
    }
}

bool StopStrings::Automaton::step(char byte) {
    while (state > 0 && text[state] != byte) state = fallback[state];
    if (text[state] == byte) ++state;
    return state == text.size();
}

StopStrings::StopStrings(std::vector<std::string> stop_strings, bool include_in_output)
    : include_(include_in_output) {
    for (std::string& stop_string : stop_strings) {
        if (stop_string.empty()) {
            throw std::invalid_argument("a stop string is empty; expected text");
        }
        if (!whole_characters(stop_string)) {
            throw std::invalid_argument(
                "a stop string begins or ends inside a UTF-8 character; expected whole characters");
        }
        automata_.emplace_back(std::move(stop_string));
    }
}

std::string StopStrings::push(const std::string& piece) {
    if (matched()) return {};
    const size_t already_held = held_.size();
    held_ += piece;

    size_t match_begin = held_.size();
    size_t keep = 0;
    for (Automaton& automaton : automata_) {
        bool found = false;
        for (size_t i = already_held; i < held_.size() && !found; ++i) {
            if (!automaton.step(held_[i])) continue;
            found = true;
            const size_t begin = i + 1 - automaton.text.size();
            if (!matched() || begin < match_begin ||
                (begin == match_begin && automaton.text.size() > match_.size())) {
                match_begin = begin;
                match_ = automaton.text;
            }
        }
        keep = std::max(keep, automaton.state);
    }

    std::string shown;
    if (matched()) {
        shown = held_.substr(0, match_begin + (include_ ? match_.size() : 0));
        held_.clear();
    } else {
        shown = held_.substr(0, held_.size() - keep);
        held_.erase(0, held_.size() - keep);
    }
    return shown;
}

std::string StopStrings::finish() {
    return std::exchange(held_, {});
}

}  // namespace ovfast
