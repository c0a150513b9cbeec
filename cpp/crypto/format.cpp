#include "crypto/format.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "ovfast/error.hpp"

namespace ovfast::crypto {
namespace {

constexpr std::string_view kHeaderMagic = "OVFCRYPT";
constexpr std::string_view kFileMagic = "OVFCHUNK";
constexpr size_t kIdentityBytes = 32;              // magic, version, reserved, model
constexpr size_t kEntryBytes = 27;                 // of a manifest, beside the name
constexpr size_t kChunkAt = FileHead::kBytes + 1;  // in a chunk's AAD

class Writer {
public:
    template <typename T>
    void number(T value) {
        static_assert(std::is_unsigned_v<T>);
        for (size_t i = 0; i < sizeof(T); ++i) bytes_.push_back(uint8_t(uint64_t(value) >> 8 * i));
    }
    void raw(const void* data, size_t bytes) {
        const auto* begin = static_cast<const uint8_t*>(data);
        bytes_.insert(bytes_.end(), begin, begin + bytes);
    }
    template <size_t N>
    void raw(const std::array<uint8_t, N>& bytes) {
        raw(bytes.data(), N);
    }
    std::vector<uint8_t> take() { return std::move(bytes_); }

private:
    std::vector<uint8_t> bytes_;
};

/// Never reads beyond its end.
class Reader {
public:
    Reader(const void* data, size_t bytes) : at_(static_cast<const uint8_t*>(data)), left_(bytes) {}

