#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ovfast::bench {

/// Rows of cells as lines: the first `texts` columns begin on the left, numbers end on the right.
/// Rows may be of different length. No blanks at the ends of lines.
std::string format_table(const std::vector<std::vector<std::string>>& rows, size_t texts = 1);

/// A number in at most `digits` significant digits, but all of those before the point: "0.0123",
/// "12.3", "1234".
std::string significant(double value, int digits = 3);

/// Of seconds, "12.3"; of bytes, "458 MB"; of a share, "12.3 %".
std::string ms(double seconds);
std::string megabytes(uint64_t bytes);
std::string percent(double share, int digits = 3);

/// "+3.2 %", "-0.4 %".
std::string change(double ratio);

}  // namespace ovfast::bench
