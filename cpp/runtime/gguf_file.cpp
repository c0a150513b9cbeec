#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <string_view>
#include <unordered_set>

#include "ovfast/error.hpp"
#include "ovfast/gguf.hpp"

namespace ovfast {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF values are read as they lie");

constexpr uint64_t default_alignment = 32;
constexpr uint32_t max_dimensions = 4;

struct TensorType {
    uint32_t number;
    const char* name;
    uint32_t block_elements;
    uint32_t block_bytes;
};

// ggml_type and the sizes of its block structs. Numbers that are missing here were removed from
// GGML (4, 5, 31-33, 36-38) or never given.
constexpr std::array<TensorType, 34> tensor_types{{
    {0, "F32", 1, 4},         {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},
    {3, "Q4_1", 32, 20},      {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},
    {8, "Q8_0", 32, 34},      {9, "Q8_1", 32, 36},      {10, "Q2_K", 256, 84},
    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66},
    {17, "IQ2_XS", 256, 74},  {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},
    {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},  {22, "IQ2_S", 256, 82},
    {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},         {25, "I16", 1, 2},
    {26, "I32", 1, 4},        {27, "I64", 1, 8},        {28, "F64", 1, 8},
    {29, "IQ1_M", 256, 56},   {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},
    {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},    {40, "NVFP4", 64, 36},
    {41, "Q1_0", 128, 18},
}};

const TensorType* find_tensor_type(uint32_t number) {
    const auto found = std::find_if(tensor_types.begin(), tensor_types.end(),
                                    [&](const TensorType& type) { return type.number == number; });
    return found == tensor_types.end() ? nullptr : &*found;
}

enum class ValueType : uint32_t {
    u8,
    i8,
    u16,
    i16,
    u32,
    i32,
    f32,
    boolean,
    string,
    array,
    u64,
    i64,
    f64
};

/// Bytes of one value in the file; for strings and arrays the least that they can take.
uint64_t least_bytes(ValueType type) {
    switch (type) {
        case ValueType::u8:
        case ValueType::i8:
        case ValueType::boolean:
            return 1;
        case ValueType::u16:
        case ValueType::i16:
            return 2;
        case ValueType::u32:
        case ValueType::i32:
        case ValueType::f32:
            return 4;
        case ValueType::array:
            return 12;
        default:
            return 8;
    }
}

/// Names come from the file: cut to a length that fits a message, with what does not print escaped.
std::string printable(std::string_view name) {
    constexpr size_t longest = 100;
    std::string text = "'";
    for (const char c : name.substr(0, longest)) {
        const bool prints =
            static_cast<unsigned char>(c) >= 0x20 && static_cast<unsigned char>(c) < 0x7f;
        text += prints ? c : '?';
    }
    return text + (name.size() > longest ? "...'" : "'");
}

/// Reads forward through the file and knows its end, so that no length found in it is believed.
class Reader {
public:
    explicit Reader(const std::filesystem::path& file) : path_(file.string()) {
        struct stat status{};
        if (::stat(file.c_str(), &status) != 0) fail(std::strerror(errno));
        if (!S_ISREG(status.st_mode)) fail("not a regular file");
        size_ = static_cast<uint64_t>(status.st_size);
        stream_.open(file, std::ios::binary);
        if (!stream_) fail(std::strerror(errno));
    }

    uint64_t size() const { return size_; }
    uint64_t position() const { return position_; }
    uint64_t remaining() const { return size_ - position_; }

    /// What is being read, for the message of a file that ends too early.
    void reading(std::string what) { what_ = std::move(what); }
    const std::string& what() const { return what_; }

    [[noreturn]] void fail(const std::string& problem) const {
        throw ModelError("'" + path_ + "': " + problem);
    }

    /// Throws unless `count` items of at least `bytes` each can still follow.
    void require(uint64_t count, uint64_t bytes = 1) const {
        if (count > remaining() / bytes) {
            fail("the file ends inside its header: " + what_ + " at byte " +
                 std::to_string(position_) + " wants " + std::to_string(count) +
                 (bytes > 1 ? " items of at least " + std::to_string(bytes) + " bytes" : " bytes") +
                 ", the file has " + std::to_string(remaining()) +
                 " bytes left. It is truncated or corrupted: download it again.");
        }
    }

