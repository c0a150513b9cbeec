// Encrypting, decrypting, checking and rewrapping directories on disk.

#include <fcntl.h>
#include <sys/stat.h>
#include <tbb/enumerable_thread_specific.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <set>
#include <stdexcept>

#include "crypto/container.hpp"
#include "ovfast/error.hpp"
#include "runtime/descriptor.hpp"
#include "runtime/file_sink.hpp"
#include "runtime/pack_manifest.hpp"

namespace ovfast::crypto {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModelFile = "openvino_model.xml";
constexpr const char* kPackedCache = ".ovfast";

[[noreturn]] void fail(const fs::path& file, int error) {
    throw Error("'" + file.string() + "': " + std::strerror(error));
}

Descriptor create(const fs::path& file, mode_t mode) {
    Descriptor descriptor(
        ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
    if (!descriptor) fail(file, errno);
    return descriptor;
}

void write_at(int descriptor, uint64_t offset, const uint8_t* data, size_t bytes,
              const fs::path& file) {
    while (bytes != 0) {
        const ssize_t wrote = ::pwrite(descriptor, data, bytes, static_cast<off_t>(offset));
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) fail(file, wrote < 0 ? errno : ENOSPC);
        data += wrote;
        offset += static_cast<uint64_t>(wrote);
        bytes -= static_cast<size_t>(wrote);
    }
}

void finish(const Descriptor& descriptor, const fs::path& file) {
    if (::fsync(descriptor.get()) != 0 && errno != EINVAL && errno != EROFS) fail(file, errno);
}

/// A directory that is written under another name and takes its own when it is complete.
class NewDirectory {
public:
    /// `replaceable` tells of a directory that exists whether it is what a new one may stand for.
    NewDirectory(const fs::path& target, bool replace,
                 const std::function<bool(const fs::path&)>& replaceable)
        : target_(fs::absolute(target)) {
        // "DIR/" names DIR.
        if (!target_.has_filename()) target_ = target_.parent_path();
        if (fs::exists(fs::symlink_status(target_)) && !replace) {
            throw std::invalid_argument(
                "'" + target.string() +
                "' exists; it is replaced when that is asked for (--force)");
        }
        if (fs::exists(target_) && !fs::is_directory(target_)) {
            throw std::invalid_argument("'" + target.string() + "' is not a directory");
        }
        if (fs::exists(target_) && !fs::is_empty(target_) && !replaceable(target_)) {
            throw std::invalid_argument("'" + target.string() +
                                        "' holds something else than this: it is not replaced");
        }
        std::error_code error;
        fs::create_directories(target_.parent_path(), error);
        const std::string name = target_.filename().string();
        const std::string number = std::to_string(::getpid());
        partial_ = target_.parent_path() / ("." + name + "." + number + ".partial");
        replaced_ = target_.parent_path() / ("." + name + "." + number + ".replaced");
        fs::remove_all(partial_, error);
        if (::mkdir(partial_.c_str(), 0777) != 0) fail(partial_, errno);
    }
    NewDirectory(const NewDirectory&) = delete;
    NewDirectory& operator=(const NewDirectory&) = delete;
    ~NewDirectory() {
        std::error_code ignored;
        if (!complete_) fs::remove_all(partial_, ignored);
    }

    const fs::path& path() const { return partial_; }
    void complete() {
        sync_directory(partial_);
        std::error_code error;
        const bool existed = fs::exists(target_);
        if (existed) {
            fs::rename(target_, replaced_, error);
            if (error) throw Error("'" + target_.string() + "': " + error.message());
        }
        fs::rename(partial_, target_, error);
        if (error) {
            std::error_code ignored;
            if (existed) fs::rename(replaced_, target_, ignored);
            throw Error("'" + target_.string() + "': " + error.message());
        }
        complete_ = true;
        sync_directory(target_.parent_path());
        if (existed) fs::remove_all(replaced_, error);
    }

private:
    fs::path target_, partial_, replaced_;
    bool complete_ = false;
};

/// Counts bytes over all files, and says how far that is.
class Tally {
public:
    Tally(uint64_t total, const Progress& progress, std::string what)
        : total_(std::max<uint64_t>(total, 1)), progress_(progress), what_(std::move(what)) {}

