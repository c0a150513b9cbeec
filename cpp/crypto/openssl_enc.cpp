// What `openssl enc -aes-N-cbc -K HEX -iv HEX` reads and writes: CBC with PKCS#7 padding, without
// header, salt or authentication.

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <stdexcept>

#include "crypto/key.hpp"
#include "ovfast/error.hpp"
#include "ovfast/ops.hpp"
#include "runtime/descriptor.hpp"
#include "runtime/file_sink.hpp"
#include "runtime/read_ir.hpp"

namespace ovfast::crypto {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBlock = 16;
constexpr size_t kPiece = 1 << 20;

struct Named {
    const char* name;
    size_t key_bytes;
    const EVP_CIPHER* (*cipher)();
};
constexpr std::array<Named, 3> kCiphers{{{"aes-128-cbc", 16, EVP_aes_128_cbc},
                                         {"aes-192-cbc", 24, EVP_aes_192_cbc},
                                         {"aes-256-cbc", 32, EVP_aes_256_cbc}}};

SecureBuffer from_hex(const std::string& digits, size_t bytes, const std::string& what) {
    SecureBuffer out(bytes, SecureBuffer::Use::kKey);
    bool good = digits.size() == 2 * bytes;
    for (size_t i = 0; good && i < bytes; ++i) {
        const int high = hex_digit(digits[2 * i]);
        const int low = hex_digit(digits[2 * i + 1]);
        good = high >= 0 && low >= 0;
        out.data()[i] = static_cast<uint8_t>(high * 16 + low);
    }
    if (!good) {
        throw std::invalid_argument("the " + what + " must have " + std::to_string(2 * bytes) +
                                    " hexadecimal digits, got " + std::to_string(digits.size()) +
                                    (digits.size() == 2 * bytes
                                         ? " characters that are not all such digits"
                                         : " characters"));
    }
    return out;
}

using Sink = std::function<void(const uint8_t* data, size_t bytes)>;

}  // namespace

struct OpenSslCipher::Impl {
    const Named* named = nullptr;
    SecureBuffer key;
    SecureBuffer iv;

    /// `sink` gets what comes out, piece by piece; a wrong padding shows after the last.
    void run(const fs::path& in, bool encrypt, const Sink& sink) const {
        const Descriptor descriptor(::open(in.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
        const auto unreadable = [&] {
            throw Error("'" + in.string() + "' cannot be read: " + std::strerror(errno));
        };
        if (!descriptor) unreadable();
        const CipherContext context(EVP_CIPHER_CTX_new());
        const auto require = [&](int result) {
            if (result != 1) throw Error(std::string(named->name) + ": " + openssl_reason());
        };
        require(context != nullptr);
        require(EVP_CipherInit_ex(context.get(), named->cipher(), nullptr, key.data(), iv.data(),
                                  encrypt ? 1 : 0));
        SecureBuffer from(kPiece);
        SecureBuffer to(kPiece + kBlock);
        int written = 0;
        while (true) {
            const ssize_t got = ::read(descriptor.get(), from.data(), from.size());
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) unreadable();
            if (got == 0) break;
            require(EVP_CipherUpdate(context.get(), to.data(), &written, from.data(),
                                     static_cast<int>(got)));
            sink(to.data(), static_cast<size_t>(written));
        }
        if (EVP_CipherFinal_ex(context.get(), to.data(), &written) != 1) {
            ERR_clear_error();
            throw DecryptionError("'" + in.string() +
                                  "' cannot be decrypted: the key or the initialization vector "
                                  "is wrong, or it is damaged");
        }
        sink(to.data(), static_cast<size_t>(written));
    }

    void run(const fs::path& in, const fs::path& out, bool encrypt) const {
        const fs::path partial = out.string() + ".partial";
        try {
            FileSink file(partial, {});
            run(in, encrypt, [&](const uint8_t* data, size_t bytes) {
                file.sputn(reinterpret_cast<const char*>(data),
                           static_cast<std::streamsize>(bytes));
            });
            file.close();
            fs::rename(partial, out);
        } catch (...) {
            std::error_code ignored;
            fs::remove(partial, ignored);
            throw;
        }
    }

    FileBytes read(const fs::path& in) const {
        std::error_code error;
        const uint64_t most = fs::file_size(in, error);
        if (error) throw ModelError("'" + in.string() + "' cannot be read: " + error.message());
        auto buffer = std::make_shared<SecureBuffer>(most);
        size_t size = 0;
        run(in, false, [&](const uint8_t* data, size_t bytes) {
            if (bytes > buffer->size() - size) {
                throw Error("'" + in.string() + "' changed while it was read");
            }
            std::memcpy(buffer->data() + size, data, bytes);
            size += bytes;
        });
        return {buffer, reinterpret_cast<const std::byte*>(buffer->data()), size};
    }
};

bool looks_like_ir(std::string_view text) {
    std::string_view start = text.substr(0, 16);
    if (start.substr(0, 3) == "\xEF\xBB\xBF") start.remove_prefix(3);
    return (start.substr(0, 5) == "<?xml" || start.substr(0, 4) == "<net") &&
           text.find('\0') == std::string_view::npos &&
           text.find("</net>") != std::string_view::npos;
}

OpenSslCipher::OpenSslCipher(const std::string& name, const std::string& key_hex,
                             const std::string& iv_hex) {
    auto impl = std::make_shared<Impl>();
    std::string known;
    for (const Named& one : kCiphers) {
        if (name == one.name) impl->named = &one;
        known += (known.empty() ? "" : ", ") + std::string(one.name);
    }
    if (impl->named == nullptr) {
        throw std::invalid_argument("cipher is '" + name + "', expected one of " + known);
    }
    impl->key = from_hex(key_hex, impl->named->key_bytes, "key of " + name);
    impl->iv = from_hex(iv_hex, kBlock, "initialization vector");
    impl_ = std::move(impl);
}

void OpenSslCipher::encrypt(const fs::path& in, const fs::path& out) const {
    impl_->run(in, out, true);
}

void OpenSslCipher::decrypt(const fs::path& in, const fs::path& out) const {
    impl_->run(in, out, false);
}

FileBytes OpenSslCipher::read(const fs::path& in) const {
    return impl_->read(in);
}

std::shared_ptr<ov::Model> OpenSslCipher::open_model(ov::Core& core, const fs::path& xml,
                                                     const fs::path& bin) const {
    const std::string refused = "'" + xml.string() + "' and '" + bin.string() +
                                "' decrypt to no OpenVINO model: the key or the initialization "
                                "vector is wrong, or they are damaged";
    const FileBytes text = impl_->read(xml);
    if (!looks_like_ir(text.text())) throw DecryptionError(refused);
    const FileBytes weights = impl_->read(bin);
    register_ops(core);
    try {
        return read_ir_from_memory(core, text, weights, refused);
    } catch (const ModelError& error) {
        throw DecryptionError(error.what());
    }
}

}  // namespace ovfast::crypto
