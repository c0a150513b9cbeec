#include "crypto/container.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <tbb/enumerable_thread_specific.h>
#include <tbb/info.h>
#include <tbb/parallel_for.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "ovfast/error.hpp"
#include "runtime/descriptor.hpp"

namespace ovfast::crypto {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPiece = 128 << 10;  // that is read, and decrypted while in the L2 cache
constexpr size_t kBatchChunks = 8;    // of each thread, between two looks at the progress

[[noreturn]] void refuse(const fs::path& file, const std::string& why) {
    throw DecryptionError("'" + file.string() + "' cannot be decrypted: " + why);
}

/// Opens what must be a regular file: a pipe would block, a device never end.
Descriptor open_regular(const fs::path& file, uint64_t& bytes) {
    Descriptor descriptor(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat status{};
    if (!descriptor || ::fstat(descriptor.get(), &status) != 0) {
        refuse(file, std::strerror(errno));
    }
    if (!S_ISREG(status.st_mode)) refuse(file, "it is no regular file");
    bytes = static_cast<uint64_t>(status.st_size);
    return descriptor;
}

void read_all(int descriptor, uint64_t offset, size_t bytes, uint8_t* out, const fs::path& file) {
    while (bytes != 0) {
        const ssize_t got = ::pread(descriptor, out, bytes, static_cast<off_t>(offset));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) refuse(file, std::strerror(errno));
        if (got == 0) refuse(file, "it is truncated");
        out += got;
        offset += static_cast<uint64_t>(got);
        bytes -= static_cast<size_t>(got);
    }
}

/// A file with data, its head checked. Shared by the threads that decrypt it.
struct OpenFile {
    OpenFile(const Container& container, const ManifestEntry& entry)
        : path(container.file_of(entry)),
          file(entry.file),
          head{container.manifest().chunk_bytes, container.header().model, entry.prefix,
               entry.file.bytes},
          key(file_key(container.data_key(), head.model, file.name)) {
        uint64_t present = 0;
        descriptor = open_regular(path, present);
        const uint64_t expected = encrypted_bytes(file.bytes, head.chunk_bytes);
        if (present != expected) {
            refuse(path, "expected " + std::to_string(expected) + " bytes, got " +
                             std::to_string(present));
        }
        uint8_t found[FileHead::kBytes];
        read_all(descriptor.get(), 0, sizeof found, found, path);
        if (const auto why = head.mismatch(found)) refuse(path, *why);
    }

    uint64_t begin_of(uint64_t chunk) const { return chunk * head.chunk_bytes; }
    size_t bytes_of(uint64_t chunk) const {
        return static_cast<size_t>(
            std::min<uint64_t>(head.chunk_bytes, file.bytes - begin_of(chunk)));
    }

    fs::path path;
    const FileEntry& file;
    FileHead head;
    SecureBuffer key;
    Descriptor descriptor;
};

/// What a thread needs to decrypt chunks of a file.
class ChunkReader {
public:
    explicit ChunkReader(const OpenFile& file)
        : file_(file),
          gcm_(Gcm::Mode::kDecrypt, file.key.data()),
          aad_(chunk_aad(file.head, file.file)) {}

    /// Writes bytes_of(chunk): ciphertext, decrypted in place while it is in the L2 cache. That
    /// costs less than a buffer beside it; and what was authenticated is what is decrypted, even if
    /// the file changes meanwhile. When the chunk is not what it should be, `out` is wiped.
    void read(uint64_t chunk, uint8_t* out) {
        const size_t bytes = file_.bytes_of(chunk);
        const uint64_t begin = FileHead::kBytes + file_.begin_of(chunk) + chunk * kTagBytes;
        const int descriptor = file_.descriptor.get();
        set_chunk(aad_, chunk);
        gcm_.begin(chunk_nonce(file_.head.prefix, chunk), aad_.data(), aad_.size());
        try {
            for (size_t done = 0; done < bytes; done += kPiece) {
                const size_t size = std::min(kPiece, bytes - done);
                fault_in(out + done, size);
                read_all(descriptor, begin + done, size, out + done, file_.path);
                gcm_.update(out + done, out + done, size);
            }
            uint8_t tag[kTagBytes];
            read_all(descriptor, begin + bytes, kTagBytes, tag, file_.path);
            if (!gcm_.check(tag)) {
                refuse(file_.path, "chunk " + std::to_string(chunk + 1) + " of " +
                                       std::to_string(file_.file.chunks) +
                                       " is damaged, or not in its place");
            }
        } catch (...) {
            wipe(out, bytes);
            throw;
        }
    }

private:
    const OpenFile& file_;
    Gcm gcm_;
    std::vector<uint8_t> aad_;
};

using Readers = tbb::enumerable_thread_specific<ChunkReader>;

Readers readers_of(const OpenFile& file) {
    return Readers([&file] { return ChunkReader(file); });
}

}  // namespace

Header read_header(const fs::path& dir) {
    if (!fs::is_directory(dir)) throw ModelError("'" + dir.string() + "' is not a directory");
    const fs::path file = dir / kHeaderName;
    if (!fs::exists(file)) {
        throw ModelError("'" + dir.string() + "' is no encrypted model: it has no " + kHeaderName);
    }
    uint64_t bytes = 0;
    const Descriptor descriptor = open_regular(file, bytes);
    if (bytes > kLargestManifest + 1024) refuse(file, "it is larger than a header can be");
    std::string content(bytes, '\0');
    read_all(descriptor.get(), 0, bytes, reinterpret_cast<uint8_t*>(content.data()), file);
    try {
        return Header::parse(content);
    } catch (const DecryptionError& error) {
        refuse(file, error.what());
    }
}

