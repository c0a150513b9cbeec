#pragma once

#include <openvino/openvino.hpp>
#include <string>

namespace ovfast::bench {

/// Reads a .npy file in C order. Throws std::runtime_error when it is none, or holds another type
/// than `type`.
ov::Tensor load_npy(const std::string& file, const ov::element::Type& type);

}  // namespace ovfast::bench
