#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ovfast/export.hpp"

namespace ovfast {

/// The file that makes a directory an encrypted one.
inline constexpr const char* kEncryptedHeader = "ovfast.encrypted";

/// The bytes of a file: mapped, or decrypted to memory. Valid as long as a copy of it exists.
struct FileBytes {
    std::shared_ptr<const void> owner;
    const std::byte* data = nullptr;
    size_t size = 0;

    std::string_view text() const { return {reinterpret_cast<const char*>(data), size}; }
};

/// The files of a model directory: a plain folder, or memory that an encrypted one is decrypted to
/// (crypto.hpp). Everything that reads a model to run it does it through this. Thread-safe.
class OVFAST_API ModelFiles {
public:
    virtual ~ModelFiles() = default;

    /// A plain folder. Throws ModelError when it is none, or an encrypted one.
    static std::shared_ptr<ModelFiles> folder(const std::filesystem::path& dir);

    /// The directory on disk.
    virtual const std::filesystem::path& path() const = 0;
    virtual bool encrypted() const = 0;
    virtual bool has(const std::string& name) const = 0;
    /// Plaintext bytes. Throws ModelError when there is no such file.
    virtual uint64_t size(const std::string& name) const = 0;
    /// The whole file. Throws ModelError, DecryptionError. Each call decrypts an encrypted one.
    virtual FileBytes read(const std::string& name) const = 0;
    /// Part of it, into memory of the caller's. Throws std::invalid_argument when it lies outside.
    virtual void read(const std::string& name, uint64_t offset, size_t bytes, void* out) const = 0;
    /// Begins to decrypt a file in the background; the next read() of the whole takes what comes.
    /// Nothing for a folder.
    virtual void prefetch(const std::string& name) = 0;
    /// Forgets the keys of an encrypted directory, whose files cannot be read any more. What was
    /// read stays.
    virtual void close() = 0;
    /// Names of all files, sorted; of a folder, those at its top.
    virtual std::vector<std::string> names() const = 0;
};

}  // namespace ovfast
