#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ovfast/export.hpp"
#include "ovfast/model_files.hpp"
#include "ovfast/progress.hpp"

namespace ov {
class Core;
class Model;
}  // namespace ov

// Encrypted model directories: every file of a model, in authenticated chunks of AES-256-GCM.
// docs/encryption.md describes the format and what it protects from.
//
// A directory or file that is damaged, of another model or opened with a wrong key throws
// DecryptionError (error.hpp), which names the file and never what is in it.
namespace ovfast::crypto {

/// What opens an encrypted model: 32 random bytes, or a passphrase. Copies share one secret, which
/// lies in locked memory, is left out of core dumps and is overwritten when the last copy goes.
class OVFAST_API Key {
public:
    /// A new key from the operating system's random numbers.
    static Key generate();
    /// Of exactly 32 bytes. Throws std::invalid_argument.
    static Key from_bytes(const void* data, size_t bytes);
    /// Of 64 hexadecimal digits, or 32 raw bytes, in a file. Throws Error when it cannot be read,
    /// std::invalid_argument when it holds something else.
    static Key from_file(const std::filesystem::path& file);
    /// Of 64 hexadecimal digits in an environment variable, which others can see in /proc. Throws
    /// std::invalid_argument.
    static Key from_env(const std::string& name);
    /// As from_file(), from standard input to its end.
    static Key from_stdin();
    /// Any text that is not empty. Deriving the key (scrypt) takes some tenths of a second and
    /// 32 MiB.
    static Key from_passphrase(const void* data, size_t bytes);
    /// Asks for a passphrase on the terminal, without echo, or reads a line from standard input
    /// where there is none. `twice`: again, to be sure. Throws Error when there is no answer.
    static Key ask_passphrase(const std::string& prompt, bool twice);

    /// Writes 64 hexadecimal digits to a new file that only its owner can read. Throws
    /// std::invalid_argument for a passphrase, Error when the file exists or cannot be written.
    void write(const std::filesystem::path& file) const;

    /// Hands the key to another process through a pipe, which is not closed.
    void send(int descriptor) const;
    /// Takes what send() wrote, to the end of the pipe. Throws Error.
    static Key receive(int descriptor);

    bool is_passphrase() const;
    /// Where it came from, "key file 'model.key'": never what it is.
    const std::string& origin() const;