    void read(void* into, uint64_t bytes) {
        require(bytes);
        if (!stream_.read(static_cast<char*>(into), static_cast<std::streamsize>(bytes))) {
            fail("cannot be read at byte " + std::to_string(position_) + ", in " + what_);
        }
        position_ += bytes;
    }

    template <typename T>
    T number() {
        T value;
        read(&value, sizeof(value));
        return value;
    }

    std::string string() {
        const auto length = number<uint64_t>();
        require(length);
        std::string text(length, '\0');
        read(text.data(), length);
        return text;
    }

private:
    std::string path_;
    std::ifstream stream_;
    uint64_t size_ = 0;
    uint64_t position_ = 0;
    std::string what_ = "the beginning of the file";
};

ValueType read_value_type(Reader& reader) {
    const auto type = reader.number<uint32_t>();
    if (type > static_cast<uint32_t>(ValueType::f64)) {
        reader.fail(reader.what() + " has value type " + std::to_string(type) +
                    ", which GGUF does not know. The file is corrupted or of a newer format.");
    }
    return static_cast<ValueType>(type);
}

bool is_float(ValueType type) {
    return type == ValueType::f32 || type == ValueType::f64;
}

bool is_signed(ValueType type) {
    return type == ValueType::i8 || type == ValueType::i16 || type == ValueType::i32 ||
           type == ValueType::i64;
}

int64_t read_signed(Reader& reader, ValueType type) {
    switch (type) {
        case ValueType::i8:
            return reader.number<int8_t>();
        case ValueType::i16:
            return reader.number<int16_t>();
        case ValueType::i32:
            return reader.number<int32_t>();
        default:
            return reader.number<int64_t>();
    }
}

uint64_t read_unsigned(Reader& reader, ValueType type) {
    switch (type) {
        case ValueType::u8:
        case ValueType::boolean:
            return reader.number<uint8_t>();
        case ValueType::u16:
            return reader.number<uint16_t>();
        case ValueType::u32:
            return reader.number<uint32_t>();
        default:
            return reader.number<uint64_t>();
    }
}

double read_float(Reader& reader, ValueType type) {
    return type == ValueType::f32 ? static_cast<double>(reader.number<float>())
                                  : reader.number<double>();
}

template <typename T, typename Read>
std::vector<T> read_items(uint64_t count, bool keep, const Read& read) {
    std::vector<T> items;
    for (uint64_t i = 0; i < count; ++i) {
        T item = read();
        if (keep) items.push_back(std::move(item));
    }
    return items;
}

GgufValue read_array(Reader& reader, bool keep) {
    const ValueType type = read_value_type(reader);
    if (type == ValueType::array) reader.fail(reader.what() + " is an array of arrays");
    const auto count = reader.number<uint64_t>();
    reader.require(count, least_bytes(type));
    if (type == ValueType::string) {
        return read_items<std::string>(count, keep, [&] { return reader.string(); });
    }
    if (is_float(type)) {
        return read_items<double>(count, keep, [&] { return read_float(reader, type); });
    }
    if (is_signed(type)) {
        return read_items<int64_t>(count, keep, [&] { return read_signed(reader, type); });
    }
    return read_items<uint64_t>(count, keep, [&] { return read_unsigned(reader, type); });
}

/// The value, or nothing for an array that is not kept.
std::optional<GgufValue> read_value(Reader& reader, bool keep_arrays) {
    const ValueType type = read_value_type(reader);
    if (type == ValueType::array) {
        GgufValue array = read_array(reader, keep_arrays);
        if (!keep_arrays) return std::nullopt;
        return array;
    }
    if (type == ValueType::string) return reader.string();
    if (type == ValueType::boolean) return reader.number<uint8_t>() != 0;
    if (is_float(type)) return read_float(reader, type);
    if (is_signed(type)) return read_signed(reader, type);
    return read_unsigned(reader, type);
}

