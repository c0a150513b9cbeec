#pragma once

#include <filesystem>
#include <string>

namespace ovfast::bench {

/// Reads a file as a whole. Throws std::runtime_error.
std::string read_file(const std::filesystem::path& path);

}  // namespace ovfast::bench