    struct Secret;
    const Secret& secret() const { return *secret_; }

private:
    explicit Key(std::shared_ptr<const Secret> secret) : secret_(std::move(secret)) {}
    std::shared_ptr<const Secret> secret_;
};

/// Who may read a key file besides its owner, a sentence; empty when nobody may.
OVFAST_API std::string key_file_warning(const std::filesystem::path& file);

/// What a file is to a model. Stored in the format: never renumber.
enum class Role : uint8_t {
    kOther = 0,
    kTopology = 1,   ///< *.xml
    kWeights = 2,    ///< *.bin
    kTokenizer = 3,  ///< tokenizer and detokenizer, vocabularies
    kConfig = 4,     ///< *.json
    kTemplate = 5,   ///< *.jinja
    kAdapter = 6,    ///< *.safetensors
    kKernel = 7,     ///< *.cl
};
OVFAST_API const char* to_string(Role role);

struct FileEntry {
    std::string name;  ///< within the directory, with '/' between folders
    Role role = Role::kOther;
    uint64_t bytes = 0;  ///< of plaintext
    uint64_t chunks = 0;
};

/// What an encrypted directory holds.
struct Contents {
    std::vector<FileEntry> files;  ///< sorted by name
    uint64_t bytes = 0;            ///< of plaintext, all files
    uint32_t chunk_bytes = 0;
    bool passphrase = false;         ///< wrapped by a passphrase, not by a key
    std::vector<std::string> notes;  ///< what a person should know, a sentence each
};

struct OVFAST_API EncryptOptions {
    /// Plaintext of a chunk, from 4 KiB to 64 MiB.
    uint32_t chunk_bytes = 1 << 20;
    /// Replace an encrypted directory that lies at the target.
    bool replace = false;
    /// Told while files are written; false cancels.
    Progress progress;
};

/// Whether a directory holds an encrypted model, damaged or not.
OVFAST_API bool is_encrypted(const std::filesystem::path& dir);

/// Encrypts every file of `dir`, subfolders included, into the new directory `out_dir`, which
/// appears whole or not at all. Left out is what loading wrote (.ovfast). Memory does not grow with
/// the size of the files. Throws ModelError, std::invalid_argument, Error.
OVFAST_API Contents encrypt_directory(const std::filesystem::path& dir,
                                      const std::filesystem::path& out_dir, const Key& key,
                                      const EncryptOptions& options = {});

/// The opposite. `replace`: a directory that lies at the target.
OVFAST_API Contents decrypt_directory(const std::filesystem::path& dir,
                                      const std::filesystem::path& out_dir, const Key& key,
                                      bool replace = false, const Progress& progress = {});

/// Decrypts everything, keeps nothing.
OVFAST_API Contents verify_directory(const std::filesystem::path& dir, const Key& key,
                                     const Progress& progress = {});

/// What there is, from the authenticated manifest alone.
OVFAST_API Contents list_directory(const std::filesystem::path& dir, const Key& key);

/// Wraps the model's data key anew. Files with data stay as they are: whoever had the old key and
/// a copy of the old header can still read them.
OVFAST_API void rekey(const std::filesystem::path& dir, const Key& old_key, const Key& new_key);

/// The files of an encrypted directory, decrypted to memory when they are asked for. Keys are
/// wiped when it is closed or destroyed.
OVFAST_API std::shared_ptr<ModelFiles> open_directory(const std::filesystem::path& dir,
                                                      const Key& key);

/// Reads one IR of an encrypted directory for plain OpenVINO: decrypted on all threads into the
/// memory that the model's constants share, which is wiped when the last of them goes. Compile it
/// without a cache_dir: the cache would hold the weights in clear. Registers ovfast's operations
/// with `core` when the model uses them.
OVFAST_API std::shared_ptr<ov::Model> open_model(ov::Core& core, const std::filesystem::path& dir,
                                                 const Key& key,
                                                 const std::string& xml = "openvino_model.xml");

// Compatibility with `openssl enc -aes-N-cbc -K HEX -iv HEX`. It authenticates nothing: a damaged
// or exchanged file decrypts to something else, without an error.

/// Whether bytes are the text of an IR, as far as a look at it tells: what a wrong key made of one
/// must not reach a parser.
OVFAST_API bool looks_like_ir(std::string_view text);

/// Key and initialization vector of a CBC file.
class OVFAST_API OpenSslCipher {
public:
    /// `name` is "aes-128-cbc", "aes-192-cbc" or "aes-256-cbc"; exactly 32, 48 or 64 hexadecimal
    /// digits of key, 32 of the vector. Throws std::invalid_argument, which tells lengths only.
    OpenSslCipher(const std::string& name, const std::string& key_hex, const std::string& iv_hex);

    /// The bytes that `openssl enc -e` writes, or, with `decrypt`, `openssl enc -d`. The target
    /// appears whole or not at all. Throws Error, DecryptionError (padding that cannot be).
    void encrypt(const std::filesystem::path& in, const std::filesystem::path& out) const;
    void decrypt(const std::filesystem::path& in, const std::filesystem::path& out) const;

    /// A file in memory. Throws as decrypt().
    FileBytes read(const std::filesystem::path& in) const;

    /// Reads an IR from two such files. Throws DecryptionError also when what comes out is no IR,
    /// as with a wrong key whose padding happens to be valid.
    std::shared_ptr<ov::Model> open_model(ov::Core& core, const std::filesystem::path& xml,
                                          const std::filesystem::path& bin) const;

    struct Impl;

private:
    std::shared_ptr<const Impl> impl_;
};

}  // namespace ovfast::crypto