std::optional<uint64_t> find_unsigned(const GgufHeader& header, const std::string& key) {
    const auto found = header.metadata.find(key);
    if (found == header.metadata.end()) return std::nullopt;
    if (const auto* value = std::get_if<uint64_t>(&found->second)) return *value;
    if (const auto* value = std::get_if<int64_t>(&found->second); value && *value >= 0) {
        return static_cast<uint64_t>(*value);
    }
    return std::nullopt;
}

void read_metadata(Reader& reader, uint64_t count, bool with_arrays, GgufHeader& header) {
    reader.reading("the metadata");
    reader.require(count, least_bytes(ValueType::string) + sizeof(uint32_t) + 1);
    for (uint64_t i = 0; i < count; ++i) {
        reader.reading("metadata key " + std::to_string(i + 1) + " of " + std::to_string(count));
        std::string key = reader.string();
        reader.reading("metadata " + printable(key));
        if (auto value = read_value(reader, with_arrays)) {
            header.metadata.insert_or_assign(std::move(key), std::move(*value));
        }
    }
}

/// Bytes of a tensor. Throws when its shape overflows or does not fill whole blocks.
uint64_t tensor_bytes(const Reader& reader, const GgufTensor& tensor, const TensorType& type) {
    uint64_t elements = 1;
    for (const uint64_t dimension : tensor.shape) {
        if (dimension == 0) {
            reader.fail("tensor " + printable(tensor.name) + " has a dimension of 0");
        }
        if (__builtin_mul_overflow(elements, dimension, &elements)) {
            reader.fail("the shape of tensor " + printable(tensor.name) + " overflows 64 bits");
        }
    }
    if (tensor.shape.front() % type.block_elements != 0) {
        reader.fail("tensor " + printable(tensor.name) + " has rows of " +
                    std::to_string(tensor.shape.front()) + " elements, but type " + type.name +
                    " stores blocks of " + std::to_string(type.block_elements));
    }
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(elements / type.block_elements, uint64_t{type.block_bytes},
                               &bytes)) {
        reader.fail("the size of tensor " + printable(tensor.name) + " overflows 64 bits");
    }
    return bytes;
}

GgufTensor read_tensor(Reader& reader) {
    GgufTensor tensor;
    tensor.name = reader.string();
    reader.reading("tensor " + printable(tensor.name));
    const auto dimensions = reader.number<uint32_t>();
    if (dimensions == 0 || dimensions > max_dimensions) {
        reader.fail("tensor " + printable(tensor.name) + " has " + std::to_string(dimensions) +
                    " dimensions, expected 1 to " + std::to_string(max_dimensions));
    }
    for (uint32_t i = 0; i < dimensions; ++i) tensor.shape.push_back(reader.number<uint64_t>());
    const auto number = reader.number<uint32_t>();
    const TensorType* type = find_tensor_type(number);
    if (!type) {
        reader.fail(
            "tensor " + printable(tensor.name) + " has type number " + std::to_string(number) +
            ", which is none of GGML's tensor types. The file is corrupted, or of a newer or "
            "withdrawn format.");
    }
    tensor.type = type->name;
    tensor.size = tensor_bytes(reader, tensor, *type);
    tensor.offset = reader.number<uint64_t>();
    return tensor;
}

void read_tensors(Reader& reader, uint64_t count, GgufHeader& header) {
    // name length, dimension count, one dimension, type, offset
    constexpr uint64_t least_tensor_bytes = 8 + 4 + 8 + 4 + 8;
    reader.reading("the tensor list");
    reader.require(count, least_tensor_bytes);
    std::unordered_set<std::string> names;
    for (uint64_t i = 0; i < count; ++i) {
        reader.reading("tensor " + std::to_string(i + 1) + " of " + std::to_string(count));
        header.tensors.push_back(read_tensor(reader));
        if (!names.insert(header.tensors.back().name).second) {
            reader.fail("tensor " + printable(header.tensors.back().name) + " is listed twice");
        }
    }
}

