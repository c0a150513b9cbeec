#include "crypto/key.hpp"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "ovfast/error.hpp"
#include "runtime/descriptor.hpp"

namespace ovfast::crypto {
namespace {

constexpr size_t kHexDigits = 2 * kKeyBytes;
constexpr size_t kMostKeyFile = 4096;
constexpr int kLongestPassphrase = 1024;

std::shared_ptr<Key::Secret> make_secret(size_t bytes, bool passphrase, std::string origin) {
    auto secret = std::make_shared<Key::Secret>();
    secret->bytes = SecureBuffer(bytes, SecureBuffer::Use::kKey);
    secret->passphrase = passphrase;
    secret->origin = std::move(origin);
    return secret;
}

bool is_space(uint8_t byte) {
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/// A key as it stands in a file: digits with white space around them, or raw bytes.
std::shared_ptr<const Key::Secret> decode(const uint8_t* data, size_t bytes, std::string origin,
                                          bool raw_allowed) {
    auto secret = make_secret(kKeyBytes, false, std::move(origin));
    if (raw_allowed && bytes == kKeyBytes) {
        std::memcpy(secret->bytes.data(), data, kKeyBytes);
        return secret;
    }
    while (bytes != 0 && is_space(data[bytes - 1])) --bytes;
    while (bytes != 0 && is_space(*data)) ++data, --bytes;
    bool good = bytes == kHexDigits;
    for (size_t i = 0; good && i < kKeyBytes; ++i) {
        const int high = hex_digit(static_cast<char>(data[2 * i]));
        const int low = hex_digit(static_cast<char>(data[2 * i + 1]));
        good = high >= 0 && low >= 0;
        secret->bytes.data()[i] = static_cast<uint8_t>(high * 16 + low);
    }
    if (!good) {
        const std::string got = bytes == kHexDigits
                                    ? "64 characters that are not all such digits"
                                    : std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes");
        throw std::invalid_argument("the " + secret->origin + " must hold 64 hexadecimal digits" +
                                    (raw_allowed ? " or 32 raw bytes" : "") + ", got " + got);
    }
    return secret;
}

/// To its end, or as much as fits.
size_t read_all(int descriptor, SecureBuffer& content, const std::string& origin) {
    size_t bytes = 0;
    while (bytes < content.size()) {
        const ssize_t got = ::read(descriptor, content.data() + bytes, content.size() - bytes);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) throw Error("the " + origin + " cannot be read: " + std::strerror(errno));
        if (got == 0) break;
        bytes += static_cast<size_t>(got);
    }
    return bytes;
}

std::shared_ptr<const Key::Secret> read_key(int descriptor, const std::string& origin) {
    SecureBuffer content(kMostKeyFile, SecureBuffer::Use::kKey);
    const size_t bytes = read_all(descriptor, content, origin);
    return decode(content.data(), bytes, origin, true);
}

SecureBuffer wrapping_key(const Header& header, const Key& key) {
    const Wrapping& wrapping = header.wrapping;
    const Key::Secret& secret = key.secret();
    SecureBuffer stretched;
    const SecureBuffer* input = &secret.bytes;
    if (wrapping.kdf == Wrapping::Kdf::kScrypt) {
        stretched = SecureBuffer(kKeyBytes, SecureBuffer::Use::kKey);
        scrypt(secret.bytes.data(), secret.bytes.size(), wrapping.salt.data(), wrapping.salt.size(),
               wrapping.cost, stretched.data(), stretched.size());
        input = &stretched;
    }
    SecureBuffer out(kKeyBytes, SecureBuffer::Use::kKey);
    hkdf(input->data(), input->size(), wrapping.salt.data(), wrapping.salt.size(),
         "ovfast 1 wrapping", out.data(), out.size());
    return out;
}

SecureBuffer derived(const SecureBuffer& data_key, const ModelId& model, const std::string& info) {
    SecureBuffer out(kKeyBytes, SecureBuffer::Use::kKey);
    hkdf(data_key.data(), data_key.size(), model.data(), model.size(), info, out.data(),
         out.size());
    return out;
}

}  // namespace

int hex_digit(char digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
    return -1;
}

Key Key::generate() {
    auto secret = make_secret(kKeyBytes, false, "generated key");
    random_bytes(secret->bytes.data(), kKeyBytes);
    return Key(secret);
}

Key Key::from_bytes(const void* data, size_t bytes) {
    if (bytes != kKeyBytes) {
        throw std::invalid_argument("a key has 32 bytes, got " + std::to_string(bytes));
    }
    auto secret = make_secret(kKeyBytes, false, "key of 32 bytes");
    std::memcpy(secret->bytes.data(), data, kKeyBytes);
    return Key(secret);
}

Key Key::from_file(const std::filesystem::path& file) {
    const Descriptor descriptor(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    const std::string origin = "key file '" + file.string() + "'";
    if (!descriptor) throw Error("the " + origin + " cannot be read: " + std::strerror(errno));
    return Key(read_key(descriptor.get(), origin));
}

Key Key::from_env(const std::string& name) {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) {
        throw std::invalid_argument("the environment variable " + name +
                                    ", which should hold the key, is not set");
    }
    return Key(decode(reinterpret_cast<const uint8_t*>(value), std::strlen(value),
                      "environment variable " + name, false));
}

Key Key::from_stdin() {
    return Key(read_key(STDIN_FILENO, "key on standard input"));
}

Key Key::from_passphrase(const void* data, size_t bytes) {
    if (bytes == 0 || bytes >= static_cast<size_t>(kLongestPassphrase)) {
        throw std::invalid_argument("a passphrase has 1 to " +
                                    std::to_string(kLongestPassphrase - 1) + " bytes, got " +
                                    std::to_string(bytes));
    }
    auto secret = make_secret(bytes, true, "passphrase");
    std::memcpy(secret->bytes.data(), data, bytes);
    return Key(secret);
}

Key Key::ask_passphrase(const std::string& prompt, bool twice) {
    SecureBuffer text(kLongestPassphrase, SecureBuffer::Use::kKey);
    const int result =
        EVP_read_pw_string_min(reinterpret_cast<char*>(text.data()), 0, kLongestPassphrase - 1,
                               prompt.c_str(), twice ? 1 : 0);
    openssl_reason();
    if (result != 0) {
        throw Error(result == -2 ? "no passphrase was given"
                                 : "no passphrase was given, or the two were different");
    }
    return from_passphrase(text.data(),
                           ::strnlen(reinterpret_cast<char*>(text.data()), text.size()));
}

void Key::write(const std::filesystem::path& file) const {
    if (is_passphrase()) {
        throw std::invalid_argument("a passphrase is not kept in a key file: remember it");
    }
    const auto fail = [&](int error) {
        throw Error("the key file '" + file.string() + "' cannot be written: " +
                    (error == EEXIST ? "it exists, and a lost key cannot be made again"
                                     : std::strerror(error)));
    };
    Descriptor descriptor(::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!descriptor) fail(errno);
    SecureBuffer text(kHexDigits + 1, SecureBuffer::Use::kKey);
    for (size_t i = 0; i < kKeyBytes; ++i) {
        constexpr const char* digits = "0123456789abcdef";
        const uint8_t byte = secret_->bytes.data()[i];
        text.data()[2 * i] = static_cast<uint8_t>(digits[byte >> 4]);
        text.data()[2 * i + 1] = static_cast<uint8_t>(digits[byte & 15]);
    }
    text.data()[kHexDigits] = '\n';
    const ssize_t wrote = ::write(descriptor.get(), text.data(), text.size());
    int error = wrote < 0 ? errno : ENOSPC;
    if (wrote == static_cast<ssize_t>(text.size())) {
        if (::fsync(descriptor.get()) == 0 || errno == EINVAL) return;
        error = errno;
    }
    ::unlink(file.c_str());
    fail(error);
}

void Key::send(int descriptor) const {
    const SecureBuffer& bytes = secret_->bytes;
    SecureBuffer message(bytes.size() + 1, SecureBuffer::Use::kKey);
    message.data()[0] = secret_->passphrase ? 1 : 0;
    std::memcpy(message.data() + 1, bytes.data(), bytes.size());
    // Both kinds are shorter than what a pipe takes at once.
    if (::write(descriptor, message.data(), message.size()) !=
        static_cast<ssize_t>(message.size())) {
        throw Error("the key cannot be handed to another process");
    }
}

Key Key::receive(int descriptor) {
    SecureBuffer message(kMostKeyFile, SecureBuffer::Use::kKey);
    const size_t bytes = read_all(descriptor, message, "key of another process");
    if (bytes < 2) throw Error("the other process sent no key");
    return message.data()[0] != 0 ? from_passphrase(message.data() + 1, bytes - 1)
                                  : from_bytes(message.data() + 1, bytes - 1);
}

bool Key::is_passphrase() const {
    return secret_->passphrase;
}

const std::string& Key::origin() const {
    return secret_->origin;
}

std::string key_file_warning(const std::filesystem::path& file) {
    struct stat status{};
    if (::stat(file.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return "";
    if ((status.st_mode & 077) == 0) return "";
    char mode[8];
    std::snprintf(mode, sizeof mode, "%04o", static_cast<unsigned>(status.st_mode & 07777));
    return "the key file '" + file.string() + "' can be used by others (mode " + mode +
           "); mend it with: chmod 600";
}

WrappedKey make_data_key(const Key& key) {
    WrappedKey made{SecureBuffer(kKeyBytes, SecureBuffer::Use::kKey), {}};
    random_bytes(made.data_key.data(), kKeyBytes);
    random_bytes(made.header.model.data(), made.header.model.size());
    wrap(made.header, made.data_key, key);
    return made;
}

void wrap(Header& header, const SecureBuffer& data_key, const Key& key) {
    Wrapping& wrapping = header.wrapping;
    wrapping.kdf = key.is_passphrase() ? Wrapping::Kdf::kScrypt : Wrapping::Kdf::kHkdf;
    wrapping.cost = key.is_passphrase() ? ScryptCost{} : ScryptCost{0, 0, 0};
    random_bytes(wrapping.salt.data(), wrapping.salt.size());
    random_bytes(wrapping.nonce.data(), wrapping.nonce.size());
    const SecureBuffer kek = wrapping_key(header, key);
    const std::vector<uint8_t> aad = header.wrapping_aad();
    Gcm gcm(Gcm::Mode::kEncrypt, kek.data());
    gcm.begin(wrapping.nonce, aad.data(), aad.size());
    gcm.update(data_key.data(), wrapping.wrapped.data(), kKeyBytes);
    gcm.finish(wrapping.tag.data());
}

SecureBuffer unwrap(const Header& header, const Key& key) {
    const Wrapping& wrapping = header.wrapping;
    const bool wants_passphrase = wrapping.kdf == Wrapping::Kdf::kScrypt;
    if (wants_passphrase != key.is_passphrase()) {
        throw DecryptionError(wants_passphrase ? "it opens with a passphrase, got a key"
                                               : "it opens with a key, got a passphrase");
    }
    const SecureBuffer kek = wrapping_key(header, key);
    const std::vector<uint8_t> aad = header.wrapping_aad();
    SecureBuffer data_key(kKeyBytes, SecureBuffer::Use::kKey);
    Gcm gcm(Gcm::Mode::kDecrypt, kek.data());
    gcm.begin(wrapping.nonce, aad.data(), aad.size());
    gcm.update(wrapping.wrapped.data(), data_key.data(), kKeyBytes);
    if (!gcm.check(wrapping.tag.data())) {
        throw DecryptionError(wants_passphrase ? "the passphrase is wrong, or it is damaged"
                                               : "the key is wrong, or it is damaged");
    }
    return data_key;
}

SecureBuffer manifest_key(const SecureBuffer& data_key, const ModelId& model) {
    return derived(data_key, model, "ovfast 1 manifest");
}

SecureBuffer file_key(const SecureBuffer& data_key, const ModelId& model, std::string_view name) {
    return derived(data_key, model, "ovfast 1 file " + std::string(name));
}

}  // namespace ovfast::crypto
