#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>

#include "crypto/key.hpp"
#include "ovfast/error.hpp"

namespace crypto_test {

namespace fs = std::filesystem;
using namespace ovfast::crypto;

inline std::string unhex(const std::string& digits) {
    std::string bytes;
    for (size_t i = 0; i + 1 < digits.size(); i += 2) {
        bytes += static_cast<char>(hex_digit(digits[i]) * 16 + hex_digit(digits[i + 1]));
    }
    return bytes;
}

inline const uint8_t* data_of(const std::string& bytes) {
    return reinterpret_cast<const uint8_t*>(bytes.data());
}

inline std::string random_text(size_t bytes, uint32_t seed) {
    std::mt19937_64 random(seed);
    std::string text(bytes, '\0');
    for (char& c : text) c = static_cast<char>(random());
    return text;
}

inline std::string read_file(const fs::path& file) {
    std::ifstream stream(file, std::ios::binary);
    std::ostringstream content;
    content << stream.rdbuf();
    return content.str();
}

inline void write_file(const fs::path& file, const std::string& content) {
    fs::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary | std::ios::trunc) << content;
}

/// A folder of its own for each test.
class CryptoTest : public testing::Test {
protected:
    CryptoTest() {
        const auto* info = testing::UnitTest::GetInstance()->current_test_info();
        std::string name = std::string(info->test_suite_name()) + "." + info->name();
        std::replace(name.begin(), name.end(), '/', '-');
        dir_ = fs::temp_directory_path() / (name + "." + std::to_string(::getpid()));
        fs::remove_all(dir_);
        fs::create_directories(dir_);
    }
    ~CryptoTest() override { fs::remove_all(dir_); }

    fs::path dir_;
    Key key_ = Key::generate();
};

/// What `call` throws as DecryptionError; fails when it throws nothing or something else.
template <typename Call>
std::string decryption_error(const Call& call) {
    try {
        call();
    } catch (const ovfast::DecryptionError& error) {
        return error.what();
    } catch (const std::exception& error) {
        ADD_FAILURE() << "another error: " << error.what();
        return "";
    }
    ADD_FAILURE() << "no error";
    return "";
}

}  // namespace crypto_test
