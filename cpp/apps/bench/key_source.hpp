#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>

#include "ovfast/crypto.hpp"

namespace ovfast::bench {

/// Where the key of an encrypted model comes from: the options of `ovfast run`.
struct KeySource {
    std::string file, env;
    bool from_stdin = false, passphrase = false;

    bool operator==(const KeySource& other) const;
    bool given() const;
    /// Throws std::invalid_argument when several say what the key is; `dashes` are those that the
    /// message puts before the options.
    void check(const std::string& dashes) const;
    /// Reads the key of a model directory; nothing for one that is not encrypted. Warns of a key
    /// file that others can use, and forbids core dumps. Throws DecryptionError without a key,
    /// std::invalid_argument for a key without an encrypted directory, and as crypto::Key.
    std::optional<crypto::Key> read(const std::string& model, const std::string& dashes) const;
};

/// Adds --key-file, --key-env, --key-stdin and --passphrase to a command.
void add_key_options(CLI::App& app, KeySource& source);

/// Of A and B, which are measured in one process: a key that both name alike is read once, and
/// opens those that are encrypted.
struct KeyPair {
    std::optional<crypto::Key> a, b;

    static KeyPair read(const KeySource& a, const std::string& model_a, const KeySource& b,
                        const std::string& model_b, const std::string& dashes);
};

/// The files of a model directory. Throws ModelError, DecryptionError.
std::shared_ptr<ModelFiles> open_files(const std::string& model,
                                       const std::optional<crypto::Key>& key);

}  // namespace ovfast::bench