    void add(uint64_t bytes) {
        done_ += bytes;
        const double share = static_cast<double>(done_) / static_cast<double>(total_);
        if (progress_ && !progress_(std::min(share, 1.0), what_)) {
            throw Error(what_ + " was cancelled");
        }
    }

private:
    uint64_t total_;
    uint64_t done_ = 0;
    const Progress& progress_;
    std::string what_;
};

/// Names of all files below `dir`, sorted bytewise, as the manifest has them.
std::vector<std::string> files_below(const fs::path& dir) {
    std::vector<std::string> names;
    for (auto at = fs::recursive_directory_iterator(dir); at != fs::recursive_directory_iterator();
         ++at) {
        const std::string name = at->path().lexically_relative(dir).generic_string();
        if (at.depth() == 0 && name == kPackedCache) {
            at.disable_recursion_pending();
            continue;
        }
        if (at->is_regular_file()) {
            names.push_back(name);
        } else if (at->is_symlink() || !at->is_directory()) {
            throw ModelError("'" + at->path().string() +
                             "' is neither a file nor a folder: it cannot be encrypted");
        }
    }
    std::sort(names.begin(), names.end());
    return names;
}

uint64_t size_of(const fs::path& file) {
    std::error_code error;
    const uint64_t bytes = fs::file_size(file, error);
    if (error) throw ModelError("'" + file.string() + "' cannot be read: " + error.message());
    return bytes;
}

/// Encrypts one file, as long as the manifest says it is.
void encrypt_file(const fs::path& source, const fs::path& target, const ManifestEntry& entry,
                  const FileHead& head, const SecureBuffer& data_key, Tally& tally) {
    const Descriptor in(::open(source.c_str(), O_RDONLY | O_CLOEXEC));
    if (!in) throw ModelError("'" + source.string() + "' cannot be read: " + std::strerror(errno));
    fs::create_directories(target.parent_path());
    const Descriptor out = create(target, 0666);
    const auto head_bytes = head.serialize();
    write_at(out.get(), 0, head_bytes.data(), head_bytes.size(), target);

    const SecureBuffer key = file_key(data_key, head.model, entry.file.name);
    struct Worker {
        Gcm gcm;
        std::vector<uint8_t> aad;
        SecureBuffer buffer;  // plaintext, encrypted in place; the tag behind it
    };
    const size_t size = std::min<uint64_t>(head.chunk_bytes, entry.file.bytes) + kTagBytes;
    tbb::enumerable_thread_specific<Worker> workers([&] {
        return Worker{Gcm(Gcm::Mode::kEncrypt, key.data()), chunk_aad(head, entry.file),
                      SecureBuffer(size)};
    });
    const auto changed = [&] {
        throw ModelError("'" + source.string() + "' changed while it was encrypted; try again");
    };
    for_each_chunk(
        entry.file.bytes, head.chunk_bytes,
        [&](uint64_t chunk) {
            Worker& worker = workers.local();
            const uint64_t begin = chunk * head.chunk_bytes;
            const auto bytes =
                static_cast<size_t>(std::min<uint64_t>(head.chunk_bytes, entry.file.bytes - begin));
            for (size_t done = 0; done < bytes;) {
                const ssize_t got = ::pread(in.get(), worker.buffer.data() + done, bytes - done,
                                            static_cast<off_t>(begin + done));
                if (got < 0 && errno == EINTR) continue;
                if (got < 0) {
                    throw ModelError("'" + source.string() +
                                     "' cannot be read: " + std::strerror(errno));
                }
                if (got == 0) changed();
                done += static_cast<size_t>(got);
            }
            set_chunk(worker.aad, chunk);
            worker.gcm.begin(chunk_nonce(head.prefix, chunk), worker.aad.data(), worker.aad.size());
            worker.gcm.update(worker.buffer.data(), worker.buffer.data(), bytes);
            worker.gcm.finish(worker.buffer.data() + bytes);
            write_at(out.get(), FileHead::kBytes + begin + chunk * kTagBytes, worker.buffer.data(),
                     bytes + kTagBytes, target);
        },
        [&](uint64_t bytes) { tally.add(bytes); });
    if (size_of(source) != entry.file.bytes) changed();
    finish(out, target);
}

void write_header(const fs::path& file, const Header& header, mode_t mode) {
    const Descriptor out = create(file, mode);
    const std::vector<uint8_t> bytes = header.serialize();
    write_at(out.get(), 0, bytes.data(), bytes.size(), file);
    finish(out, file);
}

void seal_manifest(Header& header, const Manifest& manifest, const SecureBuffer& data_key) {
    const std::vector<uint8_t> plain = manifest.serialize();
    if (plain.size() > kLargestManifest) {
        throw ModelError("the directory has too many files to be encrypted");
    }
    random_bytes(header.manifest_nonce.data(), header.manifest_nonce.size());
    header.manifest.resize(plain.size());
    const std::vector<uint8_t> aad = header.manifest_aad();
    const SecureBuffer key = manifest_key(data_key, header.model);
    Gcm gcm(Gcm::Mode::kEncrypt, key.data());
    gcm.begin(header.manifest_nonce, aad.data(), aad.size());
    gcm.update(plain.data(), header.manifest.data(), plain.size());
    gcm.finish(header.manifest_tag.data());
}

/// Data that no entry of the manifest speaks of.
void refuse_strangers(const Container& container) {
    std::set<fs::path> known;
    for (const ManifestEntry& entry : container.manifest().entries) {
        known.insert(container.file_of(entry));
    }
    for (const auto& item : fs::recursive_directory_iterator(container.dir())) {
        if (item.path().extension() == kFileSuffix && known.count(item.path()) == 0) {
            throw DecryptionError("'" + item.path().string() + "' is no file of this model");
        }
    }
}

}  // namespace

