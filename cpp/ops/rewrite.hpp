#pragma once

#include <functional>
#include <memory>
#include <openvino/core/model.hpp>
#include <optional>
#include <string>
#include <vector>

#include "kernels/pack.hpp"
#include "ops/spill_file.hpp"

namespace ovfast::ops {

/// A multiplication by constants and what became of it; for `ovfast inspect` and the pack report.
struct RewrittenLayer {
    std::string name;       ///< of the original node
    std::string operation;  ///< "FullyConnected", "QKV", "GatedMLP", "Embedding"; empty: left alone
    std::string reason;     ///< why it was left alone: "weights are not constant", ...
    std::string format;     ///< WeightFormat::text() of each weight, joined with ", "
    uint64_t source_bytes = 0;
    uint64_t packed_bytes = 0;
};

struct RewriteOptions {
    /// A piece of a matrix: `count` of its rows, from `first` on.
    struct Piece {
        size_t rows = 0, columns = 0;  ///< of the whole matrix
        size_t first = 0, count = 0;
    };
    /// Better weights for a named tensor than the graph has (GGUF's own blocks): asked with the
    /// friendly name of the decompressed weight. Large matrices are asked for in pieces, from the
    /// first row on; all of them must have one format. Optional.
    std::function<std::optional<kernels::PlainWeights>(const std::string&, const Piece&)> source;
    /// Floating-point weights (f32, f16, bf16, constant, not quantized) become 16-bit ones when
    /// they are already f16 or bf16; f32 weights are left alone.
    bool pack_floats = true;
    /// The lm_head's weights become two halves (lm_head.hpp): faster where only the most probable
    /// words are asked for.
    bool split_lm_head = true;
    /// Where packed constants lie; none: in memory. Optional.
    std::shared_ptr<SpillFile> spill;
    /// Fraction done and the layer's name; false cancels (throws ovfast::Error).
    std::function<bool(double, const std::string&)> progress;
};

/// Replaces linear layers with constant weights, groups of them (QKV, gated MLPs) with their norm,
/// bias and residual, and the embedding table by operations on packed weights. Anything that is not
/// understood stays as it is and is listed. Source constants are released as they are packed, so
/// the peak of memory is about the larger of both forms.
std::vector<RewrittenLayer> rewrite_to_packed(const std::shared_ptr<ov::Model>& model,
                                              const RewriteOptions& options = {});

}  // namespace ovfast::ops
