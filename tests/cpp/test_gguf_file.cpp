#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <tuple>
#include <vector>

#include "ovfast/error.hpp"
#include "ovfast/gguf.hpp"

namespace ovfast {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

// Value types of GGUF's metadata.
constexpr uint32_t u32 = 4, i32 = 5, f32 = 6, boolean = 7, text = 8, array = 9, u64 = 10;
// Tensor types of GGML.
constexpr uint32_t type_f32 = 0, type_q4_k = 12, type_q8_0 = 8;

class Bytes {
public:
    template <typename T>
    Bytes& put(T value) {
        data_.append(reinterpret_cast<const char*>(&value), sizeof(value));
        return *this;
    }
    Bytes& put_text(const std::string& value) {
        put<uint64_t>(value.size());
        data_ += value;
        return *this;
    }
    Bytes& put_tensor(const std::string& name, const std::vector<uint64_t>& shape, uint32_t type,
                      uint64_t offset) {
        put_text(name).put<uint32_t>(static_cast<uint32_t>(shape.size()));
        for (const uint64_t dimension : shape) put(dimension);
        return put(type).put(offset);
    }
    Bytes& pad(size_t alignment) {
        data_.append((alignment - data_.size() % alignment) % alignment, '\0');
        return *this;
    }
    Bytes& append(size_t count) {
        data_.append(count, '\x55');
        return *this;
    }
    const std::string& data() const { return data_; }

private:
    std::string data_;
};

class GgufFile : public ::testing::Test {
protected:
    void SetUp() override {
        path_ = std::filesystem::temp_directory_path() /
                ("ovfast-gguf-" + std::to_string(::getpid()) + "-" +
                 ::testing::UnitTest::GetInstance()->current_test_info()->name() + ".gguf");
    }
    void TearDown() override { std::filesystem::remove(path_); }

    GgufHeader read(const std::string& content, bool with_arrays = false) const {
        // Some file systems flush a file that is cut and written again: a new one takes no time.
        std::filesystem::remove(path_);
        std::ofstream(path_, std::ios::binary) << content;
        return read_gguf_header(path_, with_arrays);
    }

    /// The message of the ModelError; fails on any other outcome.
    std::string fault(const std::string& content) const {
        try {
            read(content);
        } catch (const ModelError& error) {
            return error.what();
        }
        ADD_FAILURE() << "no ModelError";
        return "";
    }

