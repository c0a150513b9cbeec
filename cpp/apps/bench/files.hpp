#pragma once

#include <filesystem>
#include <string>

namespace ovfast::bench {

/// Writes a file as a whole: to a temporary name beside it, then renamed. Throws
/// std::runtime_error.
void write_file(const std::filesystem::path& path, const std::string& content);

/// Makes sure that a file can be made in `folder` ("" is the current one). Throws
/// std::runtime_error which calls the folder `purpose`.
void check_writable(const std::filesystem::path& folder, const std::string& purpose);

/// The same for the folder of a file to be written; does nothing for an empty path.
void check_can_write(const std::filesystem::path& file, const std::string& purpose);

/// Reads a file as a whole. Throws std::runtime_error.
std::string read_file(const std::filesystem::path& path);

}  // namespace ovfast::bench
