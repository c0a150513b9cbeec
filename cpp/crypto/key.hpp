#pragma once

#include <string>
#include <string_view>

#include "crypto/format.hpp"
#include "crypto/secret.hpp"
#include "ovfast/crypto.hpp"

namespace ovfast::crypto {

struct Key::Secret {
    SecureBuffer bytes;  ///< kKeyBytes, or a passphrase
    bool passphrase = false;
    std::string origin;
};

/// The value of a hexadecimal digit, -1 for something else.
int hex_digit(char digit);

/// A new random data key, and a header that has it wrapped.
struct WrappedKey {
    SecureBuffer data_key;
    Header header;
};
WrappedKey make_data_key(const Key& key);

/// Wraps the header's data key under `key`, with a salt and a nonce of its own.
void wrap(Header& header, const SecureBuffer& data_key, const Key& key);
/// Throws DecryptionError, without the file's name.
SecureBuffer unwrap(const Header& header, const Key& key);

/// The keys of the parts, by HKDF from the data key.
SecureBuffer manifest_key(const SecureBuffer& data_key, const ModelId& model);
SecureBuffer file_key(const SecureBuffer& data_key, const ModelId& model, std::string_view name);

}  // namespace ovfast::crypto
