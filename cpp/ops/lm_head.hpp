#pragma once

#include "ops/packed_ops.hpp"

namespace ovfast::ops {

/// Logits of 8-bit weights in two 4-bit halves (kernels/split.hpp).
/// Inputs: x [..., K]; packed high [N, K], low [N, K]; bounds f32 [N]; top_k i64 [2]: how many of
/// the largest logits are wanted, and how many words, from the first, count; not_counted i64 [*]:
/// logits, as row * N + word, that do not count either; then gamma [K] if norm.
/// Output [..., N]: all logits when top_k is 0. Else every logit, counting or not, that is not
/// below the top_k-th largest of those that count; most others are -infinity. (What does not count
/// is what sampling lowers afterwards: others may then move up.)
/// In files both are constants that ask for all; the engine makes inputs of them.
class LMHead : public PackedOp {
public:
    OPENVINO_OP("LMHead", "ovfast")
    struct Attributes {
        int64_t rows = 0;     ///< N
        int64_t columns = 0;  ///< K
        bool norm = false;
        float epsilon = 0.0F;
    };
    static constexpr size_t kTopKInput = 4;
    static constexpr size_t kNotCountedInput = 5;
    static constexpr size_t kGammaInput = 6;
    LMHead() = default;
    LMHead(const ov::OutputVector& inputs, const Attributes& attributes);
    void validate_and_infer_types() override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;
    const Attributes& attributes() const { return attributes_; }

protected:
    std::pair<size_t, size_t> packed_inputs() const override;

private:
    Attributes attributes_;
};

/// Replaces a FullyConnected (without bias or residual) whose weights can be split by an LMHead.
/// Returns nothing when they cannot.
std::shared_ptr<ov::Node> split_to_lm_head(const FullyConnected& layer);

}  // namespace ovfast::ops
