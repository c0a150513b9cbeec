#include "ops/spill_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>

namespace ovfast::ops {
namespace {

constexpr size_t kPage = 4096;

}  // namespace

/// Outlives the file while memory of it is in use.
struct SpillFile::Mappings {
    std::map<uintptr_t, size_t> sizes;  ///< by address
};

SpillFile::SpillFile(std::filesystem::path directory) : mappings_(std::make_shared<Mappings>()) {
    std::string name = (std::move(directory) / ".spill-XXXXXX").string();
    descriptor_ = ::mkostemp(name.data(), O_CLOEXEC);
    if (descriptor_ >= 0) ::unlink(name.c_str());
}

SpillFile::~SpillFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

std::shared_ptr<void> SpillFile::allocate(size_t bytes) {
    const size_t length = (bytes + kPage - 1) / kPage * kPage;
    // A mapped page that the disk has no room for would kill the process.
    if (descriptor_ < 0 || ::posix_fallocate(descriptor_, static_cast<off_t>(size_),
                                             static_cast<off_t>(length)) != 0) {
        return nullptr;
    }
    void* data = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_,
                        static_cast<off_t>(size_));
    if (data == MAP_FAILED) return nullptr;
    size_ += length;
    const auto address = reinterpret_cast<uintptr_t>(data);
    mappings_->sizes[address] = length;
    return {data, [mappings = mappings_, length](void* memory) {
                mappings->sizes.erase(reinterpret_cast<uintptr_t>(memory));
                ::munmap(memory, length);
            }};
}

void SpillFile::let_go(const void* data, size_t bytes) const {
    const auto first = reinterpret_cast<uintptr_t>(data);
    auto mapping = mappings_->sizes.upper_bound(first);
    if (mapping == mappings_->sizes.begin()) return;
    --mapping;
    const uintptr_t end = std::min(first + bytes, mapping->first + mapping->second);
    const uintptr_t begin = first / kPage * kPage;
    if (end <= begin) return;
    // NOLINTNEXTLINE(performance-no-int-to-ptr): the mapping's own address, rounded
    ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace ovfast::ops
