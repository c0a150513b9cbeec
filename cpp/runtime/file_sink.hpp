#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <streambuf>
#include <string>

namespace ovfast {

/// A file behind a std::ostream that throws ovfast::Error on the first write that fails
/// (ov::serialize to a path goes on silently when the disk is full) and tells how far it is.
class FileSink : public std::streambuf {
public:
    using Written = std::function<void(uint64_t bytes)>;

    /// Creates or empties the file. `written` is called now and then while bytes are written.
    FileSink(std::filesystem::path file, Written written);
    FileSink(const FileSink&) = delete;
    FileSink& operator=(const FileSink&) = delete;
    ~FileSink() override;

    /// Brings the file to disk: some file systems report a full one only here.
    void close();

    uint64_t position() const { return position_; }

protected:
    std::streamsize xsputn(const char* data, std::streamsize count) override;
    int_type overflow(int_type character) override;
    /// For tellp(), by which the serializer finds where a constant begins.
    pos_type seekoff(off_type offset, std::ios_base::seekdir direction,
                     std::ios_base::openmode mode) override;

private:
    [[noreturn]] void fail() const;

    std::filesystem::path file_;
    Written written_;
    int descriptor_ = -1;
    uint64_t position_ = 0;
    uint64_t since_told_ = 0;
};

/// "391 MB".
std::string megabytes(uint64_t bytes);

/// Throws ovfast::Error when the file system of `directory` has less than `needed` bytes free.
void check_free_space(const std::filesystem::path& directory, uint64_t needed);

/// Brings a directory's entries to disk, as far as its file system can.
void sync_directory(const std::filesystem::path& directory);

}  // namespace ovfast
