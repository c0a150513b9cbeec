#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "ovfast/export.hpp"
#include "ovfast/pack.hpp"
#include "ovfast/progress.hpp"

namespace ovfast {

/// A tensor as a GGUF file's header describes it.
struct GgufTensor {
    std::string name;
    std::string type;             ///< GGML's name: "Q4_K", "F16", ...
    std::vector<uint64_t> shape;  ///< GGML order: fastest dimension first
    uint64_t offset = 0;          ///< from the beginning of the file, bytes
    uint64_t size = 0;            ///< bytes
};

/// A metadata value. Integers of every width become int64_t or uint64_t, floats become double;
/// arrays of booleans become arrays of integers.
using GgufValue =
    std::variant<bool, int64_t, uint64_t, double, std::string, std::vector<int64_t>,
                 std::vector<uint64_t>, std::vector<double>, std::vector<std::string>>;

/// The header of a GGUF file, read and bounds-checked without touching the weights.
struct OVFAST_API GgufHeader {
    uint32_t version = 0;
    std::string architecture;
    uint64_t file_size = 0;
    uint64_t context_length = 0;  ///< 0 when the file does not say
    std::vector<GgufTensor> tensors;
    /// Everything that the file says about itself; arrays (vocabularies) only when asked for.
    std::map<std::string, GgufValue> metadata;
    /// Tensor type -> bytes stored in it.
    std::map<std::string, uint64_t> bytes_by_type() const;
};

/// Reads the header. Throws ModelError that says what is wrong and where: not a GGUF file, a
/// version or tensor type that is not known, a string or array that leaves the file, a tensor whose
/// data is cut off (naming the tensor). `with_arrays` keeps array metadata too.
OVFAST_API GgufHeader read_gguf_header(const std::filesystem::path& file, bool with_arrays = false);

/// Converts a GGUF file to openvino_model.xml and .bin in the existing directory `out_dir`: inputs
/// input_ids [b, t] i64, attention_mask [b, t] i64, position_ids [b, t] i64, beam_idx [b] i32;
/// output logits [1, 1, vocabulary] f32, of the last position; the KV cache as state. Batch 1 only,
/// unless rewritten to paged attention. Needs no Python and no torch.
/// Unless `packed` is false, weights are packed as they are in the file (see pack.hpp), without
/// what the conversion to OpenVINO's own form rounds; that form alone other programs can run.
/// Throws ModelError (header faults; architectures that the frontend refuses, naming the supported
/// ones) or Error when cancelled or when the disk is full. Leaves partial files to the caller.
OVFAST_API PackReport import_gguf(const std::filesystem::path& file,
                                  const std::filesystem::path& out_dir,
                                  const Progress& progress = {}, bool packed = true);

}  // namespace ovfast
