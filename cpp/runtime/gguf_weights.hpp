#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <openvino/core/model.hpp>
#include <optional>
#include <string>
#include <vector>

#include "kernels/pack.hpp"
#include "ops/rewrite.hpp"
#include "ovfast/gguf.hpp"
#include "runtime/mapped_file.hpp"

namespace ovfast {

/// The weights of a GGUF file as they are in its blocks, for a graph that OpenVINO's frontend made
/// of the file and whose own weights may be rounded (the minimum of Q4_K is).
class GgufWeights {
public:
    GgufWeights(const std::filesystem::path& file, const GgufHeader& header,
                const ov::Model& model);

    /// The weights that the graph calls `name`; nothing when the file has none of that name and
    /// shape, or of a type that does not pack, or when they are others than the graph's: the
    /// frontend may reorder rows, which a comparison of some rows finds out.
    std::optional<kernels::PlainWeights> find(const std::string& name,
                                              const ops::RewriteOptions::Piece& piece);

    /// What a person should know: tensors whose weights came from the graph although they need not.
    const std::vector<std::string>& notes() const { return notes_; }

private:
    bool agrees(const ov::Node& graph, const GgufTensor& tensor, size_t rows, size_t columns) const;

    MappedFile file_;
    MappedPages pages_;
    std::map<std::string, GgufTensor> tensors_;
    std::map<std::string, std::weak_ptr<ov::Node>> nodes_;
    std::vector<std::string> notes_;
};

}  // namespace ovfast
