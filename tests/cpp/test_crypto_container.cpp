// Encrypted directories: what goes in comes out, and whatever was touched is found.

#include <sys/stat.h>

#include <cstring>
#include <set>
#include <stdexcept>

#include "crypto/container.hpp"
#include "crypto_fixtures.hpp"
#include "ovfast/crypto.hpp"

namespace {

using namespace crypto_test;

constexpr uint32_t kChunk = 4096;

class CryptoContainer : public CryptoTest {
protected:
    /// A directory with files of these sizes, "f0", "f1", ..., and some others.
    fs::path make(const std::string& name, const std::vector<size_t>& sizes, uint32_t seed = 1) {
        const fs::path dir = dir_ / name;
        for (size_t i = 0; i < sizes.size(); ++i) {
            write_file(dir / ("f" + std::to_string(i)),
                       random_text(sizes[i], seed * 100 + static_cast<uint32_t>(i)));
        }
        write_file(dir / "openvino_model.xml", "<net>");
        write_file(dir / "unet" / "openvino_model.bin", random_text(100, seed));
        return dir;
    }
    fs::path encrypt(const fs::path& dir, const std::string& name, uint32_t chunk = kChunk) {
        EncryptOptions options;
        options.chunk_bytes = chunk;
        encrypt_directory(dir, dir_ / name, key_, options);
        return dir_ / name;
    }
    void expect_same(const fs::path& one, const fs::path& two) {
        std::vector<std::string> names[2];
        const fs::path* dirs[] = {&one, &two};
        for (int i = 0; i < 2; ++i) {
            for (const auto& item : fs::recursive_directory_iterator(*dirs[i])) {
                if (item.is_regular_file()) {
                    names[i].push_back(item.path().lexically_relative(*dirs[i]).string());
                }
            }
            std::sort(names[i].begin(), names[i].end());
        }
        ASSERT_EQ(names[0], names[1]);
        for (const std::string& name : names[0]) {
            EXPECT_TRUE(read_file(one / name) == read_file(two / name)) << name;
        }
    }
    /// Whether all of a directory can be read; the error must name `file`.
    void expect_refused(const fs::path& dir, const std::string& file, const std::string& what) {
        const std::string verified = decryption_error([&] { verify_directory(dir, key_); });
        EXPECT_NE(verified.find(file), std::string::npos) << what << ": " << verified;
        // In memory, too, in parallel and at random.
        try {
            const auto files = open_directory(dir, key_);
            for (const std::string& name : files->names()) files->read(name);
            ADD_FAILURE() << what;
        } catch (const ovfast::DecryptionError&) {
        }
        EXPECT_THROW(decrypt_directory(dir, dir_ / "back", key_), ovfast::DecryptionError) << what;
        EXPECT_FALSE(fs::exists(dir_ / "back"));
    }
    void flip(const fs::path& file, size_t byte, uint8_t mask = 1) {
        std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
        stream.seekg(static_cast<std::streamoff>(byte));
        const char value = static_cast<char>(stream.get() ^ mask);
        stream.seekp(static_cast<std::streamoff>(byte));
        stream.put(value);
    }
};

TEST_F(CryptoContainer, RoundTripOfEverySizeAroundAChunk) {
    std::vector<size_t> sizes{0, 1, 15, 16, 17};
    for (const size_t chunks : {1, 2, 5}) {
        for (const int delta : {-17, -1, 0, 1, 17}) {
            sizes.push_back(chunks * kChunk + static_cast<size_t>(delta));
        }
    }
    const fs::path plain = make("plain", sizes);
    const fs::path encrypted = encrypt(plain, "encrypted");
    decrypt_directory(encrypted, dir_ / "back", key_);
    expect_same(plain, dir_ / "back");
    const Contents contents = verify_directory(encrypted, key_);
    EXPECT_EQ(contents.files.size(), sizes.size() + 2);
    EXPECT_EQ(contents.chunk_bytes, kChunk);
    // In memory.
    const auto files = open_directory(encrypted, key_);
    for (size_t i = 0; i < sizes.size(); ++i) {
        const std::string name = "f" + std::to_string(i);
        const std::string expected = read_file(plain / name);
        EXPECT_EQ(files->size(name), sizes[i]);
        EXPECT_TRUE(files->read(name).text() == expected) << sizes[i];
    }
}

TEST_F(CryptoContainer, RandomAccess) {
    const fs::path plain = make("plain", {3 * kChunk + 100});
    const std::string whole = read_file(plain / "f0");
    const auto files = open_directory(encrypt(plain, "encrypted"), key_);
    std::mt19937_64 random(7);
    for (int i = 0; i < 300; ++i) {
        const size_t begin = random() % (whole.size() + 1);
        const size_t bytes = random() % (whole.size() - begin + 1);
        std::string got(bytes, '\0');
        files->read("f0", begin, bytes, got.data());
        ASSERT_TRUE(got == whole.substr(begin, bytes)) << begin << ' ' << bytes;
    }
    char byte = 0;
    EXPECT_THROW(files->read("f0", whole.size(), 1, &byte), std::invalid_argument);
    EXPECT_THROW(files->read("f0", ~uint64_t{0}, 2, &byte), std::invalid_argument);
    EXPECT_THROW(files->read("none", 0, 1, &byte), ovfast::ModelError);
}

// Parts that are asked for alone are authenticated alone: damage elsewhere does not matter.
TEST_F(CryptoContainer, RandomAccessReadsOnlyItsChunks) {
    const fs::path encrypted = encrypt(make("plain", {4 * kChunk}), "encrypted");
    flip(encrypted / "f0.enc", FileHead::kBytes + 2 * (kChunk + kTagBytes) + 5);
    const auto files = open_directory(encrypted, key_);
    std::string got(2 * kChunk, '\0');
    EXPECT_NO_THROW(files->read("f0", 0, 2 * kChunk, got.data()));
    EXPECT_NO_THROW(files->read("f0", 3 * kChunk, kChunk, got.data()));
    EXPECT_THROW(files->read("f0", 2 * kChunk - 1, 2, got.data()), ovfast::DecryptionError);
    EXPECT_THROW(files->read("f0"), ovfast::DecryptionError);
}

TEST_F(CryptoContainer, NoPlaintextAndNoNonceTwice) {
    const fs::path plain = make("plain", {5 * kChunk, 5 * kChunk});
    write_file(plain / "f1", read_file(plain / "f0"));  // the same file twice
    const fs::path one = encrypt(plain, "one");
    const fs::path two = encrypt(plain, "two");
    const std::string text = read_file(plain / "f0");
    std::set<std::string> chunks;
    for (const fs::path& dir : {one, two}) {
        for (const char* name : {"f0.enc", "f1.enc"}) {
            const std::string cipher = read_file(dir / name);
            for (size_t at = 0; at + 32 < text.size(); at += 1000) {
                EXPECT_EQ(cipher.find(text.substr(at, 32)), std::string::npos);
            }
            for (size_t i = 0; i < 5; ++i) {
                chunks.insert(cipher.substr(FileHead::kBytes + i * (kChunk + kTagBytes), kChunk));
            }
        }
    }
    EXPECT_EQ(chunks.size(), 20U);
    std::set<Nonce> nonces;
    for (const uint64_t chunk : {0ULL, 1ULL, 255ULL, 256ULL, 65536ULL, 0xffffffffULL}) {
        nonces.insert(chunk_nonce({1, 2, 3}, chunk));
    }
    EXPECT_EQ(nonces.size(), 6U);
}

TEST_F(CryptoContainer, EveryFlippedBitOfTheHeaderIsFound) {
    const fs::path encrypted = encrypt(make("plain", {10}), "encrypted");
    const size_t bytes = fs::file_size(encrypted / kHeaderName);
    for (size_t byte = 0; byte < bytes; ++byte) {
        const uint8_t mask = uint8_t(1 << byte % 8);
        flip(encrypted / kHeaderName, byte, mask);
        const std::string what = decryption_error([&] { open_directory(encrypted, key_); });
        EXPECT_NE(what.find(kHeaderName), std::string::npos) << byte;
        flip(encrypted / kHeaderName, byte, mask);
    }
    EXPECT_NO_THROW(verify_directory(encrypted, key_));
}

TEST_F(CryptoContainer, EveryFlippedByteOfAFileIsFound) {
    const fs::path encrypted = encrypt(make("plain", {kChunk + 300}), "encrypted");
    const fs::path file = encrypted / "f0.enc";
    const size_t bytes = fs::file_size(file);
    std::vector<size_t> places;
    for (size_t byte = 0; byte < FileHead::kBytes; ++byte) places.push_back(byte);
    const size_t second = FileHead::kBytes + kChunk + kTagBytes;
    for (size_t i = 0; i < kTagBytes; ++i) {
        places.push_back(second - 1 - i);  // the first chunk's tag
        places.push_back(bytes - 1 - i);   // the last one's
    }
    for (size_t byte = FileHead::kBytes; byte < bytes; byte += 97) places.push_back(byte);
    for (const size_t byte : places) {
        flip(file, byte, 0x80);
        const std::string what =
            decryption_error([&] { open_directory(encrypted, key_)->read("f0"); });
        EXPECT_NE(what.find("f0.enc"), std::string::npos) << byte;
        flip(file, byte, 0x80);
    }
    flip(file, second, 1);
    expect_refused(encrypted, "f0.enc", "second chunk");
}

TEST_F(CryptoContainer, TruncationIsFoundAtEveryBoundary) {
    const fs::path encrypted = encrypt(make("plain", {2 * kChunk + 300}), "encrypted");
    for (const std::string& name : {std::string("f0.enc"), std::string(kHeaderName)}) {
        const std::string whole = read_file(encrypted / name);
        std::set<size_t> lengths{0,   1,   8,   47,  48,  49,  60,  100,
                                 111, 112, 113, 123, 124, 131, 132, 133};
        for (size_t chunk = 1; chunk <= 2; ++chunk) {
            const size_t end = FileHead::kBytes + chunk * (kChunk + kTagBytes);
            for (const int delta : {-17, -16, -1, 0, 1}) {
                lengths.insert(end + static_cast<size_t>(delta));
            }
        }
        for (const size_t back : {1U, 15U, 16U, 17U}) lengths.insert(whole.size() - back);
        for (const size_t length : lengths) {
            if (length >= whole.size()) continue;
            write_file(encrypted / name, whole.substr(0, length));
            const std::string what = decryption_error([&] { open_directory(encrypted, key_); });
            EXPECT_NE(what.find(name), std::string::npos) << length << ' ' << what;
        }
        for (const size_t more : {1U, 16U, 4112U}) {
            write_file(encrypted / name, whole + std::string(more, '\0'));
            EXPECT_THROW(open_directory(encrypted, key_), ovfast::DecryptionError);
        }
        write_file(encrypted / name, whole);
    }
    fs::remove(encrypted / "f0.enc");
    const std::string what = decryption_error([&] { open_directory(encrypted, key_); });
    EXPECT_NE(what.find("f0.enc"), std::string::npos);
}

TEST_F(CryptoContainer, MovedChunksAndFilesAreFound) {
    const fs::path plain = make("plain", {3 * kChunk, 3 * kChunk});
    const fs::path one = encrypt(plain, "one");
    const fs::path two = encrypt(plain, "two");  // the same files, the same key
    const std::string f0 = read_file(one / "f0.enc");
    const std::string f1 = read_file(one / "f1.enc");
    const auto chunk = [](const std::string& file, size_t i) {
        return file.substr(FileHead::kBytes + i * (kChunk + kTagBytes), kChunk + kTagBytes);
    };
    const auto put = [&](std::string file, size_t i, const std::string& with) {
        return file.replace(FileHead::kBytes + i * (kChunk + kTagBytes), with.size(), with);
    };
    // Order within a file; a chunk twice; a chunk of another file; of another model.
    for (const std::string& changed :
         {put(put(f0, 0, chunk(f0, 1)), 1, chunk(f0, 0)), put(f0, 2, chunk(f0, 1)),
          put(f0, 1, chunk(f1, 1)), put(f0, 1, chunk(read_file(two / "f0.enc"), 1))}) {
        write_file(one / "f0.enc", changed);
        expect_refused(one, "f0.enc", "chunks");
    }
    // Another file of this model, with its head and under the head of the right one.
    write_file(one / "f0.enc", f1);
    expect_refused(one, "f0.enc", "file");
    write_file(one / "f0.enc", f0.substr(0, FileHead::kBytes) + f1.substr(FileHead::kBytes));
    expect_refused(one, "f0.enc", "body");
    // Files and the list of files of another model with the same key.
    write_file(one / "f0.enc", read_file(two / "f0.enc"));
    const std::string what = decryption_error([&] { open_directory(one, key_)->read("f0"); });
    EXPECT_NE(what.find("another model"), std::string::npos) << what;
    write_file(one / "f0.enc", f0);
    const std::string header = read_file(one / kHeaderName);
    write_file(one / kHeaderName, read_file(two / kHeaderName));
    expect_refused(one, ".enc", "header");
    // The wrapped key of one with the list of the other.
    const std::string other = read_file(two / kHeaderName);
    write_file(one / kHeaderName, header.substr(0, 112) + other.substr(112));
    expect_refused(one, kHeaderName, "manifest");
    write_file(one / kHeaderName, header);
    EXPECT_NO_THROW(verify_directory(one, key_));
    // A file that the list does not know.
    write_file(one / "more.enc", f0);
    EXPECT_NE(decryption_error([&] { verify_directory(one, key_); }).find("more.enc"),
              std::string::npos);
}

TEST_F(CryptoContainer, WrongKeys) {
    const fs::path encrypted = encrypt(make("plain", {10}), "encrypted");
    const Key passphrase = Key::from_passphrase("x", 1);
    EXPECT_NE(
        decryption_error([&] { open_directory(encrypted, Key::generate()); }).find("key is wrong"),
        std::string::npos);
    EXPECT_NE(decryption_error([&] {
                  open_directory(encrypted, passphrase);
              }).find("opens with a key, got a passphrase"),
              std::string::npos);
    rekey(encrypted, key_, passphrase);
    EXPECT_NE(decryption_error([&] {
                  open_directory(encrypted, key_);
              }).find("opens with a passphrase, got a key"),
              std::string::npos);
    EXPECT_NO_THROW(verify_directory(encrypted, passphrase));
    EXPECT_THROW(open_directory(dir_ / "plain", key_), ovfast::ModelError);
    EXPECT_THROW(ovfast::ModelFiles::folder(encrypted), ovfast::DecryptionError);
}

TEST_F(CryptoContainer, RekeyChangesTheWrappingOnly) {
    const fs::path encrypted = encrypt(make("plain", {kChunk}), "encrypted");
    const std::string file = read_file(encrypted / "f0.enc");
    const std::string header = read_file(encrypted / kHeaderName);
    const Key next = Key::generate();
    ::chmod((encrypted / kHeaderName).c_str(), 0640);
    rekey(encrypted, key_, next);
    struct stat status{};
    ASSERT_EQ(::stat((encrypted / kHeaderName).c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0640U);
    EXPECT_TRUE(read_file(encrypted / "f0.enc") == file);
    const std::string changed = read_file(encrypted / kHeaderName);
    ASSERT_EQ(changed.size(), header.size());
    EXPECT_EQ(changed.substr(112), header.substr(112));
    EXPECT_NE(changed.substr(0, 112), header.substr(0, 112));
    EXPECT_THROW(open_directory(encrypted, key_), ovfast::DecryptionError);
    EXPECT_NO_THROW(verify_directory(encrypted, next));
    EXPECT_THROW(rekey(encrypted, key_, next), ovfast::DecryptionError);
    EXPECT_NO_THROW(verify_directory(encrypted, next));
}

TEST_F(CryptoContainer, TargetsAppearWholeOrNotAtAll) {
    const fs::path plain = make("plain", {10 * kChunk});
    EncryptOptions options;
    options.chunk_bytes = kChunk;
    options.progress = [](double, const std::string&) { return false; };
    EXPECT_THROW(encrypt_directory(plain, dir_ / "out", key_, options), ovfast::Error);
    options.progress = nullptr;
    encrypt_directory(plain, dir_ / "out", key_, options);
    EXPECT_THROW(encrypt_directory(plain, dir_ / "out", key_, options), std::invalid_argument);
    options.replace = true;
    options.progress = [](double, const std::string&) { return false; };
    EXPECT_THROW(encrypt_directory(plain, dir_ / "out", key_, options), ovfast::Error);
    EXPECT_NO_THROW(verify_directory(dir_ / "out", key_));  // the old one is there still
    options.progress = nullptr;
    encrypt_directory(plain, dir_ / "out", key_, options);
    EXPECT_NO_THROW(verify_directory(dir_ / "out", key_));
    EXPECT_THROW(encrypt_directory(plain, plain / "inside", key_, options), std::invalid_argument);
    EXPECT_THROW(encrypt_directory(dir_ / "out", dir_ / "twice", key_, options),
                 std::invalid_argument);
    EXPECT_THROW(encrypt_directory(dir_ / "none", dir_ / "twice", key_), ovfast::ModelError);
    // What is replaced must be of the same kind: a slip should not cost a home directory.
    write_file(dir_ / "home" / "letter", "dear");
    EXPECT_THROW(encrypt_directory(plain, dir_ / "home", key_, options), std::invalid_argument);
    EXPECT_THROW(decrypt_directory(dir_ / "out", dir_ / "home", key_, true), std::invalid_argument);
    EXPECT_THROW(decrypt_directory(dir_ / "out", dir_ / "out", key_, true), std::invalid_argument);
    EXPECT_EQ(read_file(dir_ / "home" / "letter"), "dear");
    fs::remove_all(dir_ / "home");
    decrypt_directory(dir_ / "out", dir_ / "back", key_);
    decrypt_directory(dir_ / "out", dir_ / "back", key_, true);
    expect_same(plain, dir_ / "back");
    fs::remove_all(dir_ / "back");
    options.chunk_bytes = 100;
    EXPECT_THROW(encrypt_directory(plain, dir_ / "small", key_, options), std::invalid_argument);
    // Nothing of all that was cut off is left.
    std::set<std::string> names;
    for (const auto& item : fs::directory_iterator(dir_)) names.insert(item.path().filename());
    EXPECT_EQ(names, (std::set<std::string>{"plain", "out"}));
}

TEST_F(CryptoContainer, LinksAndPipesAreNotFollowedBlindly) {
    const fs::path plain = make("plain", {100});
    write_file(dir_ / "elsewhere", "linked content");
    fs::create_symlink(dir_ / "elsewhere", plain / "link");  // as in a cache of a hub
    const fs::path encrypted = encrypt(plain, "encrypted");
    EXPECT_EQ(open_directory(encrypted, key_)->read("link").text(), "linked content");
    ASSERT_EQ(::mkfifo((plain / "pipe").c_str(), 0600), 0);
    EXPECT_THROW(encrypt_directory(plain, dir_ / "out", key_), ovfast::ModelError);
    // A pipe in place of data or of the header must not hang.
    fs::remove(encrypted / "f0.enc");
    ASSERT_EQ(::mkfifo((encrypted / "f0.enc").c_str(), 0600), 0);
    EXPECT_THROW(open_directory(encrypted, key_), ovfast::DecryptionError);
    fs::remove(encrypted / kHeaderName);
    ASSERT_EQ(::mkfifo((encrypted / kHeaderName).c_str(), 0600), 0);
    EXPECT_THROW(open_directory(encrypted, key_), ovfast::DecryptionError);
}

TEST_F(CryptoContainer, ClosedFilesCannotBeRead) {
    const auto files = open_directory(encrypt(make("plain", {100}), "encrypted"), key_);
    const ovfast::FileBytes kept = files->read("f0");
    files->close();
    EXPECT_THROW(files->read("f0"), ovfast::DecryptionError);
    EXPECT_TRUE(files->has("f0"));
    EXPECT_TRUE(kept.text() == read_file(dir_ / "plain" / "f0"));
}

TEST_F(CryptoContainer, Prefetching) {
    const fs::path encrypted = encrypt(make("plain", {100, 20 * kChunk, 3}), "encrypted");
    const std::string expected = read_file(dir_ / "plain" / "f1");
    {
        const auto files = open_directory(encrypted, key_);
        files->prefetch("f1");
        files->prefetch("f1");
        EXPECT_TRUE(files->read("f1").text() == expected);
        EXPECT_TRUE(files->read("f1").text() == expected);  // decrypted again
        files->prefetch("none");
        EXPECT_THROW(files->read("none"), ovfast::ModelError);
        files->prefetch("f1");
        files->close();
        EXPECT_THROW(files->read("f1"), ovfast::DecryptionError);
    }
    flip(encrypted / "f1.enc", 5000);
    const auto files = open_directory(encrypted, key_);
    files->prefetch("f1");
    EXPECT_THROW(files->read("f1"), ovfast::DecryptionError);
    files->prefetch("f1");  // destroyed while it runs
}

TEST_F(CryptoContainer, RolesFollowNames) {
    EXPECT_EQ(role_of("unet/openvino_model.xml"), Role::kTopology);
    EXPECT_EQ(role_of("openvino_model.bin"), Role::kWeights);
    EXPECT_EQ(role_of("openvino_tokenizer.xml"), Role::kTokenizer);
    EXPECT_EQ(role_of("tokenizer.json"), Role::kTokenizer);
    EXPECT_EQ(role_of("generation_config.json"), Role::kConfig);
    EXPECT_EQ(role_of("chat_template.jinja"), Role::kTemplate);
    EXPECT_EQ(role_of("adapter/adapter_model.safetensors"), Role::kAdapter);
    EXPECT_EQ(role_of("kernels/op.cl"), Role::kKernel);
    EXPECT_EQ(role_of("README.md"), Role::kOther);
}

}  // namespace