    size_t left() const { return left_; }
    const uint8_t* raw(size_t bytes) {
        if (bytes > left_) throw DecryptionError("it ends too early");
        const uint8_t* begin = at_;
        at_ += bytes;
        left_ -= bytes;
        return begin;
    }
    template <size_t N>
    void raw(std::array<uint8_t, N>& out) {
        std::memcpy(out.data(), raw(N), N);
    }
    template <typename T>
    T number() {
        const uint8_t* bytes = raw(sizeof(T));
        uint64_t value = 0;
        for (size_t i = 0; i < sizeof(T); ++i) value |= uint64_t{bytes[i]} << 8 * i;
        return static_cast<T>(value);
    }

private:
    const uint8_t* at_;
    size_t left_;
};

void write_identity(Writer& writer, const ModelId& model) {
    writer.raw(kHeaderMagic.data(), kHeaderMagic.size());
    writer.number(kFormatVersion);
    writer.number(uint32_t{0});
    writer.raw(model);
}

void write_derivation(Writer& writer, const Wrapping& wrapping) {
    writer.number(static_cast<uint8_t>(wrapping.kdf));
    writer.number(wrapping.cost.log2_n);
    writer.number(wrapping.cost.r);
    writer.number(wrapping.cost.p);
    writer.raw(wrapping.salt);
}

void check_version(uint32_t version) {
    if (version != kFormatVersion) {
        throw DecryptionError("it is of format version " + std::to_string(version) +
                              ", this ovfast reads " + std::to_string(kFormatVersion));
    }
}

void check_cost(const Wrapping& wrapping) {
    const ScryptCost& cost = wrapping.cost;
    if (wrapping.kdf == Wrapping::Kdf::kHkdf) {
        if (cost.log2_n == 0 && cost.r == 0 && cost.p == 0) return;
        throw DecryptionError("its key derivation cannot be");
    }
    if (wrapping.kdf != Wrapping::Kdf::kScrypt) {
        throw DecryptionError("its key derivation is unknown");
    }
    if (cost.log2_n < 1 || cost.log2_n > 24 || cost.r < 1 || cost.p < 1 ||
        cost.p > kMostScryptRounds || cost.memory() > kMostScryptMemory) {
        throw DecryptionError("its passphrase asks for more work than is allowed");
    }
}

bool ends_with(std::string_view text, std::string_view end) {
    return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

}  // namespace

Header Header::parse(std::string_view bytes) {
    Reader reader(bytes.data(), bytes.size());
    Header header;
    if (reader.left() < kHeaderMagic.size() ||
        std::memcmp(reader.raw(kHeaderMagic.size()), kHeaderMagic.data(), kHeaderMagic.size()) !=
            0) {
        throw DecryptionError("it is no header of an encrypted model");
    }
    check_version(reader.number<uint32_t>());
    if (reader.number<uint32_t>() != 0) throw DecryptionError("a reserved field is not 0");
    reader.raw(header.model);
    Wrapping& wrapping = header.wrapping;
    wrapping.kdf = static_cast<Wrapping::Kdf>(reader.number<uint8_t>());
    wrapping.cost.log2_n = reader.number<uint8_t>();
    wrapping.cost.r = reader.number<uint8_t>();
    wrapping.cost.p = reader.number<uint8_t>();
    check_cost(wrapping);
    reader.raw(wrapping.salt);
    reader.raw(wrapping.nonce);
    reader.raw(wrapping.wrapped);
    reader.raw(wrapping.tag);
    reader.raw(header.manifest_nonce);
    const auto length = reader.number<uint64_t>();
    // Compared with what is there, so that nothing is allocated that the file does not hold.
    if (length > kLargestManifest || reader.left() != length + kTagBytes) {
        throw DecryptionError("its length does not fit: it is truncated or damaged");
    }
    const uint8_t* manifest = reader.raw(length);
    header.manifest.assign(manifest, manifest + length);
    reader.raw(header.manifest_tag);
    return header;
}

std::vector<uint8_t> Header::serialize() const {
    Writer writer;
    write_identity(writer, model);
    write_derivation(writer, wrapping);
    writer.raw(wrapping.nonce);
    writer.raw(wrapping.wrapped);
    writer.raw(wrapping.tag);
    writer.raw(manifest_nonce);
    writer.number(static_cast<uint64_t>(manifest.size()));
    writer.raw(manifest.data(), manifest.size());
    writer.raw(manifest_tag);
    return writer.take();
}

std::vector<uint8_t> Header::wrapping_aad() const {
    Writer writer;
    write_identity(writer, model);
    write_derivation(writer, wrapping);
    return writer.take();
}

std::vector<uint8_t> Header::manifest_aad() const {
    Writer writer;
    write_identity(writer, model);
    writer.number(static_cast<uint64_t>(manifest.size()));
    return writer.take();
}

Manifest Manifest::parse(const uint8_t* data, size_t bytes) {
    Reader reader(data, bytes);
    Manifest manifest;
    manifest.chunk_bytes = reader.number<uint32_t>();
    if (manifest.chunk_bytes < kSmallestChunk || manifest.chunk_bytes > kLargestChunk) {
        throw DecryptionError("its chunks have a size that is not allowed");
    }
    const auto count = reader.number<uint32_t>();
    if (count > reader.left() / kEntryBytes) throw DecryptionError("it ends too early");
    manifest.entries.reserve(count);
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; ++i) {
        ManifestEntry entry;
        const auto length = reader.number<uint16_t>();
        entry.file.name.assign(reinterpret_cast<const char*>(reader.raw(length)), length);
        const auto role = reader.number<uint8_t>();
        entry.file.bytes = reader.number<uint64_t>();
        entry.file.chunks = reader.number<uint64_t>();
        reader.raw(entry.prefix);
        if (const auto why = bad_name(entry.file.name)) {
            throw DecryptionError("it lists a file whose name " + *why);
        }
        if (!manifest.entries.empty() && entry.file.name <= manifest.entries.back().file.name) {
            throw DecryptionError("its files are not in order");
        }
        if (role > static_cast<uint8_t>(Role::kKernel)) {
            throw DecryptionError("it lists a file of an unknown role");
        }
        entry.file.role = static_cast<Role>(role);
        if (entry.file.bytes > kLargestFile || total + entry.file.bytes > kLargestFile ||
            entry.file.chunks != chunk_count(entry.file.bytes, manifest.chunk_bytes) ||
            entry.file.chunks > UINT32_MAX) {
            throw DecryptionError("it lists a file of a length that cannot be");
        }
        total += entry.file.bytes;
        manifest.entries.push_back(std::move(entry));
    }
    if (reader.left() != 0) throw DecryptionError("it goes on after its end");
    return manifest;
}

std::vector<uint8_t> Manifest::serialize() const {
    Writer writer;
    writer.number(chunk_bytes);
    writer.number(static_cast<uint32_t>(entries.size()));
    for (const ManifestEntry& entry : entries) {
        writer.number(static_cast<uint16_t>(entry.file.name.size()));
        writer.raw(entry.file.name.data(), entry.file.name.size());
        writer.number(static_cast<uint8_t>(entry.file.role));
        writer.number(entry.file.bytes);
        writer.number(entry.file.chunks);
        writer.raw(entry.prefix);
    }
    return writer.take();
}

const ManifestEntry* Manifest::find(std::string_view name) const {
    const auto at = std::lower_bound(entries.begin(), entries.end(), name,
                                     [](const ManifestEntry& entry, std::string_view wanted) {
                                         return entry.file.name < wanted;
                                     });
    return at != entries.end() && at->file.name == name ? &*at : nullptr;
}

std::array<uint8_t, FileHead::kBytes> FileHead::serialize() const {
    Writer writer;
    writer.raw(kFileMagic.data(), kFileMagic.size());
    writer.number(kFormatVersion);
    writer.number(chunk_bytes);
    writer.raw(model);
    writer.raw(prefix);
    writer.number(bytes);
    std::array<uint8_t, kBytes> out{};
    const std::vector<uint8_t> written = writer.take();
    std::copy(written.begin(), written.end(), out.begin());
    return out;
}

std::optional<std::string> FileHead::mismatch(const uint8_t* found) const {
    const std::array<uint8_t, kBytes> expected = serialize();
    if (std::memcmp(found, expected.data(), kBytes) == 0) return std::nullopt;
    if (std::memcmp(found, kFileMagic.data(), kFileMagic.size()) != 0) {
        return "it is no file of an encrypted model";
    }
    constexpr size_t model_at = 16;
    if (std::memcmp(found + model_at, model.data(), model.size()) != 0) {
        return "it belongs to another model, or its head is damaged";
    }
    return "its head is damaged, or it is another file of this model";
}

uint64_t chunk_count(uint64_t bytes, uint32_t chunk_bytes) {
    return bytes == 0 ? 1 : (bytes - 1) / chunk_bytes + 1;
}

uint64_t encrypted_bytes(uint64_t bytes, uint32_t chunk_bytes) {
    return FileHead::kBytes + bytes + kTagBytes * chunk_count(bytes, chunk_bytes);
}

Nonce chunk_nonce(const Prefix& prefix, uint64_t chunk) {
    Nonce nonce{};
    std::copy(prefix.begin(), prefix.end(), nonce.begin());
    for (size_t i = 0; i < 4; ++i) nonce[prefix.size() + i] = uint8_t(chunk >> (24 - 8 * i));
    return nonce;
}

std::vector<uint8_t> chunk_aad(const FileHead& head, const FileEntry& file) {
    Writer writer;
    writer.raw(head.serialize());
    writer.number(static_cast<uint8_t>(file.role));
    writer.number(uint64_t{0});  // set_chunk()
    writer.number(file.chunks);
    writer.raw(file.name.data(), file.name.size());
    return writer.take();
}

void set_chunk(std::vector<uint8_t>& aad, uint64_t chunk) {
    for (size_t i = 0; i < sizeof chunk; ++i) aad[kChunkAt + i] = uint8_t(chunk >> 8 * i);
}

Role role_of(std::string_view path) {
    const std::string_view name = path.substr(path.rfind('/') + 1);
    for (const std::string_view begin :
         {"openvino_tokenizer.", "openvino_detokenizer.", "tokenizer", "vocab", "merges",
          "special_tokens_map", "added_tokens"}) {
        if (name.substr(0, begin.size()) == begin) return Role::kTokenizer;
    }
    if (name.substr(0, 13) == "chat_template" || ends_with(name, ".jinja")) return Role::kTemplate;
    if (ends_with(name, ".xml")) return Role::kTopology;
    if (ends_with(name, ".bin")) return Role::kWeights;
    if (ends_with(name, ".json")) return Role::kConfig;
    if (ends_with(name, ".safetensors")) return Role::kAdapter;
    if (ends_with(name, ".cl")) return Role::kKernel;
    return Role::kOther;
}

std::optional<std::string> bad_name(std::string_view name) {
    if (name.empty()) return "is empty";
    if (name.size() > kLongestName) return "is too long";
    if (name.find('\0') != std::string_view::npos) return "holds a zero byte";
    if (name.front() == '/') return "is an absolute path";
    for (size_t begin = 0; begin <= name.size();) {
        const size_t end = std::min(name.find('/', begin), name.size());
        const std::string_view part = name.substr(begin, end - begin);
        if (part.empty() || part == "." || part == "..") return "leads out of its directory";
        begin = end + 1;
    }
    return std::nullopt;
}

const char* to_string(Role role) {
    switch (role) {
        case Role::kTopology:
            return "topology";
        case Role::kWeights:
            return "weights";
        case Role::kTokenizer:
            return "tokenizer";
        case Role::kConfig:
            return "config";
        case Role::kTemplate:
            return "template";
        case Role::kAdapter:
            return "adapter";
        case Role::kKernel:
            return "kernel";
        case Role::kOther:
            break;
    }
    return "other";
}

}  // namespace ovfast::crypto
