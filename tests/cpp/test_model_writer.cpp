#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <memory>
#include <openvino/opsets/opset13.hpp>
#include <openvino/runtime/core.hpp>
#include <sstream>
#include <string>

#include "kernels/pack.hpp"
#include "ops/packed_ops.hpp"
#include "ovfast/error.hpp"
#include "ovfast/ops.hpp"
#include "runtime/model_writer.hpp"
#include "runtime/pack_manifest.hpp"

namespace {

namespace fs = std::filesystem;
namespace op = ov::opset13;
namespace kernels = ovfast::kernels;
using ovfast::ModelFiles;
using ovfast::PackManifest;

constexpr size_t kRows = 20;
constexpr size_t kColumns = 64;

std::shared_ptr<op::Constant> packed_constant(uint8_t seed, size_t lead, size_t spare) {
    kernels::PlainWeights plain;
    plain.format.bits = 8;
    plain.format.scales = kernels::ScaleKind::F32;
    plain.rows = kRows;
    plain.columns = kColumns;
    for (size_t i = 0; i < kRows * kColumns; ++i) {
        plain.codes.push_back(static_cast<uint8_t>(i * 31 + seed));
    }
    plain.scales.assign(kRows * kColumns / plain.format.group, 0.25F);
    const size_t size = kernels::packed_bytes(plain.format, kRows, kColumns);
    std::vector<uint8_t> bytes(lead + size + spare, 0);
    kernels::pack(plain, bytes.data() + lead);
    return op::Constant::create(ov::element::u8, {bytes.size()}, bytes);
}

std::shared_ptr<ov::Model> chain(const std::vector<std::shared_ptr<op::Constant>>& weights) {
    const auto input = std::make_shared<op::Parameter>(ov::element::f32, ov::Shape{1, kColumns});
    ov::OutputVector outputs;
    for (size_t i = 0; i < weights.size(); ++i) {
        ovfast::ops::FullyConnected::Attributes attributes;
        attributes.rows = kRows;
        attributes.columns = kColumns;
        // A constant of an odd length before each, so that nothing is aligned by chance.
        const auto bias =
            op::Constant::create(ov::element::u8, {1 + i}, std::vector<uint8_t>(1 + i, 9));
        const auto sum = std::make_shared<op::ReduceSum>(
            std::make_shared<op::Convert>(bias, ov::element::f32),
            op::Constant::create(ov::element::i64, {1}, {0}), false);
        const auto shifted = std::make_shared<op::Add>(input, sum);
        outputs.push_back(std::make_shared<ovfast::ops::FullyConnected>(
            ov::OutputVector{shifted, weights[i]}, attributes));
    }
    return std::make_shared<ov::Model>(outputs, ov::ParameterVector{input});
}

std::vector<float> results_of(const std::shared_ptr<ov::Model>& model) {
    ov::Tensor input(ov::element::f32, {1, kColumns});
    for (size_t i = 0; i < kColumns; ++i) input.data<float>()[i] = static_cast<float>(i % 7) - 3;
    ov::TensorVector outputs;
    for (const auto& output : model->outputs())
        outputs.emplace_back(output.get_element_type(), output.get_shape());
    EXPECT_TRUE(model->evaluate(outputs, {input}));
    std::vector<float> values;
    for (const auto& output : outputs) {
        values.insert(values.end(), output.data<float>(), output.data<float>() + output.get_size());
    }
    return values;
}

class ModelWriter : public testing::Test {
protected:
    ModelWriter()
        : directory_(fs::temp_directory_path() / ("ovfast_writer_" + std::to_string(::getpid()))) {
        fs::create_directories(directory_);
    }
    ~ModelWriter() override { fs::remove_all(directory_); }

    std::shared_ptr<ov::Model> read() {
        ov::Core core;
        ovfast::register_ops(core);
        return core.read_model(directory_ / "openvino_model.xml");
    }
    std::string bytes_of(const char* name) {
        std::ifstream stream(directory_ / name, std::ios::binary);
        std::ostringstream content;
        content << stream.rdbuf();
        return content.str();
    }
    void flip(const char* name, uint64_t at) {
        std::string bytes = bytes_of(name);
        bytes.at(at) = static_cast<char>(bytes.at(at) ^ 4);
        std::ofstream(directory_ / name, std::ios::binary) << bytes;
    }
    PackManifest write(const std::shared_ptr<ov::Model>& model) {
        PackManifest manifest;
        manifest.segments = ovfast::write_model(model, directory_);
        manifest.describe(directory_);
        manifest.write(directory_);
        return manifest;
    }

