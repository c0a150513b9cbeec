#pragma once

#include <string>
#include <vector>

namespace ovfast::bench {

/// A name with the texts in brackets that follow it: ids[1,64][1,128].
struct NamedTexts {
    std::string name;  // empty: for all inputs
    std::vector<std::string> texts;
};

/// Reads "input1[a][b],input2[c]" or "[a][b]". Throws std::runtime_error.
std::vector<NamedTexts> parse_named_texts(const std::string& text);

}  // namespace ovfast::bench
