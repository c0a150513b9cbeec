#include "crypto/secret.hpp"

#include <malloc.h>
#include <openssl/crypto.h>
#include <sys/mman.h>

#include <mutex>
#include <new>
#include <utility>

namespace ovfast::crypto {
namespace {

constexpr size_t kPage = 4096;

std::pair<void*, size_t> whole_pages(void* data, size_t bytes) {
    auto begin = reinterpret_cast<uintptr_t>(data);
    const uintptr_t end = (begin + bytes) / kPage * kPage;
    begin = (begin + kPage - 1) / kPage * kPage;
    // NOLINTNEXTLINE(performance-no-int-to-ptr): the caller's own address, rounded
    return {reinterpret_cast<void*>(begin), end > begin ? end - begin : 0};
}

}  // namespace

void wipe(void* data, size_t bytes) {
    if (bytes != 0) OPENSSL_cleanse(data, bytes);
}

void protect(void* data, size_t bytes) {
    const auto [pages, size] = whole_pages(data, bytes);
    if (size == 0) return;
    ::madvise(pages, size, MADV_DONTDUMP);
    ::mlock2(pages, size, MLOCK_ONFAULT);
}

void fault_in(void* data, size_t bytes) {
    const auto [pages, size] = whole_pages(data, bytes);
    if (size != 0) ::madvise(pages, size, MADV_POPULATE_WRITE);
}

SecureBuffer::SecureBuffer(size_t bytes, Use use) {
    if (bytes == 0) return;
    if (bytes > SIZE_MAX - kPage) throw std::bad_alloc();
    const size_t mapped = (bytes + kPage - 1) / kPage * kPage;
    void* pages =
        ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<uint8_t*>(pages);
    size_ = bytes;
    mapped_ = mapped;
    // Older kernels may know none of these; what they protect from is listed in docs/encryption.md.
    ::madvise(pages, mapped, MADV_DONTDUMP);
    if (use == Use::kKey) {
        ::madvise(pages, mapped, MADV_WIPEONFORK);
        locked_ = ::mlock(pages, mapped) == 0;
    } else {
        // No huge pages: in a virtual machine, memory that the host has to find anew for each came
        // at 0.9 GB/s where small pages came at 1.6, and inference does not care.
        // On fault: many threads touch the pages when they decrypt, mlock() would do it in one.
        locked_ = ::mlock2(pages, mapped, MLOCK_ONFAULT) == 0;
    }
}

SecureBuffer::SecureBuffer(SecureBuffer&& other) noexcept {
    *this = std::move(other);
}

SecureBuffer& SecureBuffer::operator=(SecureBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(mapped_, other.mapped_);
    std::swap(locked_, other.locked_);
    return *this;
}

SecureBuffer::~SecureBuffer() {
    if (data_ == nullptr) return;
    wipe(data_, size_);
    ::munmap(data_, mapped_);
}

void wipe_freed_memory() {
    static std::once_flag once;
    std::call_once(once, [] { ::mallopt(M_PERTURB, 0x5a); });
}

}  // namespace ovfast::crypto
