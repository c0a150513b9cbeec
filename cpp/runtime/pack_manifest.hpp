#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ovfast/model_files.hpp"
#include "ovfast/pack.hpp"
#include "runtime/model_writer.hpp"

namespace ovfast {

/// openvino_model.packed: what makes a directory a packed one. Text, a line an entry, the last with
/// a checksum of those before. Packed weights have checksums of their own; the manifest has them
/// for all else.
struct PackManifest {
    static constexpr const char* kName = "openvino_model.packed";

    std::string tool;    ///< version of ovfast that packed
    std::string source;  ///< content_key() of the stock directory; empty when there was none
    uint64_t xml_bytes = 0;
    uint64_t xml_checksum = 0;
    uint64_t bin_bytes = 0;
    /// Of the bytes of the .bin that are no packed weights: norms, biases, constants of the graph.
    uint64_t rest_checksum = 0;
    std::vector<PackedSegment> segments;
    uint64_t source_bytes = 0;
    std::vector<PackedLayer> layers;
    std::vector<std::string> notes;

    /// Takes lengths and checksums from the files of `directory`.
    void describe(const std::filesystem::path& directory);
    void write(const std::filesystem::path& directory) const;
    /// Throws ModelError when it is damaged or of another layout version.
    static PackManifest read(const ModelFiles& files);

    /// Compares lengths, and checksums of everything but packed weights. Throws ModelError.
    void verify_frame(const ModelFiles& files) const;
    /// Compares the checksums of packed weights, reading all of them. Throws ModelError.
    void verify_weights(const ModelFiles& files) const;

    /// Whether any layer was packed; a manifest alone remembers that none was.
    bool packs() const;
    PackReport report(const std::filesystem::path& directory) const;
};

/// 16 hexadecimal digits of what openvino_model.xml and .bin contain. Reads both.
std::string content_key(const std::filesystem::path& model_dir);

}  // namespace ovfast
