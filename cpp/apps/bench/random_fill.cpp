#include <random>
#include <stdexcept>

#include "apps/bench/tensors.hpp"

namespace ovfast::bench {
namespace {

template <typename T, typename Distribution>
void fill(ov::Tensor& tensor, Distribution distribution) {
    std::mt19937 engine(0);
    T* data = static_cast<T*>(tensor.data());
    for (size_t i = 0; i < tensor.get_size(); ++i) data[i] = static_cast<T>(distribution(engine));
}

}  // namespace

void fill_random(ov::Tensor& tensor) {
    const std::uniform_real_distribution<float> real(0, 255);
    const std::uniform_int_distribution<int> whole(0, 255);
    const ov::element::Type type = tensor.get_element_type();
    if (type.bitwidth() < 8) {  // several values a byte
        std::mt19937 engine(0);
        auto* bytes = static_cast<uint8_t*>(tensor.data());
        for (size_t i = 0; i < tensor.get_byte_size(); ++i) bytes[i] = engine();
        return;
    }
    switch (type) {
        case ov::element::f64:
            return fill<double>(tensor, real);
        case ov::element::f32:
            return fill<float>(tensor, real);
        case ov::element::f16:
            return fill<ov::float16>(tensor, real);
        case ov::element::bf16:
            return fill<ov::bfloat16>(tensor, real);
        case ov::element::f8e4m3:
            return fill<ov::float8_e4m3>(tensor, real);
        case ov::element::f8e5m2:
            return fill<ov::float8_e5m2>(tensor, real);
        case ov::element::boolean:
            return fill<uint8_t>(tensor, std::uniform_int_distribution<int>(0, 1));
        case ov::element::i8:
            return fill<int8_t>(tensor, std::uniform_int_distribution<int>(-128, 127));
        case ov::element::u8:
            return fill<uint8_t>(tensor, whole);
        case ov::element::i16:
            return fill<int16_t>(tensor, whole);
        case ov::element::u16:
            return fill<uint16_t>(tensor, whole);
        case ov::element::i32:
            return fill<int32_t>(tensor, whole);
        case ov::element::u32:
            return fill<uint32_t>(tensor, whole);
        case ov::element::i64:
            return fill<int64_t>(tensor, whole);
        case ov::element::u64:
            return fill<uint64_t>(tensor, whole);
        default:
            throw std::runtime_error("Inputs of type " + type.get_type_name() +
                                     " cannot be filled with random values");
    }
}

}  // namespace ovfast::bench
