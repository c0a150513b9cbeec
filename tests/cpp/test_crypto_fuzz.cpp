// Mutations of well-formed headers and manifests, for OVFAST_FUZZ_SECONDS (2 by default), under
// whatever sanitizer the build has.

#include <chrono>
#include <cstdlib>
#include <random>

#include "container_fuzz.hpp"
#include "crypto_fixtures.hpp"

namespace {

using namespace crypto_test;

std::vector<std::vector<uint8_t>> seeds() {
    std::vector<std::vector<uint8_t>> seeds;
    Manifest manifest;
    manifest.chunk_bytes = 1 << 20;
    seeds.push_back(manifest.serialize());
    for (const char* name : {"a", "config.json", "openvino_model.bin", "unet/openvino_model.xml"}) {
        const uint64_t bytes = std::string(name).size() * 1'000'003;
        manifest.entries.push_back(
            {{name, role_of(name), bytes, chunk_count(bytes, manifest.chunk_bytes)}, {}});
    }
    seeds.push_back(manifest.serialize());
    Header header;
    header.manifest = seeds.back();
    seeds.push_back(header.serialize());
    header.wrapping.kdf = Wrapping::Kdf::kScrypt;
    header.wrapping.cost = ScryptCost{};
    header.manifest.clear();
    seeds.push_back(header.serialize());
    const auto head = FileHead{1 << 20, {1, 2, 3}, {4, 5, 6}, 7}.serialize();
    seeds.emplace_back(head.begin(), head.end());
    return seeds;
}

void mutate(std::vector<uint8_t>& bytes, std::mt19937_64& random) {
    const auto below = [&](size_t limit) { return limit == 0 ? 0 : random() % limit; };
    static constexpr uint8_t kEdges[] = {0, 1, 0x7f, 0x80, 0xff, '/', '.'};
    for (uint64_t rounds = 1 + below(4); rounds != 0; --rounds) {
        const size_t at = below(bytes.size());
        switch (below(7)) {
            case 0:
                if (!bytes.empty()) bytes[at] ^= uint8_t(1 << below(8));
                break;
            case 1:
                if (!bytes.empty()) bytes[at] = kEdges[below(sizeof kEdges)];
                break;
            case 2:
                bytes.resize(below(bytes.size() + 1));
                break;
            case 3:
                bytes.insert(bytes.begin() + static_cast<ptrdiff_t>(at), 1 + below(40),
                             kEdges[below(sizeof kEdges)]);
                break;
            case 4: {  // a length field full of ones
                for (size_t i = at; i < std::min(bytes.size(), at + 8); ++i) bytes[i] = 0xff;
                break;
            }
            case 5: {  // an entry again
                const size_t size = below(bytes.size() - at + 1);
                const std::vector<uint8_t> copy(bytes.begin() + static_cast<ptrdiff_t>(at),
                                                bytes.begin() + static_cast<ptrdiff_t>(at + size));
                bytes.insert(bytes.end(), copy.begin(), copy.end());
                break;
            }
            default:
                if (!bytes.empty()) bytes.erase(bytes.begin() + static_cast<ptrdiff_t>(at));
        }
    }
}

TEST(CryptoFuzz, HostileBytesNeverGetFurtherThanAnError) {
    const char* wanted = std::getenv("OVFAST_FUZZ_SECONDS");
    const auto end = std::chrono::steady_clock::now() +
                     std::chrono::seconds(wanted == nullptr ? 2 : std::atoi(wanted));
    std::mt19937_64 random(wanted == nullptr ? 1 : std::random_device{}());
    const auto originals = seeds();
    std::vector<std::vector<uint8_t>> pool = originals;
    uint64_t inputs = 0;
    do {
        for (int i = 0; i < 1000; ++i) {
            std::vector<uint8_t> bytes = pool[random() % pool.size()];
            mutate(bytes, random);
            fuzz_container(bytes.data(), bytes.size());
            // Mutations of mutations reach further.
            if (bytes.size() < 4096 && random() % 64 == 0) {
                if (pool.size() < 1000) {
                    pool.push_back(bytes);
                } else {
                    pool[originals.size() + random() % (1000 - originals.size())] = bytes;
                }
            }
            ++inputs;
        }
    } while (std::chrono::steady_clock::now() < end);
    RecordProperty("inputs", std::to_string(inputs));
    std::cout << inputs << " inputs\n";
}

// What a length claims is compared with what is there before anything is allocated for it.
TEST(CryptoFuzz, HostileLengthsAreRefused) {
    Header header;
    header.manifest.resize(100);
    std::vector<uint8_t> bytes = header.serialize();
    constexpr size_t kLengthAt = 124;
    for (const uint64_t length : {uint64_t{0}, uint64_t{99}, uint64_t{101}, uint64_t{1} << 30,
                                  ~uint64_t{0}, ~uint64_t{0} - 15, ~uint64_t{0} - 16}) {
        for (size_t i = 0; i < 8; ++i) bytes[kLengthAt + i] = uint8_t(length >> 8 * i);
        EXPECT_THROW(Header::parse({reinterpret_cast<char*>(bytes.data()), bytes.size()}),
                     ovfast::DecryptionError)
            << length;
    }
    Manifest manifest;
    manifest.chunk_bytes = 1 << 20;
    std::vector<uint8_t> many = manifest.serialize();
    for (size_t i = 4; i < 8; ++i) many[i] = 0xff;  // 4 G entries
    EXPECT_THROW(Manifest::parse(many.data(), many.size()), ovfast::DecryptionError);
    for (const uint64_t length : {~uint64_t{0}, kLargestFile + 1}) {
        manifest.entries = {{{"a", Role::kOther, length, chunk_count(length, 1 << 20)}, {}}};
        const auto one = manifest.serialize();
        EXPECT_THROW(Manifest::parse(one.data(), one.size()), ovfast::DecryptionError);
    }
    for (const auto& cost : {ScryptCost{25, 8, 1}, ScryptCost{20, 255, 1}, ScryptCost{15, 8, 255},
                             ScryptCost{0, 8, 1}, ScryptCost{15, 0, 1}, ScryptCost{15, 8, 0}}) {
        header.wrapping.kdf = Wrapping::Kdf::kScrypt;
        header.wrapping.cost = cost;
        const auto costly = header.serialize();
        EXPECT_THROW(Header::parse({reinterpret_cast<const char*>(costly.data()), costly.size()}),
                     ovfast::DecryptionError);
    }
}

TEST(CryptoFuzz, NamesThatLeaveTheDirectoryAreRefused) {
    for (const std::string& name :
         {std::string(""), std::string("/etc/passwd"), std::string(".."), std::string("../a"),
          std::string("a/../b"), std::string("a/.."), std::string("a//b"), std::string("a/"),
          std::string("./a"), std::string("a\0b", 3), std::string(5000, 'a')}) {
        EXPECT_TRUE(bad_name(name)) << name;
        Manifest manifest;
        manifest.chunk_bytes = 1 << 20;
        manifest.entries = {{{name, Role::kOther, 1, 1}, {}}};
        const auto bytes = manifest.serialize();
        EXPECT_THROW(Manifest::parse(bytes.data(), bytes.size()), ovfast::DecryptionError) << name;
    }
    for (const char* name : {"a", "a/b", "..a", "a..", ".hidden", "a b", "a\\b", "模型.bin"}) {
        EXPECT_FALSE(bad_name(name)) << name;
    }
}

}  // namespace
