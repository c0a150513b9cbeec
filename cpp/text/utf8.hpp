#pragma once

#include <cstddef>
#include <string_view>

namespace ovfast {

/// What the first bytes of a string are.
enum class Utf8Kind {
    character,  ///< one whole character
    truncated,  ///< the beginning of one, cut off by the end of the string
    malformed,  ///< what no character can begin with
};

struct Utf8Step {
    Utf8Kind kind;
    /// Bytes of the character, of the cut-off rest, or of the part that one U+FFFD stands for.
    size_t length;
};

/// Looks at the beginning of `bytes`, which must not be empty. Malformed input is divided the way
/// the Unicode standard (3.9, "substitution of maximal subparts"), Python and Rust divide it.
inline Utf8Step next_utf8(std::string_view bytes) {
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
    const unsigned char lead = byte(0);
    if (lead < 0x80) return {Utf8Kind::character, 1};
    // C0 and C1 would be overlong, F5 and above lie beyond U+10FFFF.
    if (lead < 0xC2 || lead > 0xF4) return {Utf8Kind::malformed, 1};

    const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    // The second byte alone decides on overlong forms, surrogates and U+10FFFF.
    unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    for (size_t i = 1; i < length; ++i) {
        if (i == bytes.size()) return {Utf8Kind::truncated, i};
        if (byte(i) < low || byte(i) > high) return {Utf8Kind::malformed, i};
        low = 0x80;
        high = 0xBF;
    }
    return {Utf8Kind::character, length};
}

/// Length of the longest prefix of `bytes` that is valid UTF-8.
inline size_t valid_utf8_prefix(std::string_view bytes) {
    size_t position = 0;
    while (position < bytes.size()) {
        const Utf8Step step = next_utf8(bytes.substr(position));
        if (step.kind != Utf8Kind::character) break;
        position += step.length;
    }
    return position;
}

}  // namespace ovfast