bool is_encrypted(const fs::path& dir) {
    return fs::exists(dir / kHeaderName);
}

Contents encrypt_directory(const fs::path& dir, const fs::path& out_dir, const Key& key,
                           const EncryptOptions& options) {
    if (options.chunk_bytes < kSmallestChunk || options.chunk_bytes > kLargestChunk) {
        throw std::invalid_argument("chunk_bytes is " + std::to_string(options.chunk_bytes) +
                                    ", expected " + std::to_string(kSmallestChunk) + " to " +
                                    std::to_string(kLargestChunk));
    }
    if (!fs::is_directory(dir)) throw ModelError("'" + dir.string() + "' is not a directory");
    if (is_encrypted(dir)) {
        throw std::invalid_argument("'" + dir.string() + "' is encrypted already");
    }
    // Absolute first: a relative path that does not exist would stay relative.
    const std::string inside = fs::weakly_canonical(fs::absolute(out_dir))
                                   .lexically_relative(fs::canonical(dir))
                                   .generic_string();
    if (inside == "." || inside.substr(0, 2) != "..") {
        throw std::invalid_argument("'" + out_dir.string() + "' lies in '" + dir.string() +
                                    "': choose a place beside it");
    }
    // Loading trusts what is authentic: damage must not be sealed.
    if (fs::exists(dir / PackManifest::kName)) {
        const auto files = ModelFiles::folder(dir);
        const PackManifest packed = PackManifest::read(*files);
        packed.verify_frame(*files);
        packed.verify_weights(*files);
    }
    auto [data_key, header] = make_data_key(key);
    Manifest manifest;
    manifest.chunk_bytes = options.chunk_bytes;
    uint64_t total = 0;
    for (const std::string& name : files_below(dir)) {
        if (const auto why = bad_name(name)) {
            throw ModelError("a file in '" + dir.string() + "' has a name that " + *why);
        }
        ManifestEntry entry;
        entry.file.name = name;
        entry.file.role = role_of(name);
        entry.file.bytes = size_of(dir / name);
        entry.file.chunks = chunk_count(entry.file.bytes, options.chunk_bytes);
        if (entry.file.bytes > kLargestFile || entry.file.chunks > UINT32_MAX) {
            throw ModelError("'" + (dir / name).string() + "' is too large for these chunks");
        }
        random_bytes(entry.prefix.data(), entry.prefix.size());
        total += entry.file.bytes;
        manifest.entries.push_back(entry);
    }
    if (manifest.entries.empty()) throw ModelError("'" + dir.string() + "' is empty");
    NewDirectory target(out_dir, options.replace, is_encrypted);
    check_free_space(target.path(), total + total / 1000 + (1 << 20));
    Tally tally(total, options.progress, "encrypting");
    for (const ManifestEntry& entry : manifest.entries) {
        const FileHead head{options.chunk_bytes, header.model, entry.prefix, entry.file.bytes};
        encrypt_file(dir / entry.file.name, target.path() / (entry.file.name + kFileSuffix), entry,
                     head, data_key, tally);
    }
    seal_manifest(header, manifest, data_key);
    write_header(target.path() / kHeaderName, header, 0666);
    target.complete();
    Contents contents = Container(out_dir, key).contents();
    if (fs::exists(dir / kModelFile) && !fs::exists(dir / PackManifest::kName)) {
        contents.notes.emplace_back(
            "the model is not packed, so every load packs it in memory; `ovfast pack DIR -o DIR2` "
            "before encrypting spares that");
    }
    return contents;
}