    std::filesystem::path path_;
};

Bytes begin(uint64_t tensors, uint64_t values, uint32_t version = 3) {
    Bytes bytes;
    bytes.put('G').put('G').put('U').put('F').put(version).put(tensors).put(values);
    return bytes;
}

/// Two tensors, every kind of metadata; the header ends where `header_bytes` says.
std::string valid_file(uint32_t version = 3, size_t* header_bytes = nullptr) {
    Bytes bytes = begin(2, 9, version);
    bytes.put_text("general.architecture").put(text).put_text("qwen2");
    bytes.put_text("general.alignment").put(u32).put<uint32_t>(64);
    bytes.put_text("qwen2.context_length").put(u32).put<uint32_t>(4096);
    bytes.put_text("qwen2.eps").put(f32).put(0.5f);
    bytes.put_text("a.flag").put(boolean).put<uint8_t>(1);
    bytes.put_text("a.signed").put(i32).put<int32_t>(-7);
    bytes.put_text("a.large").put(u64).put<uint64_t>(uint64_t{1} << 40);
    bytes.put_text("a.tokens").put(array).put(text).put<uint64_t>(2);
    bytes.put_text("one").put_text("two");
    bytes.put_text("a.numbers").put(array).put(i32).put<uint64_t>(3);
    bytes.put<int32_t>(1).put<int32_t>(-2).put<int32_t>(3);
    bytes.put_tensor("small", {8}, type_f32, 0);
    bytes.put_tensor("large", {512, 3}, type_q4_k, 64);
    if (header_bytes) *header_bytes = bytes.data().size();
    bytes.pad(64).append(64 + 6 * 144);
    return bytes.data();
}

/// A file with one tensor and nothing behind its header.
std::string with_tensor(const std::vector<uint64_t>& shape, uint32_t type, uint64_t offset = 0) {
    Bytes bytes = begin(1, 1);
    bytes.put_text("general.architecture").put(text).put_text("llama");
    bytes.put_tensor("w", shape, type, offset);
    return bytes.data();
}

TEST_F(GgufFile, ReadsVersions2And3) {
    for (const uint32_t version : {2u, 3u}) {
        size_t header_bytes = 0;
        const std::string content = valid_file(version, &header_bytes);
        const GgufHeader header = read(content, true);
        EXPECT_EQ(header.version, version);
        EXPECT_EQ(header.architecture, "qwen2");
        EXPECT_EQ(header.context_length, 4096u);
        EXPECT_EQ(header.file_size, content.size());
        ASSERT_EQ(header.tensors.size(), 2u);
        const uint64_t data = (header_bytes + 63) / 64 * 64;
        EXPECT_EQ(header.tensors[0].name, "small");
        EXPECT_EQ(header.tensors[0].type, "F32");
        EXPECT_EQ(header.tensors[0].offset, data);
        EXPECT_EQ(header.tensors[0].size, 32u);
        EXPECT_EQ(header.tensors[1].type, "Q4_K");
        EXPECT_THAT(header.tensors[1].shape, ElementsAre(512, 3));
        EXPECT_EQ(header.tensors[1].offset, data + 64);
        EXPECT_EQ(header.tensors[1].size, 6u * 144);
        EXPECT_THAT(header.bytes_by_type(), ElementsAre(Pair("F32", 32), Pair("Q4_K", 6 * 144)));
    }
}

TEST_F(GgufFile, ReadsMetadataOfEveryKind) {
    const auto metadata = read(valid_file(), true).metadata;
    EXPECT_EQ(std::get<double>(metadata.at("qwen2.eps")), 0.5);
    EXPECT_EQ(std::get<bool>(metadata.at("a.flag")), true);
    EXPECT_EQ(std::get<int64_t>(metadata.at("a.signed")), -7);
    EXPECT_EQ(std::get<uint64_t>(metadata.at("a.large")), uint64_t{1} << 40);
    EXPECT_THAT(std::get<std::vector<std::string>>(metadata.at("a.tokens")),
                ElementsAre("one", "two"));
    EXPECT_THAT(std::get<std::vector<int64_t>>(metadata.at("a.numbers")), ElementsAre(1, -2, 3));
}

TEST_F(GgufFile, KeepsArraysOnlyWhenAsked) {
    const auto metadata = read(valid_file()).metadata;
    EXPECT_EQ(metadata.count("a.tokens"), 0u);
    EXPECT_EQ(metadata.count("a.flag"), 1u);
}

TEST_F(GgufFile, EveryTruncationIsAModelError) {
    const std::string content = valid_file();
    for (size_t size = 0; size < content.size(); ++size) {
        SCOPED_TRACE(size);
        EXPECT_NE(fault(content.substr(0, size)), "");
    }
}

TEST_F(GgufFile, SingleBitFlipsNeverCrash) {
    size_t header_bytes = 0;
    const std::string content = valid_file(3, &header_bytes);
    size_t refused = 0;
    for (size_t at = 0; at < header_bytes; ++at) {
        for (int bit = 0; bit < 8; ++bit) {
            std::string flipped = content;
            flipped[at] = static_cast<char>(flipped[at] ^ (1 << bit));
            try {
                const GgufHeader header = read(flipped, true);
                for (const GgufTensor& tensor : header.tensors) {
                    EXPECT_LE(tensor.offset + tensor.size, content.size());
                }
            } catch (const ModelError&) {
                ++refused;
            }
        }
    }
    // Most flips hit names and values, which nothing can check; lengths and counts are a good part.
    EXPECT_GT(refused, header_bytes);
}

TEST_F(GgufFile, TruncatedDataNamesTheTensorAndBytes) {
    const std::string content = valid_file();
    EXPECT_THAT(fault(content.substr(0, content.size() - 100)),
                AllOf(HasSubstr("'large' (Q4_K)"), HasSubstr("expected 864 bytes"),
                      HasSubstr("present 764")));
    EXPECT_THAT(
        fault(content.substr(0, content.size() - 864 - 40)),
        AllOf(HasSubstr("'small' (F32)"), HasSubstr("expected 32 bytes"), HasSubstr("present 24")));
}

TEST_F(GgufFile, TruncatedMetadataNamesTheKey) {
    const std::string content = valid_file();
    EXPECT_THAT(fault(content.substr(0, content.find("two"))), HasSubstr("'a.tokens'"));
}

TEST_F(GgufFile, UnknownTensorTypeIsNamed) {
    EXPECT_THAT(fault(with_tensor({32}, 77)),
                AllOf(HasSubstr("tensor 'w'"), HasSubstr("type number 77")));
    EXPECT_THAT(fault(with_tensor({32}, 4)), HasSubstr("type number 4"));
}

TEST_F(GgufFile, KnowsTheSizesOfQuantizedTypes) {
    // GGML's number, elements and bytes of a block
    const std::vector<std::tuple<uint32_t, uint64_t, uint64_t, std::string>> types{
        {1, 1, 2, "F16"},         {2, 32, 18, "Q4_0"},
        {6, 32, 22, "Q5_0"},      {type_q8_0, 32, 34, "Q8_0"},
        {14, 256, 210, "Q6_K"},   {16, 256, 66, "IQ2_XXS"},
        {23, 256, 136, "IQ4_XS"}, {29, 256, 56, "IQ1_M"},
        {30, 1, 2, "BF16"},       {34, 256, 54, "TQ1_0"},
        {39, 32, 17, "MXFP4"}};
    for (const auto& [number, elements, bytes, name] : types) {
        SCOPED_TRACE(name);
        EXPECT_THAT(fault(with_tensor({elements * 2, 3}, number)),
                    AllOf(HasSubstr("(" + name + ")"),
                          HasSubstr("expected " + std::to_string(bytes * 6) + " bytes")));
    }
}

TEST_F(GgufFile, RefusesImpossibleShapes) {
    EXPECT_THAT(fault(with_tensor({}, type_f32) + std::string(64, 0)), HasSubstr("0 dimensions"));
    EXPECT_THAT(fault(with_tensor({1, 1, 1, 1, 1}, type_f32)), HasSubstr("5 dimensions"));
    EXPECT_THAT(fault(with_tensor({8, 0}, type_f32)), HasSubstr("dimension of 0"));
    EXPECT_THAT(fault(with_tensor({100}, type_q4_k)), HasSubstr("blocks of 256"));
    const uint64_t huge = uint64_t{1} << 62;
    EXPECT_THAT(fault(with_tensor({huge, 4}, type_f32)), HasSubstr("overflows"));
    EXPECT_THAT(fault(with_tensor({huge}, type_f32)), HasSubstr("overflows"));
    EXPECT_THAT(fault(with_tensor({8}, type_f32, ~uint64_t{31})), HasSubstr("overflows"));
    EXPECT_THAT(fault(with_tensor({8}, type_f32, 8)), HasSubstr("alignment"));
}

TEST_F(GgufFile, RefusesOtherFilesAndVersions) {
    EXPECT_THAT(fault("PK\x03\x04 not a model"), HasSubstr("not a GGUF file"));
    EXPECT_THAT(fault(""), HasSubstr("not a GGUF file"));
    EXPECT_THAT(fault(begin(0, 0, 1).data()), HasSubstr("version 1"));
    EXPECT_THAT(fault(begin(0, 0, 4).data()), HasSubstr("version 4"));
    EXPECT_THAT(fault(begin(0, 0, 0x03000000).data()), HasSubstr("big-endian"));
    EXPECT_THROW(read_gguf_header("/no/such/file.gguf"), ModelError);
    EXPECT_THROW(read_gguf_header(std::filesystem::temp_directory_path()), ModelError);
}

TEST_F(GgufFile, RefusesAbsurdCounts) {
    EXPECT_THAT(fault(begin(0, ~uint64_t{0}).data()), HasSubstr("metadata"));
    Bytes tensors = begin(uint64_t{1} << 60, 1);
    tensors.put_text("general.architecture").put(text).put_text("llama");
    EXPECT_THAT(fault(tensors.data()), HasSubstr("tensor list"));
    Bytes items = begin(0, 1);
    items.put_text("key").put(array).put(u64).put<uint64_t>(uint64_t{1} << 61).append(64);
    EXPECT_THAT(fault(items.data()), HasSubstr("'key'"));
}

TEST_F(GgufFile, RefusesBrokenMetadata) {
    EXPECT_THAT(fault(begin(0, 0).data()), HasSubstr("general.architecture"));
    Bytes type = begin(0, 1);
    type.put_text("key").put<uint32_t>(13).append(64);
    EXPECT_THAT(fault(type.data()), AllOf(HasSubstr("'key'"), HasSubstr("value type 13")));
    Bytes nested = begin(0, 1);
    nested.put_text("key").put(array).put(array).put<uint64_t>(1).append(64);
    EXPECT_THAT(fault(nested.data()), HasSubstr("array of arrays"));
    Bytes alignment = begin(0, 2);
    alignment.put_text("general.architecture").put(text).put_text("llama");
    alignment.put_text("general.alignment").put(u32).put<uint32_t>(48);
    EXPECT_THAT(fault(alignment.data()), HasSubstr("power of two"));
}

TEST_F(GgufFile, RefusesATensorListedTwice) {
    Bytes bytes = begin(2, 1);
    bytes.put_text("general.architecture").put(text).put_text("llama");
    bytes.put_tensor("w", {8}, type_f32, 0).put_tensor("w", {8}, type_f32, 32);
    EXPECT_THAT(fault(bytes.pad(32).append(64).data()), HasSubstr("'w' is listed twice"));
}

TEST_F(GgufFile, NamesFromTheFileAreMadePrintable) {
    Bytes bytes = begin(1, 1);
    bytes.put_text("general.architecture").put(text).put_text("llama");
    bytes.put_tensor("a\x1b[2Jb" + std::string(500, 'x'), {8}, type_f32, 0);
    const std::string message = fault(bytes.data());
    EXPECT_THAT(message, HasSubstr("'a?[2Jb"));
    EXPECT_LT(message.size(), 500u);
}

}  // namespace
}  // namespace ovfast
