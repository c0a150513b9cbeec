#pragma once

#include <string>
#include <vector>

namespace ovfast {

/// Finds stop strings in text that arrives in pieces, and holds back whatever could still become
/// one, so that no part of a stop string is ever printed.
class StopStrings {
public:
    StopStrings(std::vector<std::string> stop_strings, bool include_in_output);

    /// Takes the next piece and returns the text that may be shown. After a match, matched() is
    /// true, the returned text ends at (or, if included, with) the stop string, and further pieces
    /// yield nothing. When several match, the one that begins first wins, then the longest.
    std::string push(const std::string& piece);
    /// The end of generation: what was held back and is no stop string after all.
    std::string finish();

    bool matched() const;
    /// The stop string that was found; empty if none.
    const std::string& match() const;
};

}  // namespace ovfast