Contents decrypt_directory(const fs::path& dir, const fs::path& out_dir, const Key& key,
                           bool replace, const Progress& progress) {
    const Container container(dir, key);
    const Contents contents = container.contents();
    NewDirectory target(out_dir, replace, [&](const fs::path& old) {
        const auto& entries = container.manifest().entries;
        return std::any_of(entries.begin(), entries.end(), [&](const ManifestEntry& entry) {
            return fs::exists(old / entry.file.name);
        });
    });
    check_free_space(target.path(), contents.bytes + (1 << 20));
    Tally tally(contents.bytes, progress, "decrypting");
    for (const ManifestEntry& entry : container.manifest().entries) {
        const fs::path file = target.path() / entry.file.name;
        fs::create_directories(file.parent_path());
        const Descriptor out = create(file, 0666);
        container.stream(
            entry,
            [&](uint64_t offset, const uint8_t* data, size_t bytes) {
                write_at(out.get(), offset, data, bytes, file);
            },
            [&](uint64_t bytes) { tally.add(bytes); });
        finish(out, file);
    }
    target.complete();
    return contents;
}

Contents verify_directory(const fs::path& dir, const Key& key, const Progress& progress) {
    const Container container(dir, key);
    const Contents contents = container.contents();
    Tally tally(contents.bytes, progress, "verifying");
    for (const ManifestEntry& entry : container.manifest().entries) {
        container.stream(
            entry, [](uint64_t, const uint8_t*, size_t) {},
            [&](uint64_t bytes) { tally.add(bytes); });
    }
    refuse_strangers(container);
    return contents;
}

Contents list_directory(const fs::path& dir, const Key& key) {
    return Container(dir, key).contents();
}

void rekey(const fs::path& dir, const Key& old_key, const Key& new_key) {
    const Container container(dir, old_key);
    Header header = container.header();
    wrap(header, container.data_key(), new_key);
    const fs::path file = dir / kHeaderName;
    const fs::path partial = dir / ("." + std::string(kHeaderName) + ".partial");
    struct stat status{};
    const mode_t mode = ::stat(file.c_str(), &status) == 0 ? status.st_mode & 0777 : 0666;
    std::error_code error;
    fs::remove(partial, error);  // of a process that was killed
    write_header(partial, header, mode);
    fs::rename(partial, file, error);
    if (error) {
        std::error_code ignored;
        fs::remove(partial, ignored);
        throw Error("'" + file.string() + "': " + error.message());
    }
    sync_directory(dir);
}

}  // namespace ovfast::crypto
