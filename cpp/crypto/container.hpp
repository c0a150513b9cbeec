#pragma once

#include <filesystem>
#include <functional>

#include "crypto/key.hpp"

namespace ovfast::crypto {

/// An encrypted directory that was opened: its manifest, and its files in random access.
/// Thread-safe.
class Container {
public:
    /// Throws DecryptionError, ModelError.
    Container(const std::filesystem::path& dir, const Key& key);

    const std::filesystem::path& dir() const { return dir_; }
    const Manifest& manifest() const { return manifest_; }
    const Header& header() const { return header_; }
    const SecureBuffer& data_key() const { return data_key_; }
    Contents contents() const;

    /// Throws ModelError when the manifest lists no such file.
    const ManifestEntry& entry(const std::string& name) const;

    /// The whole file, on all threads. What `out` holds counts only when this returns.
    void read(const ManifestEntry& entry, uint8_t* out) const;
    /// Part of it; only the chunks that hold it are read. Throws std::invalid_argument.
    void read(const ManifestEntry& entry, uint64_t offset, size_t bytes, uint8_t* out) const;

    /// Gives authenticated plaintext chunk by chunk, on all threads and in no order. `done` is told
    /// between batches how many bytes there were, on the calling thread.
    using Sink = std::function<void(uint64_t offset, const uint8_t* data, size_t bytes)>;
    void stream(const ManifestEntry& entry, const Sink& sink,
                const std::function<void(uint64_t bytes)>& done) const;

    /// Where the data of an entry lies.
    std::filesystem::path file_of(const ManifestEntry& entry) const;

private:
    std::filesystem::path dir_;
    Header header_;
    SecureBuffer data_key_;
    Manifest manifest_;
};

/// The bytes of ovfast.encrypted. Throws DecryptionError, ModelError.
Header read_header(const std::filesystem::path& dir);

/// Calls `work(chunk)` for each chunk of a file, on all threads, and `done(bytes)` on this one
/// after every batch of them, so that a long file can be watched and cancelled.
void for_each_chunk(uint64_t bytes, uint32_t chunk_bytes,
                    const std::function<void(uint64_t chunk)>& work,
                    const std::function<void(uint64_t bytes)>& done);

}  // namespace ovfast::crypto
