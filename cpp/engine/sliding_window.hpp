#pragma once

#include <cstdint>
#include <openvino/core/model.hpp>
#include <vector>

namespace ovfast {

/// Sliding windows of a model's attentions, in tokens, in the order of their KV caches; 0 for one
/// without. Found are masks as OpenVINO's GGUF frontend writes them, which the rewrite to paged
/// attention takes for causal ones; those of other exporters it sees itself.
std::vector<int64_t> find_sliding_windows(const ov::Model& model);

/// Gives them to the model after that rewrite; 0 changes nothing. Throws ModelError when there are
/// some, but the number of attentions is another.
void set_sliding_windows(const ov::Model& model, const std::vector<int64_t>& windows);

}  // namespace ovfast
