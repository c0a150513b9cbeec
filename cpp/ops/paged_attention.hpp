#pragma once

#include <memory>
#include <openvino/core/model.hpp>
#include <openvino/op/op.hpp>
#include <string>
#include <vector>

#include "kernels/attention.hpp"

namespace ovfast::ops {

/// Attention of several sequences over a paged KV cache in bf16, which it also fills; see
/// kernels/attention.hpp. Lives only in compiled models, never in files.
/// Inputs: q [T, heads * key_size], k [T, kv_heads * key_size], v [T, kv_heads * value_size], all
/// f32; past_lens [B], subsequence_begins [B + 1], block_indices, block_indices_begins [B + 1], all
/// i32, as for OpenVINO's paged attention; the number of a KvStore, i64 [1].
/// Output [T, heads * value_size]. Throws when a block is not one of the store's.
class PagedAttention : public ov::op::Op {
public:
    OPENVINO_OP("PagedAttention", "ovfast")
    struct Attributes {
        kernels::AttentionShape shape;
        size_t layer = 0;
    };
    PagedAttention() = default;
    PagedAttention(const ov::OutputVector& inputs, const Attributes& attributes);
    void validate_and_infer_types() override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;
    const Attributes& attributes() const { return attributes_; }

private:
    Attributes attributes_;
};

/// Name of the input that carries the KvStore's number.
inline constexpr const char* kKvStoreInput = "ovfast_kv_store";

/// Replaces the PagedAttentionExtension nodes of a paged model by PagedAttention and their cache
/// inputs by kKvStoreInput. All or none: returns the shapes of the layers in the order of their
/// caches, or nothing, with `reason` saying why, when one of them uses what is not supported
/// (ALiBi, sinks, rotation, sparse attention, other head sizes) or this machine lacks the
/// instructions.
std::vector<kernels::AttentionShape> use_own_attention(const std::shared_ptr<ov::Model>& model,
                                                       std::string& reason);

}  // namespace ovfast::ops
