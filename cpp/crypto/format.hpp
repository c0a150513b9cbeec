#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "crypto/cipher.hpp"
#include "ovfast/crypto.hpp"

// The bytes of an encrypted directory; docs/encryption.md draws them. Everything that is read here
// may come from an attacker: lengths are compared with what is there before anything is allocated.
// All integers are little-endian, but the counter in a nonce.

namespace ovfast::crypto {

constexpr const char* kHeaderName = kEncryptedHeader;
constexpr const char* kFileSuffix = ".enc";
constexpr uint32_t kFormatVersion = 1;

constexpr uint32_t kSmallestChunk = 4 << 10;
constexpr uint32_t kLargestChunk = 64 << 20;
constexpr uint64_t kLargestManifest = 16 << 20;
constexpr uint64_t kLargestFile = uint64_t{1} << 48;
constexpr size_t kLongestName = 4096;
/// What a passphrase may make us spend: OpenSSL's scrypt takes 128 * N * r bytes.
constexpr uint64_t kMostScryptMemory = 256 << 20;
constexpr uint8_t kMostScryptRounds = 16;

using ModelId = std::array<uint8_t, 16>;
using Salt = std::array<uint8_t, 16>;
using Prefix = std::array<uint8_t, 8>;
using Tag = std::array<uint8_t, kTagBytes>;

/// The data key under a user's key.
struct Wrapping {
    enum class Kdf : uint8_t { kHkdf = 0, kScrypt = 1 };

    Kdf kdf = Kdf::kHkdf;
    ScryptCost cost{0, 0, 0};  ///< zeros without a passphrase
    Salt salt{};
    Nonce nonce{};
    std::array<uint8_t, kKeyBytes> wrapped{};
    Tag tag{};
};

/// ovfast.encrypted, before anything is decrypted.
struct Header {
    ModelId model{};
    Wrapping wrapping;
    Nonce manifest_nonce{};
    std::vector<uint8_t> manifest;  ///< ciphertext
    Tag manifest_tag{};

    /// Throws DecryptionError, without the file's name: `why` of the caller's message.
    static Header parse(std::string_view bytes);
    std::vector<uint8_t> serialize() const;

    /// What authenticates the wrapped key: format, model and how the key is derived.
    std::vector<uint8_t> wrapping_aad() const;
    /// What authenticates the manifest: format, model and the manifest's length.
    std::vector<uint8_t> manifest_aad() const;
};

struct ManifestEntry {
    FileEntry file;
    Prefix prefix{};  ///< of the nonces of its chunks
};

struct Manifest {
    uint32_t chunk_bytes = 0;
    std::vector<ManifestEntry> entries;  ///< sorted by name

    static Manifest parse(const uint8_t* data, size_t bytes);
    std::vector<uint8_t> serialize() const;
    const ManifestEntry* find(std::string_view name) const;
};

/// The head of a file with data.
struct FileHead {
    static constexpr size_t kBytes = 48;

    uint32_t chunk_bytes = 0;
    ModelId model{};
    Prefix prefix{};
    uint64_t bytes = 0;

    std::array<uint8_t, kBytes> serialize() const;
    /// Why `bytes`, kBytes of them, are not this head; nothing when they are.
    std::optional<std::string> mismatch(const uint8_t* bytes) const;
};

/// Of a file; one for an empty file, so that it is authenticated, too.
uint64_t chunk_count(uint64_t bytes, uint32_t chunk_bytes);
/// Of a file on disk.
uint64_t encrypted_bytes(uint64_t bytes, uint32_t chunk_bytes);
Nonce chunk_nonce(const Prefix& prefix, uint64_t chunk);
/// Head, role, chunk, chunks, name.
std::vector<uint8_t> chunk_aad(const FileHead& head, const FileEntry& file);
void set_chunk(std::vector<uint8_t>& aad, uint64_t chunk);

Role role_of(std::string_view name);
/// Why a name must not become a path; nothing for a good one.
std::optional<std::string> bad_name(std::string_view name);

}  // namespace ovfast::crypto
