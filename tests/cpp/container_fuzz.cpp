#include "container_fuzz.hpp"

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>

#include "crypto/format.hpp"
#include "ovfast/error.hpp"

namespace crypto_test {
namespace {

using namespace ovfast::crypto;

[[noreturn]] void broken(const char* what) {
    std::cerr << "fuzz_container: " << what << '\n';
    std::abort();
}

void check(bool holds, const char* what) {
    if (!holds) broken(what);
}

void as_header(const uint8_t* data, size_t size) {
    try {
        const Header header = Header::parse({reinterpret_cast<const char*>(data), size});
        // Every byte has a meaning, so that what was accepted is written back as it came.
        const std::vector<uint8_t> again = header.serialize();
        check(again.size() == size && std::memcmp(again.data(), data, size) == 0,
              "a header came back another");
        check(header.manifest.size() <= size, "a manifest is longer than its file");
        check(header.wrapping.cost.memory() <= kMostScryptMemory ||
                  header.wrapping.kdf == Wrapping::Kdf::kHkdf,
              "a passphrase may take too much memory");
    } catch (const ovfast::DecryptionError&) {
    }
}

void as_manifest(const uint8_t* data, size_t size) {
    try {
        const Manifest manifest = Manifest::parse(data, size);
        const std::vector<uint8_t> again = manifest.serialize();
        check(again.size() == size && std::memcmp(again.data(), data, size) == 0,
              "a manifest came back another");
        for (const ManifestEntry& entry : manifest.entries) {
            const std::string& name = entry.file.name;
            check(!name.empty() && name.front() != '/' && name.find('\0') == std::string::npos,
                  "a bad name was accepted");
            const std::string inside = "/" + name + "/";
            check(inside.find("/../") == std::string::npos &&
                      inside.find("/./") == std::string::npos &&
                      inside.find("//") == std::string::npos,
                  "a name leads out of its directory");
            check(manifest.find(name) == &entry, "an entry is not found");
            check(encrypted_bytes(entry.file.bytes, manifest.chunk_bytes) > entry.file.bytes,
                  "a length overflows");
            chunk_aad({manifest.chunk_bytes, {}, entry.prefix, entry.file.bytes}, entry.file);
        }
    } catch (const ovfast::DecryptionError&) {
    }
}

void as_head(const uint8_t* data, size_t size) {
    if (size < FileHead::kBytes) return;
    FileHead head{1 << 20, {1, 2, 3}, {4, 5, 6}, 7};
    const auto own = head.serialize();
    const bool same = std::memcmp(data, own.data(), own.size()) == 0;
    check(head.mismatch(data).has_value() != same, "a head was taken for another");
}

}  // namespace

void fuzz_container(const uint8_t* data, size_t size) {
    as_header(data, size);
    as_manifest(data, size);
    as_head(data, size);
    role_of({reinterpret_cast<const char*>(data), size});
}

}  // namespace crypto_test
