#include "apps/bench/text_table.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace ovfast::bench {
namespace {

// Columns that a terminal uses for UTF-8 text of one column a character.
size_t width(const std::string& text) {
    return static_cast<size_t>(std::count_if(
        text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

std::string print(const char* format, int digits, double value) {
    char text[64];
    std::snprintf(text, sizeof(text), format, digits, value);
    return text;
}

}  // namespace

std::string format_table(const std::vector<std::vector<std::string>>& rows, size_t texts) {
    std::vector<size_t> widths;
    for (const auto& row : rows) {
        widths.resize(std::max(widths.size(), row.size()));
        for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
    }
    std::string result;
    for (const auto& row : rows) {
        std::string line;
        for (size_t i = 0; i < row.size(); ++i) {
            const std::string padding(widths[i] - width(row[i]), ' ');
            if (i > 0) line += "  ";
            line += i < texts ? row[i] + padding : padding + row[i];
        }
        line.erase(line.find_last_not_of(' ') + 1);
        result += line + "\n";
    }
    return result;
}

std::string significant(double value, int digits) {
    if (value == 0.0 || !std::isfinite(value)) return print("%.*f", 0, value);
    const int before = static_cast<int>(std::floor(std::log10(std::fabs(value)))) + 1;
    return print("%.*f", std::clamp(digits - before, 0, 9), value);
}

std::string ms(double seconds) {
    return significant(seconds * 1e3);
}

std::string megabytes(uint64_t bytes) {
    return significant(static_cast<double>(bytes) / 1e6) + " MB";
}

std::string percent(double share, int digits) {
    return significant(share * 100.0, digits) + " %";
}

std::string change(double ratio) {
    return print("%+.*f %%", 1, (ratio - 1.0) * 100.0);
}

}  // namespace ovfast::bench
