#pragma once

#include <memory>
#include <mutex>
#include <openvino/core/model.hpp>
#include <openvino/op/op.hpp>
#include <vector>

#include "ops/packed_ops.hpp"
#include "ops/paged_attention.hpp"
#include "ops/rope.hpp"

namespace ovfast::ops {

/// One decoder layer: x + out(attention(rope(qkv(norm(x))))), then + mlp(norm(.)). The operations
/// hold their own weights. Norms that only some models have are without a gamma in others.
struct DecoderLayer {
    std::shared_ptr<QKV> qkv;
    size_t q = 0, k = 0, v = 0;  ///< outputs of qkv
    RmsNorm q_norm, k_norm;      ///< of each head, before it is turned
    Rope rope;
    std::shared_ptr<PagedAttention> attention;
    std::shared_ptr<FullyConnected> out;
    RmsNorm out_norm;  ///< of what out gives, before x is added; else out adds x itself
    std::shared_ptr<GatedMLP> mlp;
    RmsNorm mlp_norm;  ///< the same for mlp
};

/// Decoder layers one after the other in one node. A plugin spends some 30 us on each node of ours
/// for shapes and tensors, several times a layer, during which only one thread works; and it
/// compiles nodes by the thousand. Lives only in compiled models, never in files.
/// Inputs: x f32 [..., columns]; positions i64 [T]; then those of PagedAttention from past_lens on.
/// Output as x.
class DecoderStack : public ov::op::Op {
public:
    OPENVINO_OP("DecoderStack", "ovfast")
    DecoderStack() = default;
    DecoderStack(const ov::OutputVector& inputs, std::vector<DecoderLayer> layers);
    void validate_and_infer_types() override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    struct Runner;
    std::shared_ptr<Runner> runner_;  ///< shared by clones: memory for one step at a time
};

/// Replaces the layers from the first to the last of that form by a DecoderStack. Returns how many
/// there are; 0 when already the first is of another form.
size_t fuse_decoder_stack(const std::shared_ptr<ov::Model>& model);

}  // namespace ovfast::ops
