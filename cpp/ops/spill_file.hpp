#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>

namespace ovfast::ops {

/// Memory for large packed models in a file without a name: its pages leave the process when they
/// are not in use, and come back when they are read.
class SpillFile {
public:
    /// Uses the file system of `directory`.
    explicit SpillFile(std::filesystem::path directory);
    SpillFile(const SpillFile&) = delete;
    SpillFile& operator=(const SpillFile&) = delete;
    ~SpillFile();

    /// Memory that begins at a page, with space in the file behind it; null when there is none.
    std::shared_ptr<void> allocate(size_t bytes);

    /// Takes the pages of [data, data + bytes) out of memory, as far as they are of this file.
    void let_go(const void* data, size_t bytes) const;

private:
    struct Mappings;
    std::shared_ptr<Mappings> mappings_;
    int descriptor_ = -1;
    size_t size_ = 0;
};

}  // namespace ovfast::ops
