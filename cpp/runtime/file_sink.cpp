#include "runtime/file_sink.hpp"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "ovfast/error.hpp"

namespace ovfast {

FileSink::FileSink(std::filesystem::path file, Written written)
    : file_(std::move(file)), written_(std::move(written)) {
    descriptor_ = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail();
}

FileSink::~FileSink() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

void FileSink::close() {
    const int descriptor = std::exchange(descriptor_, -1);
    if (::fsync(descriptor) != 0) {
        const int error = errno;
        ::close(descriptor);
        errno = error;
        fail();
    }
    if (::close(descriptor) != 0) fail();
}

std::streamsize FileSink::xsputn(const char* data, std::streamsize count) {
    constexpr std::streamsize piece = 8 << 20;
    for (std::streamsize done = 0; done < count;) {
        const auto size = static_cast<size_t>(std::min(piece, count - done));
        const ssize_t wrote = ::write(descriptor_, data + done, size);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) fail();
        done += wrote;
        position_ += static_cast<uint64_t>(wrote);
        since_told_ += static_cast<uint64_t>(wrote);
        if (since_told_ >= static_cast<uint64_t>(piece)) {
            since_told_ = 0;
            if (written_) written_(position_);
        }
    }
    return count;
}

FileSink::int_type FileSink::overflow(int_type character) {
    const char byte = traits_type::to_char_type(character);
    xsputn(&byte, 1);
    return character;
}

FileSink::pos_type FileSink::seekoff(off_type offset, std::ios_base::seekdir direction,
                                     std::ios_base::openmode) {
    if (offset != 0 || direction != std::ios_base::cur) return pos_type(off_type(-1));
    return pos_type(static_cast<off_type>(position_));
}

void FileSink::fail() const {
    const int error = errno;
    std::string message = "writing '" + file_.string() + "' failed after " + megabytes(position_) +
                          ": " + std::strerror(error);
    if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
        message += ". Free some space or choose another directory.";
    }
    throw Error(message);
}

std::string megabytes(uint64_t bytes) {
    return std::to_string(bytes / 1'000'000) + " MB";
}

void check_free_space(const std::filesystem::path& directory, uint64_t needed) {
    struct statvfs disk{};
    if (::statvfs(directory.c_str(), &disk) != 0) {
        throw Error("'" + directory.string() + "': " + std::strerror(errno));
    }
    const uint64_t available = uint64_t{disk.f_bavail} * disk.f_frsize;
    if (available < needed) {
        throw Error("not enough disk space in '" + directory.string() + "': the model needs " +
                    megabytes(needed) + ", free are " + megabytes(available));
    }
}

void sync_directory(const std::filesystem::path& directory) {
    const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;
    ::fsync(descriptor);
    ::close(descriptor);
}

}  // namespace ovfast
