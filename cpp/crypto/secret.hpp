#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "ovfast/export.hpp"

namespace ovfast::crypto {

/// Overwrites memory, which no optimizer may leave out.
OVFAST_API void wipe(void* data, size_t bytes);

/// Leaves memory of somebody else, as far as it is whole pages, out of core dumps and locks it
/// against swap where the limits allow it.
OVFAST_API void protect(void* data, size_t bytes);

/// Has the kernel provide the whole pages of a range now, in one call: a third less time than one
/// fault a page. Where it cannot (before Linux 5.14) they come as they are touched.
OVFAST_API void fault_in(void* data, size_t bytes);

/// Memory for what must not leave the process: pages of its own, left out of core dumps, locked
/// against swap where the limits allow it (`ulimit -l`), overwritten before they are given back.
class OVFAST_API SecureBuffer {
public:
    enum class Use {
        kKey,   ///< a few bytes; a forked child sees zeros
        kData,  ///< may be gigabytes: pages are locked as they are touched
    };

    SecureBuffer() = default;
    /// Zeros. Throws std::bad_alloc.
    explicit SecureBuffer(size_t bytes, Use use = Use::kData);
    SecureBuffer(SecureBuffer&& other) noexcept;
    SecureBuffer& operator=(SecureBuffer&& other) noexcept;
    ~SecureBuffer();

    uint8_t* data() { return data_; }
    const uint8_t* data() const { return data_; }
    size_t size() const { return size_; }
    /// Whether the pages cannot be swapped out.
    bool locked() const { return locked_; }

private:
    uint8_t* data_ = nullptr;
    size_t size_ = 0;
    size_t mapped_ = 0;
    bool locked_ = false;
};

/// From now on the C library overwrites heap memory that is freed: for code that copies text of a
/// model and knows nothing of secrets. Blocks below 1 KiB may escape, which glibc keeps in caches
/// of its threads. It stays like this: when it is switched off while another thread is in calloc(),
/// glibc may hand that thread memory that is not zero.
OVFAST_API void wipe_freed_memory();

}  // namespace ovfast::crypto
