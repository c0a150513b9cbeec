#pragma once

#include <string>

namespace ovfast::bench {

/// Text as it may stand in HTML and SVG, in attributes too: & < > " ' escaped, control characters
/// replaced by U+FFFD.
std::string escape_html(const std::string& text);

}  // namespace ovfast::bench
