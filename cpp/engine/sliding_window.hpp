#pragma once

#include <cstdint>
#include <openvino/runtime/core.hpp>
#include <string>
#include <vector>

namespace ovfast {

/// What the tokens of an attention see: themselves and those before them, all or the last ones.
struct SlidingWindow {
    int64_t tokens = 0;   ///< themselves included; 0: all
    std::string problem;  ///< else: what is to be said against this attention
};

/// Those of a model's attentions, in the order of their KV caches. The rewrite to paged attention
/// takes each mask for a causal one that it does not know, so they are found before it, by running
/// the masks: a few tokens behind many others.
std::vector<SlidingWindow> find_sliding_windows(ov::Core& core, const ov::Model& model);

/// Gives them to the model after that rewrite. Throws ModelError when an attention has a problem,
/// unless the rewrite saw more in it (ALiBi), or when their number is another.
void set_sliding_windows(const ov::Model& model, const std::vector<SlidingWindow>& windows);

}  // namespace ovfast
