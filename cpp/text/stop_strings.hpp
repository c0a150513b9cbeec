#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "ovfast/export.hpp"

namespace ovfast {

/// Finds stop strings in text that arrives in pieces, and holds back whatever could still become
/// one, so that no part of a stop string is ever printed.
///
/// Costs O(bytes of the piece) for each stop string, however long text and stop strings are. Output
/// is never cut inside a UTF-8 character when the pieces are not.
class OVFAST_API StopStrings {
public:
    /// Throws std::invalid_argument when a stop string is empty or begins or ends inside a UTF-8
    /// character.
    StopStrings(std::vector<std::string> stop_strings, bool include_in_output);

    /// Takes the next piece and returns the text that may be shown. After a match, matched() is
    /// true, the returned text ends at (or, if included, with) the stop string, and further pieces
    /// yield nothing. When several match, the one that begins first wins, then the longest; a
    /// longer one that is still incomplete is not waited for.
    std::string push(const std::string& piece);
    /// The end of generation: what was held back and is no stop string after all.
    std::string finish();

    bool matched() const { return !match_.empty(); }
    /// The stop string that was found; empty if none.
    const std::string& match() const { return match_; }

private:
    /// Knuth, Morris and Pratt's automaton of one stop string.
    struct Automaton {
        explicit Automaton(std::string stop_string);
        /// Takes a byte; true when the stop string ends with it.
        bool step(char byte);

        std::string text;
        /// fallback[i]: the longest proper prefix of text that is a suffix of text[0, i).
        std::vector<size_t> fallback;
        /// How much of the stop string the text read so far ends with.
        size_t state = 0;
    };

    std::vector<Automaton> automata_;
    bool include_;
    std::string held_;
    std::string match_;
};

}  // namespace ovfast
