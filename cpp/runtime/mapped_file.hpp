#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <utility>
#include <vector>

namespace ovfast {

/// A file mapped for reading, whole.
class MappedFile {
public:
    /// Throws ModelError when it cannot be read. An empty file is no bytes.
    explicit MappedFile(const std::filesystem::path& file);
    ~MappedFile();
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    const std::byte* data() const { return data_; }
    size_t size() const { return size_; }

private:
    const std::byte* data_ = nullptr;
    size_t size_ = 0;
};

/// Parts of a file that somebody in this process has mapped for reading. Pages that were used once
/// are dropped, or they would add to the peak of resident memory; they come back from the page
/// cache if something reads them again.
class MappedPages {
public:
    /// Looks for mappings of `file` as they are now.
    explicit MappedPages(const std::filesystem::path& file);
    void drop() const;

private:
    std::vector<std::pair<uintptr_t, uintptr_t>> ranges_;
};

}  // namespace ovfast
