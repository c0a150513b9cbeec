#pragma once

#include <cstdint>
#include <openvino/op/op.hpp>

// Operations that run on CPU and GPU: evaluate() here, a kernel in cpp/opencl for OpenVINO's GPU
// plugin. Values are f32 or f16 (on the CPU also bf16), of rank 1 to 4. unfused.hpp has each in
// standard operations; docs/custom-ops.md explains how they are made.
namespace ovfast::ops {

/// silu(alpha * gate) * up. Inputs of one type and shape, which the output has too.
class SwiGLU : public ov::op::Op {
public:
    OPENVINO_OP("SwiGLU", "ovfast")
    SwiGLU() = default;
    SwiGLU(const ov::Output<ov::Node>& gate, const ov::Output<ov::Node>& up, float alpha = 1.0F);
    void validate_and_infer_types() override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;
    float alpha() const { return alpha_; }

private:
    float alpha_ = 1.0F;
};

/// s = x + residual, and its RMS normalization over the last dimension: s * gamma / sqrt(mean(s^2)
/// + epsilon). Inputs x [..., K], residual of the same shape, gamma [K]. Outputs: the normalized
/// values, s.
/// The GPU plugin takes no static graph with a custom operation of two outputs: there a dimension
/// has to be dynamic.
class AddRMSNorm : public ov::op::Op {
public:
    OPENVINO_OP("AddRMSNorm", "ovfast")
    AddRMSNorm() = default;
    AddRMSNorm(const ov::Output<ov::Node>& x, const ov::Output<ov::Node>& residual,
               const ov::Output<ov::Node>& gamma, float epsilon);
    void validate_and_infer_types() override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;
    float epsilon() const { return epsilon_; }

private:
    float epsilon_ = 1e-6F;
};

/// y = x W^T for few rows of x, with W of 4-bit codes: W[n][k] = (code[n][k] - 8) *
/// scale[n][k / group]. Inputs: x [..., K]; codes u8 [N, K / 2], the even column of each two in the
/// low bits (the bytes of a u4 constant); scales [N, K / group] of x's type. Output [..., N].
/// K and group (attribute): multiples of 32, group divides K.
class Int4MatMul : public ov::op::Op {
public:
    OPENVINO_OP("Int4MatMul", "ovfast")
    static constexpr int kZeroPoint = 8;
    Int4MatMul() = default;
    Int4MatMul(const ov::Output<ov::Node>& x, const ov::Output<ov::Node>& codes,
               const ov::Output<ov::Node>& scales, int64_t group);
    void validate_and_infer_types() override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;
    int64_t group() const { return group_; }

private:
    int64_t group_ = 128;
};

}  // namespace ovfast::ops
