#include "apps/bench/npy.hpp"

#include <charconv>
#include <cstring>
#include <map>
#include <stdexcept>

#include "apps/bench/files.hpp"
#include "apps/bench/text.hpp"

namespace ovfast::bench {
namespace {

/// NumPy's name of a type with its code in the file, without the order of bytes.
struct Numpy {
    std::string name;
    std::string code;
};

Numpy numpy_type(const ov::element::Type& type) {
    static const std::map<ov::element::Type_t, Numpy> types = {
        {ov::element::boolean, {"bool", "b1"}}, {ov::element::f16, {"float16", "f2"}},
        {ov::element::f32, {"float32", "f4"}},  {ov::element::f64, {"float64", "f8"}},
        {ov::element::i8, {"int8", "i1"}},      {ov::element::i16, {"int16", "i2"}},
        {ov::element::i32, {"int32", "i4"}},    {ov::element::i64, {"int64", "i8"}},
        {ov::element::u8, {"uint8", "u1"}},     {ov::element::u16, {"uint16", "u2"}},
        {ov::element::u32, {"uint32", "u4"}},   {ov::element::u64, {"uint64", "u8"}},
    };
    const auto found = types.find(type);
    if (found == types.end()) {
        throw std::runtime_error("An input of type " + type.get_type_name() +
                                 " cannot be read from .npy files, which know no such type");
    }
    return found->second;
}

std::string name_of_code(const std::string& code) {
    for (const auto& type :
         {ov::element::boolean, ov::element::f16, ov::element::f32, ov::element::f64,
          ov::element::i8, ov::element::i16, ov::element::i32, ov::element::i64, ov::element::u8,
          ov::element::u16, ov::element::u32, ov::element::u64}) {
        if (numpy_type(type).code == code) return numpy_type(type).name;
    }
    return code;
}

/// What stands behind 'key': in the header, up to `end`.
std::string field(const std::string& header, const std::string& key, char end) {
    const size_t at = header.find("'" + key + "':");
    if (at == std::string::npos) return {};
    const size_t begin = at + key.size() + 3;
    return strip(header.substr(begin, header.find(end, begin) - begin));
}

}  // namespace

ov::Tensor load_npy(const std::string& file, const ov::element::Type& type) {
    const std::string content = read_file(file);
    const auto refuse = [&file](const std::string& why) {
        throw std::runtime_error("Cannot read " + file + " as a NumPy array: " + why);
    };
    if (content.size() < 12 || content.compare(0, 6, "\x93NUMPY") != 0) refuse("no such header");
    const size_t begin = content[6] == 1 ? 10 : 12;
    size_t length = 0;  // of the header, little endian
    std::memcpy(&length, content.data() + 8, begin - 8);
    if (length > content.size() - begin) refuse("the header is cut short");
    const std::string header = content.substr(begin, length);

    const std::string descr = field(header, "descr", ',');
    if (descr.size() < 5) refuse("no descr in the header");
    const std::string code = descr.substr(2, descr.size() - 3);
    const Numpy expected = numpy_type(type);
    if (code != expected.code || descr[1] == '>') {
        throw std::runtime_error("Numpy array in file " + file + " is of " + name_of_code(code) +
                                 " format, which does not match input type " + expected.name + ".");
    }
    if (field(header, "fortran_order", ',') != "False") refuse("it is in Fortran order");

    ov::Shape shape;
    const std::string extents = field(header, "shape", ')');
    if (extents.empty() || extents[0] != '(') refuse("no shape in the header");
    for (const std::string& word : split(extents.substr(1), ',')) {
        const std::string digits = strip(word);
        if (digits.empty()) continue;
        size_t extent = 0;
        const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), extent);
        if (parsed.ec != std::errc{}) refuse("the shape is not of numbers");
        shape.push_back(extent);
    }
    ov::Tensor tensor(type, shape);
    const size_t data = begin + length;
    if (content.size() - data != tensor.get_byte_size()) {
        refuse("expected " + std::to_string(tensor.get_byte_size()) + " bytes of data, got " +
               std::to_string(content.size() - data));
    }
    std::memcpy(tensor.data(), content.data() + data, tensor.get_byte_size());
    return tensor;
}

}  // namespace ovfast::bench
