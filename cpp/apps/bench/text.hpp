#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ovfast::bench {

/// "a,b" -> {"a", "b"}; {""} for an empty text.
std::vector<std::string> split(std::string_view text, char separator);

std::string join(const std::vector<std::string>& parts, std::string_view separator);

/// Without white space at both ends.
std::string strip(std::string_view text);

bool contains(std::string_view text, std::string_view part);

/// "path/Model.XML" -> ".xml".
std::string lower_extension(const std::string& path);

}  // namespace ovfast::bench