    fs::path directory_;
};

TEST_F(ModelWriter, PackedWeightsAreAlignedInTheFile) {
    const auto model = chain({packed_constant(1, 0, 64), packed_constant(2, 0, 64)});
    const auto segments = ovfast::write_model(model, directory_);
    ASSERT_EQ(segments.size(), 2U);
    const std::string bin = bytes_of("openvino_model.bin");
    for (const auto& segment : segments) {
        EXPECT_EQ(segment.offset % 64, 0U);
        EXPECT_EQ(bin.compare(segment.offset, 7, "OVFPACK"), 0);
        EXPECT_NO_THROW(
            kernels::PackedWeights::view(bin.data() + segment.offset, segment.bytes).verify());
    }
    EXPECT_EQ(results_of(read()), results_of(model));
}

TEST_F(ModelWriter, ConstantsThatWereMovedAreMovedAgain) {
    ovfast::write_model(chain({packed_constant(1, 0, 64), packed_constant(2, 0, 64)}), directory_);
    const auto again = read();
    const fs::path first = directory_;
    directory_ /= "again";
    fs::create_directory(directory_);
    for (const auto& segment : ovfast::write_model(again, directory_)) {
        EXPECT_EQ(segment.offset % 64, 0U);
    }
    EXPECT_EQ(results_of(read()), results_of(again));
    directory_ = first;
}

TEST_F(ModelWriter, WithoutSpareBytesTheyStayWhereTheyAre) {
    const auto model = chain({packed_constant(1, 0, 0), packed_constant(2, 3, 5)});
    const auto segments = ovfast::write_model(model, directory_);
    ASSERT_EQ(segments.size(), 2U);
    const std::string bin = bytes_of("openvino_model.bin");
    for (const auto& segment : segments) {
        EXPECT_EQ(bin.compare(segment.offset, 7, "OVFPACK"), 0);
    }
    EXPECT_EQ(results_of(read()), results_of(model));
}

TEST_F(ModelWriter, OneConstantForTwoLayersIsWrittenOnce) {
    const auto shared = packed_constant(1, 0, 64);
    const auto model = chain({shared, shared, packed_constant(1, 0, 64)});
    EXPECT_EQ(ovfast::write_model(model, directory_).size(), 1U);
    EXPECT_EQ(results_of(read()), results_of(model));
}

TEST_F(ModelWriter, BytesThatOnlyLookPackedAreLeftAlone) {
    std::vector<uint8_t> bytes(200, 7);
    std::copy_n("OVFPACK", 8, bytes.begin() + 5);
    const auto constant = op::Constant::create(ov::element::u8, {bytes.size()}, bytes);
    const auto model =
        std::make_shared<ov::Model>(ov::OutputVector{constant}, ov::ParameterVector{});
    EXPECT_TRUE(ovfast::write_model(model, directory_).empty());
    EXPECT_EQ(bytes_of("openvino_model.bin"), std::string(bytes.begin(), bytes.end()));
}

TEST_F(ModelWriter, ADiskThatIsFullIsAnError) {
    if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
    fs::create_symlink("/dev/full", directory_ / "openvino_model.bin");
    EXPECT_THROW(ovfast::write_model(chain({packed_constant(1, 0, 64)}), directory_),
                 ovfast::Error);
    fs::remove(directory_ / "openvino_model.bin");
}

TEST_F(ModelWriter, AManifestReadsAsItWasWritten) {
    PackManifest manifest = write(chain({packed_constant(1, 0, 64)}));
    manifest.source = "0123456789abcdef";
    manifest.layers = {{"a layer\twith\ntabs", "QKV", "", "u4 g32 f16 symmetric, bf16", 5, 3},
                       {"left", "", "weights are not constant", "", 7, 0}};
    manifest.notes = {"a note"};
    manifest.write(directory_);
    const PackManifest read = PackManifest::read(*ModelFiles::folder(directory_));
    EXPECT_EQ(read.source, manifest.source);
    EXPECT_EQ(read.rest_checksum, manifest.rest_checksum);
    ASSERT_EQ(read.layers.size(), 2U);
    EXPECT_EQ(read.layers[0].name, "a layer with tabs");
    EXPECT_EQ(read.layers[0].format, "u4 g32 f16 symmetric, bf16");
    EXPECT_EQ(read.layers[0].packed_bytes, 3U);
    EXPECT_EQ(read.layers[1].operation, "");
    EXPECT_EQ(read.layers[1].reason, "weights are not constant");
    EXPECT_EQ(read.notes, manifest.notes);
    EXPECT_TRUE(read.packs());
}

TEST_F(ModelWriter, EveryByteIsCovered) {
    const PackManifest manifest =
        write(chain({packed_constant(1, 0, 64), packed_constant(2, 0, 64)}));
    EXPECT_NO_THROW(manifest.verify_frame(*ModelFiles::folder(directory_)));
    EXPECT_NO_THROW(manifest.verify_weights(*ModelFiles::folder(directory_)));
    const std::string bin = bytes_of("openvino_model.bin");
    for (size_t at = 0; at < bin.size(); at += 37) {
        flip("openvino_model.bin", at);
        EXPECT_THROW(
            {
                manifest.verify_frame(*ModelFiles::folder(directory_));
                manifest.verify_weights(*ModelFiles::folder(directory_));
            },
            ovfast::ModelError)
            << at;
        flip("openvino_model.bin", at);
    }
    const std::string xml = bytes_of("openvino_model.xml");
    for (size_t at = 0; at < xml.size(); at += 101) {
        flip("openvino_model.xml", at);
        EXPECT_THROW(manifest.verify_frame(*ModelFiles::folder(directory_)), ovfast::ModelError)
            << at;
        flip("openvino_model.xml", at);
    }
    const std::string text = bytes_of(PackManifest::kName);
    for (size_t at = 0; at < text.size(); ++at) {
        flip(PackManifest::kName, at);
        EXPECT_THROW(PackManifest::read(*ModelFiles::folder(directory_)), ovfast::ModelError) << at;
        flip(PackManifest::kName, at);
    }
    EXPECT_NO_THROW(PackManifest::read(*ModelFiles::folder(directory_)));
}

TEST_F(ModelWriter, OtherLengthsAreRefused) {
    const PackManifest manifest = write(chain({packed_constant(1, 0, 64)}));
    for (const char* name : {"openvino_model.bin", "openvino_model.xml"}) {
        const std::string whole = bytes_of(name);
        for (const std::string& other :
             {whole.substr(0, whole.size() - 1), whole + " ", std::string()}) {
            std::ofstream(directory_ / name, std::ios::binary) << other;
            EXPECT_THROW(manifest.verify_frame(*ModelFiles::folder(directory_)),
                         ovfast::ModelError);
        }
        std::ofstream(directory_ / name, std::ios::binary) << whole;
    }
    const std::string text = bytes_of(PackManifest::kName);
    for (size_t length = 0; length < text.size(); ++length) {
        std::ofstream(directory_ / PackManifest::kName, std::ios::binary) << text.substr(0, length);
        EXPECT_THROW(PackManifest::read(*ModelFiles::folder(directory_)), ovfast::ModelError)
            << length;
    }
}

TEST_F(ModelWriter, AnotherLayoutVersionIsRefused) {
    write(chain({packed_constant(1, 0, 64)}));
    std::string text = bytes_of(PackManifest::kName);
    const std::string layout = "layout\t" + std::to_string(kernels::kLayoutVersion);
    text.replace(text.find(layout), layout.size(), "layout\t99");
    text.resize(text.rfind("checksum\t"));
    std::ostringstream sum;
    sum << std::hex << std::setw(16) << std::setfill('0')
        << kernels::checksum(text.data(), text.size());
    std::ofstream(directory_ / PackManifest::kName, std::ios::binary)
        << text << "checksum\t" << sum.str() << '\n';
    try {
        PackManifest::read(*ModelFiles::folder(directory_));
        FAIL();
    } catch (const ovfast::ModelError& error) {
        EXPECT_NE(std::string(error.what()).find("layout version 99"), std::string::npos)
            << error.what();
    }
}

}  // namespace