uint64_t read_alignment(const Reader& reader, const GgufHeader& header) {
    const std::string key = "general.alignment";
    if (header.metadata.count(key) == 0) return default_alignment;
    const uint64_t alignment = find_unsigned(header, key).value_or(0);
    constexpr uint64_t largest = uint64_t{1} << 30;
    if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > largest) {
        reader.fail("metadata '" + key + "' must be a power of two, got " +
                    std::to_string(alignment));
    }
    return alignment;
}

/// Turns offsets in the data section into offsets in the file and checks that the data is there.
void place_tensors(const Reader& reader, GgufHeader& header) {
    const uint64_t alignment = read_alignment(reader, header);
    const uint64_t data_start = (reader.position() + alignment - 1) / alignment * alignment;
    const GgufTensor* first_cut = nullptr;
    for (GgufTensor& tensor : header.tensors) {
        if (tensor.offset % alignment != 0) {
            reader.fail("tensor " + printable(tensor.name) + " lies at offset " +
                        std::to_string(tensor.offset) + ", which is no multiple of the alignment " +
                        std::to_string(alignment));
        }
        uint64_t end = 0;
        if (__builtin_add_overflow(tensor.offset, data_start, &tensor.offset) ||
            __builtin_add_overflow(tensor.offset, tensor.size, &end)) {
            reader.fail("the offset of tensor " + printable(tensor.name) + " overflows 64 bits");
        }
        if (end > header.file_size && (!first_cut || tensor.offset < first_cut->offset)) {
            first_cut = &tensor;
        }
    }
    if (first_cut) {
        const uint64_t present =
            header.file_size > first_cut->offset ? header.file_size - first_cut->offset : 0;
        reader.fail("the data of tensor " + printable(first_cut->name) + " (" + first_cut->type +
                    ") is cut off: expected " + std::to_string(first_cut->size) +
                    " bytes at byte " + std::to_string(first_cut->offset) + ", present " +
                    std::to_string(present) + ". The file is truncated: download it again.");
    }
}

}  // namespace

std::map<std::string, uint64_t> GgufHeader::bytes_by_type() const {
    std::map<std::string, uint64_t> bytes;
    for (const GgufTensor& tensor : tensors) bytes[tensor.type] += tensor.size;
    return bytes;
}

GgufHeader read_gguf_header(const std::filesystem::path& file, bool with_arrays) {
    Reader reader(file);
    GgufHeader header;
    header.file_size = reader.size();

    std::array<char, 4> magic{};
    if (reader.size() < magic.size()) reader.fail("not a GGUF file: shorter than 4 bytes");
    reader.read(magic.data(), magic.size());
    if (std::string_view(magic.data(), magic.size()) != "GGUF") {
        reader.fail("not a GGUF file: it does not begin with 'GGUF'");
    }
    header.version = reader.number<uint32_t>();
    if (header.version == __builtin_bswap32(2) || header.version == __builtin_bswap32(3)) {
        reader.fail("a big-endian GGUF file; only little-endian ones are supported");
    }
    if (header.version != 2 && header.version != 3) {
        reader.fail("GGUF version " + std::to_string(header.version) +
                    " is not supported; supported are 2 and 3");
    }
    const auto tensor_count = reader.number<uint64_t>();
    const auto metadata_count = reader.number<uint64_t>();
    read_metadata(reader, metadata_count, with_arrays, header);
    read_tensors(reader, tensor_count, header);

    const auto architecture = header.metadata.find("general.architecture");
    if (architecture == header.metadata.end() ||
        !std::holds_alternative<std::string>(architecture->second)) {
        reader.fail("metadata 'general.architecture' is missing, so the model's kind is unknown");
    }
    header.architecture = std::get<std::string>(architecture->second);
    header.context_length =
        find_unsigned(header, header.architecture + ".context_length").value_or(0);
    place_tensors(reader, header);
    return header;
}

}  // namespace ovfast
