#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <openvino/core/model.hpp>
#include <vector>

namespace ovfast {

/// Packed weights (kernels/packed_weights.hpp) in a .bin: where their header begins, and how long
/// they are with it.
struct PackedSegment {
    uint64_t offset = 0;
    uint64_t bytes = 0;
};

/// Gets memory that was written and will not be read again.
using Passed = std::function<void(const void* data, size_t bytes)>;

/// Writes openvino_model.xml and .bin into `out_dir` and brings them to disk. Packed weights begin
/// at multiples of 64 bytes in the .bin, as far as their constant has bytes to spare for it (64
/// always suffice); nothing else is changed. Returns where they are, in the order of the file.
/// `written` gets the length of the .bin so far. Throws Error when writing fails.
std::vector<PackedSegment> write_model(const std::shared_ptr<ov::Model>& model,
                                       const std::filesystem::path& out_dir,
                                       const std::function<void(uint64_t)>& written = {},
                                       const Passed& passed = {});

/// Bytes that the constants of the model will take in the .bin.
uint64_t constant_bytes(const ov::Model& model);

}  // namespace ovfast
