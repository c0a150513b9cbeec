// The primitives against published vectors, keys, and memory that hides what it holds.

#include <sys/mman.h>
#include <sys/stat.h>

#include <cstring>
#include <set>
#include <stdexcept>

#include "crypto_fixtures.hpp"

namespace {

using namespace crypto_test;

struct GcmVector {
    const char* key;
    const char* nonce;
    const char* plain;
    const char* aad;
    const char* cipher;
    const char* tag;
};

// AES-256 of "The Galois/Counter Mode of Operation" (McGrew, Viega), appendix B, which NIST's
// SP 800-38D refers to: test cases 13 to 16.
const GcmVector kGcmVectors[] = {
    {"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000",
     "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
    {"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000",
     "00000000000000000000000000000000", "", "cea7403d4d606b6e074ec5d3baf39d18",
     "d0d1c8a799996bf0265b98b5d48ab919"},
    {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
     "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
     "",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
     "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
     "b094dac5d93471bdec1a502270e3cc6c"},
    {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
     "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
     "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
     "76fc6ece0f4e1768cddf8853bb2d551b"},
};

Nonce nonce_of(const std::string& bytes) {
    Nonce nonce{};
    std::memcpy(nonce.data(), bytes.data(), nonce.size());
    return nonce;
}

TEST(CryptoCipher, GcmVectorsInPiecesOfEverySize) {
    for (const GcmVector& vector : kGcmVectors) {
        const std::string key = unhex(vector.key);
        const std::string plain = unhex(vector.plain);
        const std::string aad = unhex(vector.aad);
        const std::string tag = unhex(vector.tag);
        for (size_t piece = 1; piece <= plain.size() + 1; ++piece) {
            Gcm seal(Gcm::Mode::kEncrypt, data_of(key));
            Gcm open(Gcm::Mode::kDecrypt, data_of(key));
            std::string cipher(plain.size(), '\0');
            std::string back(plain.size(), '\0');
            uint8_t got[kTagBytes];
            for (int message = 0; message < 2; ++message) {  // a context serves many
                seal.begin(nonce_of(unhex(vector.nonce)), aad.data(), aad.size());
                open.begin(nonce_of(unhex(vector.nonce)), aad.data(), aad.size());
                for (size_t at = 0; at < plain.size(); at += piece) {
                    const size_t size = std::min(piece, plain.size() - at);
                    auto* out = reinterpret_cast<uint8_t*>(cipher.data()) + at;
                    seal.update(data_of(plain) + at, out, size);
                    open.update(out, reinterpret_cast<uint8_t*>(back.data()) + at, size);
                }
                seal.finish(got);
                EXPECT_EQ(cipher, unhex(vector.cipher));
                EXPECT_EQ(std::string(got, got + kTagBytes), tag);
                EXPECT_TRUE(open.check(data_of(tag)));
                EXPECT_EQ(back, plain);
            }
        }
    }
}

TEST(CryptoCipher, GcmSeesEveryFlippedBit) {
    const GcmVector& vector = kGcmVectors[3];
    const std::string key = unhex(vector.key);
    const auto opens = [&](std::string cipher, std::string aad, std::string tag,
                           std::string nonce) {
        Gcm gcm(Gcm::Mode::kDecrypt, data_of(key));
        std::string out(cipher.size(), '\0');
        gcm.begin(nonce_of(nonce), aad.data(), aad.size());
        gcm.update(data_of(cipher), reinterpret_cast<uint8_t*>(out.data()), cipher.size());
        return gcm.check(data_of(tag));
    };
    std::string parts[] = {unhex(vector.cipher), unhex(vector.aad), unhex(vector.tag),
                           unhex(vector.nonce)};
    ASSERT_TRUE(opens(parts[0], parts[1], parts[2], parts[3]));
    for (std::string& part : parts) {
        for (size_t bit = 0; bit < part.size() * 8; ++bit) {
            part[bit / 8] = static_cast<char>(part[bit / 8] ^ (1 << bit % 8));
            EXPECT_FALSE(opens(parts[0], parts[1], parts[2], parts[3]));
            part[bit / 8] = static_cast<char>(part[bit / 8] ^ (1 << bit % 8));
        }
    }
}

TEST(CryptoCipher, HkdfVectors) {
    // RFC 5869, test cases 1 and 3.
    const std::string secret = unhex("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b");
    uint8_t out[42];
    const std::string salt = unhex("000102030405060708090a0b0c");
    hkdf(data_of(secret), secret.size(), salt.data(), salt.size(), unhex("f0f1f2f3f4f5f6f7f8f9"),
         out, sizeof out);
    EXPECT_EQ(std::string(out, out + sizeof out),
              unhex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
                    "34007208d5b887185865"));
    hkdf(data_of(secret), secret.size(), "", 0, "", out, sizeof out);
    EXPECT_EQ(std::string(out, out + sizeof out),
              unhex("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
                    "9d201395faa4b61a96c8"));
}

TEST(CryptoCipher, ScryptVectors) {
    // RFC 7914, section 12.
    uint8_t out[64];
    scrypt("password", 8, "NaCl", 4, ScryptCost{10, 8, 16}, out, sizeof out);
    EXPECT_EQ(std::string(out, out + sizeof out),
              unhex("fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"
                    "2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640"));
    scrypt("", 0, "", 0, ScryptCost{4, 1, 1}, out, sizeof out);
    EXPECT_EQ(std::string(out, out + 8), unhex("77d6576238657b20"));
}

TEST(CryptoCipher, KeysOfPartsDiffer) {
    SecureBuffer data_key(kKeyBytes, SecureBuffer::Use::kKey);
    random_bytes(data_key.data(), kKeyBytes);
    const ModelId one{1};
    const ModelId two{2};
    const auto text = [](const SecureBuffer& key) {
        return std::string(key.data(), key.data() + key.size());
    };
    const std::set<std::string> keys{
        text(manifest_key(data_key, one)),  text(manifest_key(data_key, two)),
        text(file_key(data_key, one, "a")), text(file_key(data_key, two, "a")),
        text(file_key(data_key, one, "b")), text(data_key)};
    EXPECT_EQ(keys.size(), 6U);
    EXPECT_EQ(text(file_key(data_key, one, "a")), text(file_key(data_key, one, "a")));
}

TEST(CryptoSecret, BuffersAreLeftOutOfCoreDumps) {
    SecureBuffer buffer(1 << 20);
    buffer.data()[0] = 1;
    // VmFlags of the mapping: "dd" is do not dump.
    std::ifstream maps("/proc/self/smaps");
    char wanted[20];
    std::snprintf(wanted, sizeof wanted, "%lx-", reinterpret_cast<unsigned long>(buffer.data()));
    bool inside = false;
    std::string flags;
    for (std::string line; std::getline(maps, line);) {
        if (line.rfind(wanted, 0) == 0) inside = true;
        if (inside && line.rfind("VmFlags:", 0) == 0) {
            flags = line;
            break;
        }
    }
    ASSERT_TRUE(inside);
    EXPECT_NE(flags.find(" dd"), std::string::npos) << flags;
    EXPECT_EQ(flags.find(" lo") != std::string::npos, buffer.locked()) << flags;
}

TEST(CryptoSecret, MoveLeavesNothingBehind) {
    SecureBuffer one(100);
    one.data()[99] = 7;
    SecureBuffer two(std::move(one));
    EXPECT_EQ(two.data()[99], 7);
    EXPECT_EQ(two.size(), 100U);
    two = SecureBuffer();
    EXPECT_EQ(SecureBuffer(0).data(), nullptr);
}

class CryptoKey : public CryptoTest {
protected:
    Key from(const std::string& content) {
        write_file(dir_ / "key", content);
        return Key::from_file(dir_ / "key");
    }
    static std::string bytes_of(const Key& key) {
        const SecureBuffer& bytes = key.secret().bytes;
        return {bytes.data(), bytes.data() + bytes.size()};
    }
};

TEST_F(CryptoKey, FileIsWrittenForItsOwnerAndReadBack) {
    key_.write(dir_ / "new");
    struct stat status{};
    ASSERT_EQ(::stat((dir_ / "new").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600U);
    EXPECT_EQ(key_file_warning(dir_ / "new"), "");
    EXPECT_EQ(bytes_of(Key::from_file(dir_ / "new")), bytes_of(key_));
    EXPECT_THROW(key_.write(dir_ / "new"), ovfast::Error);
    EXPECT_EQ(bytes_of(Key::from_file(dir_ / "new")), bytes_of(key_));
    ::chmod((dir_ / "new").c_str(), 0644);
    EXPECT_NE(key_file_warning(dir_ / "new").find("0644"), std::string::npos);
}

TEST_F(CryptoKey, FileMayHoldDigitsOrBytes) {
    const std::string raw = random_text(32, 1);
    EXPECT_EQ(bytes_of(from(raw)), raw);
    const std::string digits(64, 'a');
    EXPECT_EQ(bytes_of(from(digits)), std::string(32, '\xaa'));
    EXPECT_EQ(bytes_of(from(" " + std::string(64, 'A') + "\r\n")), std::string(32, '\xaa'));
}

TEST_F(CryptoKey, AnythingElseIsRefusedWithoutBeingShown) {
    for (const std::string& content :
         {std::string(), std::string("secret"), std::string(31, 'x'), std::string(33, 'x'),
          std::string(63, 'a'), std::string(65, 'a'), std::string(63, 'a') + "g",
          std::string(5000, 'a')}) {
        try {
            from(content);
            ADD_FAILURE() << content.size();
        } catch (const std::invalid_argument& error) {
            const std::string what = error.what();
            EXPECT_NE(what.find("64 hexadecimal digits"), std::string::npos);
            EXPECT_EQ(what.find("secret"), std::string::npos);
            EXPECT_EQ(what.find("aaa"), std::string::npos);
        }
    }
    EXPECT_THROW(Key::from_file(dir_ / "none"), ovfast::Error);
    EXPECT_THROW(Key::from_bytes("x", 1), std::invalid_argument);
    EXPECT_THROW(Key::from_passphrase("", 0), std::invalid_argument);
    EXPECT_THROW(Key::from_passphrase("x", 1).write(dir_ / "p"), std::invalid_argument);
}

TEST_F(CryptoKey, Environment) {
    ::setenv("OVFAST_TEST_KEY", std::string(64, '1').c_str(), 1);
    EXPECT_EQ(bytes_of(Key::from_env("OVFAST_TEST_KEY")), std::string(32, '\x11'));
    ::setenv("OVFAST_TEST_KEY", "short", 1);
    EXPECT_THROW(Key::from_env("OVFAST_TEST_KEY"), std::invalid_argument);
    ::unsetenv("OVFAST_TEST_KEY");
    EXPECT_THROW(Key::from_env("OVFAST_TEST_KEY"), std::invalid_argument);
}

TEST_F(CryptoKey, WrappingDependsOnEverythingAroundIt) {
    WrappedKey made = make_data_key(key_);
    const auto same = [&](const SecureBuffer& other) {
        return std::memcmp(made.data_key.data(), other.data(), kKeyBytes) == 0;
    };
    EXPECT_TRUE(same(unwrap(made.header, key_)));
    EXPECT_THROW(unwrap(made.header, Key::generate()), ovfast::DecryptionError);
    EXPECT_THROW(unwrap(made.header, Key::from_passphrase("x", 1)), ovfast::DecryptionError);
    Header other = made.header;
    other.model[0] ^= 1;
    EXPECT_THROW(unwrap(other, key_), ovfast::DecryptionError);
    other = made.header;
    other.wrapping.salt[3] ^= 1;
    EXPECT_THROW(unwrap(other, key_), ovfast::DecryptionError);
    // Two wrappings share nothing.
    other = made.header;
    wrap(other, made.data_key, key_);
    EXPECT_NE(other.wrapping.salt, made.header.wrapping.salt);
    EXPECT_NE(other.wrapping.nonce, made.header.wrapping.nonce);
    EXPECT_NE(other.wrapping.wrapped, made.header.wrapping.wrapped);
    EXPECT_TRUE(same(unwrap(other, key_)));
}

TEST_F(CryptoKey, PassphraseOpensItsOwn) {
    const Key passphrase = Key::from_passphrase("correct horse", 13);
    WrappedKey made = make_data_key(passphrase);
    EXPECT_NO_THROW(unwrap(made.header, Key::from_passphrase("correct horse", 13)));
    EXPECT_THROW(unwrap(made.header, Key::from_passphrase("correct horsf", 13)),
                 ovfast::DecryptionError);
    EXPECT_THROW(unwrap(made.header, key_), ovfast::DecryptionError);
}

}  // namespace