Container::Container(const fs::path& dir, const Key& key) : dir_(dir), header_(read_header(dir)) {
    const fs::path file = dir / kHeaderName;
    try {
        data_key_ = unwrap(header_, key);
        const SecureBuffer mkey = manifest_key(data_key_, header_.model);
        const std::vector<uint8_t> aad = header_.manifest_aad();
        std::vector<uint8_t> plain(header_.manifest.size());
        Gcm gcm(Gcm::Mode::kDecrypt, mkey.data());
        gcm.begin(header_.manifest_nonce, aad.data(), aad.size());
        gcm.update(header_.manifest.data(), plain.data(), plain.size());
        if (!gcm.check(header_.manifest_tag.data())) {
            throw DecryptionError("its list of files is damaged");
        }
        manifest_ = Manifest::parse(plain.data(), plain.size());
    } catch (const DecryptionError& error) {
        refuse(file, error.what());
    }
    // Whatever is missing or cut off is found before anything is used.
    for (const ManifestEntry& entry : manifest_.entries) {
        std::error_code error;
        const uint64_t present = fs::file_size(file_of(entry), error);
        const uint64_t expected = encrypted_bytes(entry.file.bytes, manifest_.chunk_bytes);
        if (error) refuse(file_of(entry), error.message());
        if (present != expected) {
            refuse(file_of(entry), "expected " + std::to_string(expected) + " bytes, got " +
                                       std::to_string(present));
        }
    }
}

Contents Container::contents() const {
    Contents contents;
    for (const ManifestEntry& entry : manifest_.entries) {
        contents.files.push_back(entry.file);
        contents.bytes += entry.file.bytes;
    }
    contents.chunk_bytes = manifest_.chunk_bytes;
    contents.passphrase = header_.wrapping.kdf == Wrapping::Kdf::kScrypt;
    return contents;
}

const ManifestEntry& Container::entry(const std::string& name) const {
    if (const ManifestEntry* found = manifest_.find(name)) return *found;
    throw ModelError("the encrypted model '" + dir_.string() + "' has no file " + name);
}

fs::path Container::file_of(const ManifestEntry& entry) const {
    return dir_ / (entry.file.name + kFileSuffix);
}

void Container::read(const ManifestEntry& entry, uint8_t* out) const {
    const OpenFile file(*this, entry);
    Readers readers = readers_of(file);
    tbb::parallel_for(uint64_t{0}, entry.file.chunks, [&](uint64_t chunk) {
        readers.local().read(chunk, out + file.begin_of(chunk));
    });
}

void Container::read(const ManifestEntry& entry, uint64_t offset, size_t bytes,
                     uint8_t* out) const {
    if (offset > entry.file.bytes || bytes > entry.file.bytes - offset) {
        throw std::invalid_argument("bytes " + std::to_string(offset) + " to " +
                                    std::to_string(offset + bytes) + " lie outside of " +
                                    entry.file.name + ", which has " +
                                    std::to_string(entry.file.bytes));
    }
    const OpenFile file(*this, entry);
    ChunkReader reader(file);
    SecureBuffer whole(std::min<uint64_t>(file.head.chunk_bytes, file.file.bytes));
    const uint64_t end = offset + bytes;
    const uint64_t first = std::min(offset / file.head.chunk_bytes, file.file.chunks - 1);
    for (uint64_t chunk = first; chunk == first || file.begin_of(chunk) < end; ++chunk) {
        reader.read(chunk, whole.data());
        const uint64_t begin = file.begin_of(chunk);
        const uint64_t from = std::max(offset, begin);
        const uint64_t to = std::min(end, begin + file.bytes_of(chunk));
        if (from < to) std::memcpy(out + (from - offset), whole.data() + (from - begin), to - from);
    }
}

void Container::stream(const ManifestEntry& entry, const Sink& sink,
                       const std::function<void(uint64_t)>& done) const {
    const OpenFile file(*this, entry);
    Readers readers = readers_of(file);
    const size_t size = std::min<uint64_t>(file.head.chunk_bytes, file.file.bytes);
    tbb::enumerable_thread_specific<SecureBuffer> buffers([size] { return SecureBuffer(size); });
    for_each_chunk(
        file.file.bytes, file.head.chunk_bytes,
        [&](uint64_t chunk) {
            SecureBuffer& buffer = buffers.local();
            readers.local().read(chunk, buffer.data());
            sink(file.begin_of(chunk), buffer.data(), file.bytes_of(chunk));
        },
        done);
}

void for_each_chunk(uint64_t bytes, uint32_t chunk_bytes, const std::function<void(uint64_t)>& work,
                    const std::function<void(uint64_t)>& done) {
    const uint64_t chunks = chunk_count(bytes, chunk_bytes);
    const uint64_t batch =
        kBatchChunks * static_cast<uint64_t>(std::max(1, tbb::info::default_concurrency()));
    for (uint64_t begin = 0; begin < chunks; begin += batch) {
        const uint64_t end = std::min(chunks, begin + batch);
        tbb::parallel_for(begin, end, work);
        if (done) done(std::min(bytes, end * chunk_bytes) - begin * chunk_bytes);
    }
}

}  // namespace ovfast::crypto
