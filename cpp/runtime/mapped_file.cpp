#include "runtime/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include "ovfast/error.hpp"

namespace ovfast {

MappedFile::MappedFile(const std::filesystem::path& file) {
    const auto refuse = [&] {
        throw ModelError("'" + file.string() + "' cannot be read: " + std::strerror(errno));
    };
    const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) refuse();
    struct stat status{};
    void* data = MAP_FAILED;
    if (::fstat(descriptor, &status) == 0) {
        size_ = static_cast<size_t>(status.st_size);
        data = size_ == 0 ? nullptr : ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    }
    const int error = errno;
    ::close(descriptor);
    errno = error;
    if (data == MAP_FAILED) refuse();
    data_ = static_cast<const std::byte*>(data);
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedPages::MappedPages(const std::filesystem::path& file) {
    const std::string path = std::filesystem::canonical(file).string();
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        if (line.size() < path.size() ||
            line.compare(line.size() - path.size(), path.size(), path) != 0) {
            continue;
        }
        std::istringstream fields(line);
        uintptr_t begin = 0;
        uintptr_t end = 0;
        char dash = 0;
        std::string permissions;
        fields >> std::hex >> begin >> dash >> end >> permissions;
        // Dropping pages of a writable private mapping would undo what was written to it.
        if (fields && permissions.compare(0, 2, "r-") == 0) ranges_.emplace_back(begin, end);
    }
}

void MappedPages::drop() const {
    for (const auto& [begin, end] : ranges_) {
        // NOLINTNEXTLINE(performance-no-int-to-ptr): /proc gives addresses as numbers
        ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
    }
}

}  // namespace ovfast
