#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "crypto/secret.hpp"

// OpenSSL's EVP, as far as the container needs it. What OpenSSL refuses throws ovfast::Error.

using EVP_CIPHER_CTX = struct evp_cipher_ctx_st;

namespace ovfast::crypto {

constexpr size_t kKeyBytes = 32;
constexpr size_t kNonceBytes = 12;
constexpr size_t kTagBytes = 16;

using Nonce = std::array<uint8_t, kNonceBytes>;

struct FreeCipher {
    void operator()(EVP_CIPHER_CTX* context) const;  // overwrites the expanded key
};
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, FreeCipher>;

/// AES-256-GCM under one key; a message is begun, fed in pieces and ended. For one thread.
class Gcm {
public:
    enum class Mode { kEncrypt, kDecrypt };

    /// `key` has kKeyBytes.
    Gcm(Mode mode, const uint8_t* key);

    /// The next message. A nonce must never come twice under one key when encrypting.
    void begin(const Nonce& nonce, const void* aad, size_t aad_bytes);
    /// `in` and `out` have `bytes` each, and may be the same.
    void update(const uint8_t* in, uint8_t* out, size_t bytes);
    /// Writes kTagBytes.
    void finish(uint8_t* tag);
    /// Whether `tag` is right; only then may the plaintext be looked at.
    [[nodiscard]] bool check(const uint8_t* tag);

private:
    CipherContext context_;
};

/// HKDF with SHA-256 (RFC 5869).
void hkdf(const uint8_t* secret, size_t secret_bytes, const void* salt, size_t salt_bytes,
          const std::string& info, uint8_t* out, size_t out_bytes);

struct ScryptCost {
    uint8_t log2_n = 15;
    uint8_t r = 8;
    uint8_t p = 3;

    /// 128 * N * r.
    uint64_t memory() const { return (uint64_t{128} << log2_n) * r; }
};

/// scrypt (RFC 7914).
void scrypt(const void* passphrase, size_t bytes, const void* salt, size_t salt_bytes,
            const ScryptCost& cost, uint8_t* out, size_t out_bytes);

/// From the generator of the operating system, by way of OpenSSL.
void random_bytes(void* data, size_t bytes);

/// The newest reason that OpenSSL gives; takes it off its queue.
std::string openssl_reason();

}  // namespace ovfast::crypto
