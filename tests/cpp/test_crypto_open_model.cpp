// Encrypted IRs as models of OpenVINO, from our directories and from files of `openssl enc`.

#include <openvino/op/add.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/op/matmul.hpp>
#include <openvino/op/parameter.hpp>
#include <openvino/op/result.hpp>
#include <openvino/pass/serialize.hpp>
#include <openvino/runtime/core.hpp>

#include "crypto_fixtures.hpp"
#include "ovfast/crypto.hpp"

namespace {

using namespace crypto_test;
namespace op = ov::op::v0;

constexpr size_t kWidth = 64;
constexpr const char* kCipher = "aes-192-cbc";
const std::string kKeyHex(48, '7');
const std::string kIvHex(32, '3');

class CryptoOpenModel : public CryptoTest {
protected:
    CryptoOpenModel() {
        const auto x = std::make_shared<op::Parameter>(ov::element::f32, ov::Shape{1, kWidth});
        std::vector<float> values(kWidth * kWidth);
        for (size_t i = 0; i < values.size(); ++i) {
            values[i] = static_cast<float>(i * 7919 % 1000) / 1000;
        }
        const auto weights =
            op::Constant::create(ov::element::f32, ov::Shape{kWidth, kWidth}, values);
        const auto y = std::make_shared<op::MatMul>(x, weights, false, true);
        const auto model = std::make_shared<ov::Model>(ov::OutputVector{y}, ov::ParameterVector{x});
        fs::create_directories(dir_ / "plain");
        ov::pass::Serialize((dir_ / "plain" / "openvino_model.xml").string(),
                            (dir_ / "plain" / "openvino_model.bin").string())
            .run_on_model(model);
    }

    /// By the operations themselves: the plugin loads libraries in a way that AddressSanitizer
    /// refuses. tests/python/test_crypto.py compiles.
    static std::vector<float> run(const std::shared_ptr<ov::Model>& model) {
        ov::Tensor input(ov::element::f32, {1, kWidth});
        for (size_t i = 0; i < kWidth; ++i) input.data<float>()[i] = static_cast<float>(i);
        ov::TensorVector outputs{ov::Tensor(ov::element::f32, {1, kWidth})};
        EXPECT_TRUE(model->evaluate(outputs, {input}));
        const auto* values = outputs[0].data<float>();
        return {values, values + kWidth};
    }
    fs::path plain(const char* name) const { return dir_ / "plain" / name; }
    std::vector<float> expected() { return run(core_.read_model(plain("openvino_model.xml"))); }

    ov::Core core_;
};

TEST_F(CryptoOpenModel, RunsLikeThePlainOne) {
    encrypt_directory(dir_ / "plain", dir_ / "enc", key_);
    EXPECT_EQ(run(open_model(core_, dir_ / "enc", key_)), expected());
    EXPECT_THROW(open_model(core_, dir_ / "enc", Key::generate()), ovfast::DecryptionError);
    EXPECT_THROW(open_model(core_, dir_ / "enc", key_, "other.xml"), ovfast::ModelError);
}

// The model outlives everything that it was read from, key and files, and its weights do too.
TEST_F(CryptoOpenModel, WeightsLiveAsLongAsTheModel) {
    std::shared_ptr<ov::Model> model;
    {
        const Key key = Key::generate();
        encrypt_directory(dir_ / "plain", dir_ / "enc", key);
        ov::Core core;
        model = open_model(core, dir_ / "enc", key);
        fs::remove_all(dir_ / "enc");
    }
    EXPECT_EQ(run(model), expected());
}

TEST_F(CryptoOpenModel, WhatOpenVinoSaysOfAnEncryptedGraphIsNotRepeated) {
    write_file(plain("openvino_model.xml"), "<net secret-name=\"x\"></net>");
    encrypt_directory(dir_ / "plain", dir_ / "enc", key_);
    try {
        open_model(core_, dir_ / "enc", key_);
        ADD_FAILURE();
    } catch (const ovfast::ModelError& error) {
        const std::string what = error.what();
        EXPECT_NE(what.find("openvino_model.xml"), std::string::npos);
        EXPECT_EQ(what.find("secret-name"), std::string::npos);
    }
}

TEST_F(CryptoOpenModel, FilesOfOpenSsl) {
    const OpenSslCipher cipher(kCipher, kKeyHex, kIvHex);
    for (const char* name : {"openvino_model.xml", "openvino_model.bin"}) {
        cipher.encrypt(plain(name), dir_ / name);
        EXPECT_EQ(fs::file_size(dir_ / name), (fs::file_size(plain(name)) / 16 + 1) * 16);
        EXPECT_EQ(cipher.read(dir_ / name).text(), read_file(plain(name)));
    }
    const fs::path xml = dir_ / "openvino_model.xml";
    const fs::path bin = dir_ / "openvino_model.bin";
    EXPECT_EQ(run(cipher.open_model(core_, xml, bin)), expected());
    // A wrong vector spoils the first block only: no padding sees it.
    const OpenSslCipher wrong(kCipher, kKeyHex, std::string(32, '4'));
    EXPECT_THROW(wrong.open_model(core_, xml, bin), ovfast::DecryptionError);
    EXPECT_THROW(cipher.open_model(core_, bin, xml), ovfast::DecryptionError);
    // Weights that are too short for their graph.
    write_file(plain("short"), read_file(plain("openvino_model.bin")).substr(0, 100));
    cipher.encrypt(plain("short"), bin);
    EXPECT_THROW(cipher.open_model(core_, xml, bin), ovfast::DecryptionError);
}

TEST_F(CryptoOpenModel, WrongKeysThatPassThePadding) {
    const OpenSslCipher cipher(kCipher, kKeyHex, kIvHex);
    cipher.encrypt(plain("openvino_model.xml"), dir_ / "xml");
    cipher.encrypt(plain("openvino_model.bin"), dir_ / "bin");
    int passed = 0;
    for (int i = 0; i < 5000 && passed < 5; ++i) {
        char digits[49];
        std::snprintf(digits, sizeof digits, "%048d", i);
        const OpenSslCipher wrong(kCipher, digits, kIvHex);
        try {
            EXPECT_FALSE(looks_like_ir(wrong.read(dir_ / "xml").text()));
            ++passed;
        } catch (const ovfast::DecryptionError&) {
            continue;
        }
        EXPECT_THROW(wrong.open_model(core_, dir_ / "xml", dir_ / "bin"), ovfast::DecryptionError);
    }
    EXPECT_EQ(passed, 5);
}

}  // namespace
