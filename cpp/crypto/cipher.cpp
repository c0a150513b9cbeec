#include "crypto/cipher.hpp"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include <algorithm>
#include <climits>

#include "ovfast/error.hpp"

namespace ovfast::crypto {
namespace {

void require(int result, const char* what) {
    if (result != 1) throw Error(std::string(what) + " failed: " + openssl_reason());
}

struct FreeKdf {
    void operator()(EVP_KDF* kdf) const { EVP_KDF_free(kdf); }
    void operator()(EVP_KDF_CTX* context) const { EVP_KDF_CTX_free(context); }
};

void derive(const char* algorithm, OSSL_PARAM* params, uint8_t* out, size_t out_bytes) {
    const std::unique_ptr<EVP_KDF, FreeKdf> kdf(EVP_KDF_fetch(nullptr, algorithm, nullptr));
    require(kdf != nullptr, algorithm);
    const std::unique_ptr<EVP_KDF_CTX, FreeKdf> context(EVP_KDF_CTX_new(kdf.get()));
    require(context != nullptr, algorithm);
    require(EVP_KDF_derive(context.get(), out, out_bytes, params), algorithm);
}

OSSL_PARAM octets(const char* name, const void* data, size_t bytes) {
    return OSSL_PARAM_construct_octet_string(name, const_cast<void*>(data), bytes);
}

}  // namespace

void FreeCipher::operator()(EVP_CIPHER_CTX* context) const {
    EVP_CIPHER_CTX_free(context);
}

Gcm::Gcm(Mode mode, const uint8_t* key) : context_(EVP_CIPHER_CTX_new()) {
    require(context_ != nullptr, "AES-256-GCM");
    require(EVP_CipherInit_ex(context_.get(), EVP_aes_256_gcm(), nullptr, key, nullptr,
                              mode == Mode::kEncrypt ? 1 : 0),
            "AES-256-GCM");
}

void Gcm::begin(const Nonce& nonce, const void* aad, size_t aad_bytes) {
    require(EVP_CipherInit_ex(context_.get(), nullptr, nullptr, nullptr, nonce.data(), -1),
            "AES-256-GCM");
    int written = 0;
    require(aad_bytes <= INT_MAX, "AES-256-GCM");
    require(EVP_CipherUpdate(context_.get(), nullptr, &written, static_cast<const uint8_t*>(aad),
                             static_cast<int>(aad_bytes)),
            "AES-256-GCM");
}

void Gcm::update(const uint8_t* in, uint8_t* out, size_t bytes) {
    while (bytes != 0) {
        const size_t piece = std::min<size_t>(bytes, 1 << 30);
        int written = 0;
        require(EVP_CipherUpdate(context_.get(), out, &written, in, static_cast<int>(piece)),
                "AES-256-GCM");
        in += piece;
        out += piece;
        bytes -= piece;
    }
}

void Gcm::finish(uint8_t* tag) {
    int written = 0;
    uint8_t none[kTagBytes];
    require(EVP_CipherFinal_ex(context_.get(), none, &written), "AES-256-GCM");
    require(EVP_CIPHER_CTX_ctrl(context_.get(), EVP_CTRL_AEAD_GET_TAG, kTagBytes, tag),
            "AES-256-GCM");
}

bool Gcm::check(const uint8_t* tag) {
    require(EVP_CIPHER_CTX_ctrl(context_.get(), EVP_CTRL_AEAD_SET_TAG, kTagBytes,
                                const_cast<uint8_t*>(tag)),
            "AES-256-GCM");
    int written = 0;
    uint8_t none[kTagBytes];
    const bool right = EVP_CipherFinal_ex(context_.get(), none, &written) == 1;
    ERR_clear_error();
    return right;
}

void hkdf(const uint8_t* secret, size_t secret_bytes, const void* salt, size_t salt_bytes,
          const std::string& info, uint8_t* out, size_t out_bytes) {
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        octets(OSSL_KDF_PARAM_KEY, secret, secret_bytes),
        octets(OSSL_KDF_PARAM_SALT, salt, salt_bytes),
        octets(OSSL_KDF_PARAM_INFO, info.data(), info.size()),
        OSSL_PARAM_construct_end(),
    };
    derive("HKDF", params, out, out_bytes);
}

void scrypt(const void* passphrase, size_t bytes, const void* salt, size_t salt_bytes,
            const ScryptCost& cost, uint8_t* out, size_t out_bytes) {
    uint64_t n = uint64_t{1} << cost.log2_n;
    uint32_t r = cost.r;
    uint32_t p = cost.p;
    uint64_t most = cost.memory() + (uint64_t{128} * r * p) + (1 << 20);  // and OpenSSL's own
    OSSL_PARAM params[] = {
        octets(OSSL_KDF_PARAM_PASSWORD, passphrase, bytes),
        octets(OSSL_KDF_PARAM_SALT, salt, salt_bytes),
        OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n),
        OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_R, &r),
        OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_P, &p),
        OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &most),
        OSSL_PARAM_construct_end(),
    };
    derive("SCRYPT", params, out, out_bytes);
}

void random_bytes(void* data, size_t bytes) {
    require(bytes <= INT_MAX, "the random generator");
    require(RAND_bytes(static_cast<uint8_t*>(data), static_cast<int>(bytes)),
            "the random generator");
}

std::string openssl_reason() {
    const char* reason = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    return reason == nullptr ? "OpenSSL gives no reason" : reason;
}

}  // namespace ovfast::crypto
