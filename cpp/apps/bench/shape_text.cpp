#include "apps/bench/shape_text.hpp"

#include <stdexcept>

#include "apps/bench/text.hpp"

namespace ovfast::bench {

std::vector<NamedTexts> parse_named_texts(const std::string& text) {
    std::vector<NamedTexts> found;
    size_t at = 0;
    while (at < text.size()) {
        const size_t open = text.find('[', at);
        if (open == std::string::npos) break;
        NamedTexts entry{strip(text.substr(at, open - at)), {}};
        at = open;
        while (at < text.size() && text[at] == '[') {
            const size_t close = text.find(']', at);
            if (close == std::string::npos) {
                throw std::runtime_error("Can't parse input parameter: " + text);
            }
            entry.texts.push_back(text.substr(at + 1, close - at - 1));
            at = close + 1;
        }
        found.push_back(entry);
        if (at < text.size() && text[at] != ',') break;
        ++at;
    }
    if (!text.empty() && (found.empty() || at < text.size())) {
        throw std::runtime_error("Can't parse input parameter: " + text);
    }
    return found;
}

}  // namespace ovfast::bench
