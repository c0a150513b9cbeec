#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <openvino/runtime/core.hpp>
#include <vector>

#include "engine/decoder_model.hpp"
#include "engine/kv_cache.hpp"

namespace ovfast {

/// A decoder compiled for paged attention, with its KV cache.
class PagedModel final : public DecoderModel {
public:
    /// Reads openvino_model.xml, rewrites it for paged attention and chosen logit rows, compiles it
    /// and reserves the cache. Throws ModelError, CapacityError, std::invalid_argument.
    PagedModel(const ModelFiles& files, const EngineOptions& options);

    const float* run(const StepBatch& batch) override;
    void copy_block(int32_t from, int32_t to) override { cache_->copy_block(from, to); }
    // Blocks hold all that belongs to a sequence, and the scheduler shares and frees them.
    void fork(uint64_t, uint64_t) override {}
    void release(uint64_t) override {}
    std::vector<NodeTime> take_node_times() override;

private:
    void reserve_cache(const EngineOptions& options, uint64_t weight_bytes);
    void note_times(const ov::InferRequest& request, int64_t& inferences);
    void choose_attention(const std::shared_ptr<ov::Model>& model, const EngineOptions& options);
    template <typename T>
    void bind(ov::InferRequest& request, const char* name, const std::vector<T>& values);

    ov::CompiledModel model_;
    std::vector<kernels::AttentionShape> attention_;  // of our own attention; else empty
    std::unique_ptr<KvCache> cache_;  // outlives request_, which refers to its memory
    ov::InferRequest request_;
    ov::InferRequest lm_head_;  // empty for a model whose lm_head was not recognised
    bool has_positions_ = false;
    bool has_max_context_ = false;
    bool has_top_k_ = false;  // the lm_head can give the largest logits alone
    int32_t max_context_ = 0;

    /// Time of an operation since the model was loaded, and when it was last taken.
    struct NodeClock {
        std::string type;
        double seconds = 0.0, taken_seconds = 0.0;
        int64_t steps = 0, taken_steps = 0;
    };
    bool profiled_ = false;
    int64_t inferences_ = 0;
    int64_t lm_head_inferences_ = 0;
    std::mutex times_mutex_;
    std::map<std::string, NodeClock> clocks_;  // by name
};

}  // namespace ovfast
