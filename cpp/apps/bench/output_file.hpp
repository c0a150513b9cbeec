#pragma once

#include <filesystem>
#include <string>

namespace ovfast::bench {

/// A report that appears whole or not at all. Where it cannot be written is found out when this is
/// made, before anything is measured.
class OutputFile {
public:
    /// Creates a file of a temporary name beside `path`. Throws ovfast::Error naming the path when
    /// the folder is missing or cannot be written, or the path is a directory.
    explicit OutputFile(std::filesystem::path path);
    ~OutputFile();
    OutputFile(OutputFile&& other) noexcept;
    OutputFile(const OutputFile&) = delete;
    OutputFile& operator=(const OutputFile&) = delete;

    /// Writes the text and renames the file. Throws ovfast::Error (disk full).
    void write(const std::string& text);

private:
    std::filesystem::path path_;
    std::filesystem::path temporary_;
};

}  // namespace ovfast::bench
