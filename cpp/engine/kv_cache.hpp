#pragma once

#include <cstdint>
#include <memory>
#include <openvino/runtime/compiled_model.hpp>
#include <openvino/runtime/infer_request.hpp>
#include <vector>

#include "kernels/attention.hpp"
#include "ops/kv_store.hpp"

namespace ovfast {

/// Memory of the paged KV cache: keys and values of every layer, either tensors shaped as
/// OpenVINO's attention wants them, [blocks, kv heads, tokens and scales, head size], or bf16 for
/// our own (kernels/attention.hpp).
///
/// All of it lies in one anonymous mapping whose pages the kernel supplies at the first write, so
/// a generous bound costs nothing until it is used and the cache never moves or grows by copying.
class KvCache {
public:
    /// What one block takes, read from the compiled model's cache inputs.
    struct Layout {
        int64_t block_tokens = 0;
        uint64_t block_bytes = 0;  ///< over all layers, keys and values
        size_t layers = 0;
    };
    /// Throws ModelError when the model has no key_cache.N / value_cache.N inputs.
    static Layout layout(const ov::CompiledModel& model);
    /// The same for our own attention, whose layers have these shapes.
    static Layout layout(const std::vector<kernels::AttentionShape>& layers);

    /// Maps `blocks` blocks and hands the tensors to `request`.
    KvCache(const ov::CompiledModel& model, ov::InferRequest& request, int32_t blocks);
    KvCache(const std::vector<kernels::AttentionShape>& layers, ov::InferRequest& request,
            int32_t blocks);
    ~KvCache();
    KvCache(const KvCache&) = delete;
    KvCache& operator=(const KvCache&) = delete;

    void copy_block(int32_t from, int32_t to);

private:
    struct Part {
        uint8_t* data;
        size_t block_bytes;
    };
    /// Maps `blocks` blocks of each part; `block_bytes` has one entry a part.
    void map(const std::vector<size_t>& block_bytes, size_t blocks);

    std::vector<Part> parts_;
    std::unique_ptr<ops::KvStore> store_;
    int64_t store_number_ = 0;
    void* mapping_ = nullptr;
    size_t mapping_size_ = 0;
};

}  // namespace ovfast
