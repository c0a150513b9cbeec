#pragma once

#include <cstdint>
#include <memory>
#include <openvino/op/op.hpp>
#include <optional>
#include <string>
#include <vector>

#include "kernels/packed_weights.hpp"
#include "ops/linear_mode.hpp"

// Operations on packed weights (kernels/packed_weights.hpp), which are u8 constants [bytes] that
// lie in the IR's .bin and are used in place. All of them take and give f32, treat all dimensions
// but the last as rows, and exist for the CPU through evaluate(). unfused.hpp has each in standard
// operations.
namespace ovfast::ops {

/// "int8": activations may be quantized or rounded by the kernels; "int8_g128": the same with a
/// scale for 128 columns instead of 32; "exact": f32 throughout.
using Activations = kernels::ActivationPrecision;
/// Of those texts; nullopt for any other.
std::optional<Activations> parse_activations(const std::string& text);
const char* to_string(Activations activations);

/// What the operations share: weights that are checked once, however often the node is cloned.
class PackedOp : public ov::op::Op {
public:
    PackedOp();
    explicit PackedOp(const ov::OutputVector& inputs);

    bool has_evaluate() const override { return true; }

    /// Verifies the checksum of every packed input; evaluate() does it at its first call if nobody
    /// did before. Of `authentic` bytes only the layout is looked at: somebody proved already that
    /// they are what was written. Throws ov::Exception naming the node.
    void verify_weights(bool authentic = false) const;

    /// Its precision is an attribute; tiles are this machine's matter and stay out of the IR.
    const LinearMode& mode() const { return mode_; }
    void set_mode(const LinearMode& mode) { mode_ = mode; }

protected:
    /// Inputs [first, first + count) are packed constants.
    virtual std::pair<size_t, size_t> packed_inputs() const = 0;
    /// Input `index` as packed weights of [rows, columns], verified at its first use. Throws
    /// ov::Exception naming the node.
    kernels::PackedWeights packed(size_t index, const ov::TensorVector& inputs, int64_t rows,
                                  int64_t columns) const;
    void visit_activations(ov::AttributeVisitor& visitor);
    /// What a clone takes over beside its attributes.
    void share_state(const PackedOp& original);

private:
    struct Checked;
    kernels::PackedWeights checked(size_t index, const void* data, size_t bytes,
                                   bool authentic = false) const;

    LinearMode mode_;
    std::shared_ptr<Checked> checked_;  ///< shared by clones
};

/// y = x W^T (+ bias) (+ residual), with x normalized first when there is a gamma.
/// Inputs: x [..., K]; packed [N, K]; then those of gamma [K], bias [N], residual [..., N] that the
/// attributes name, in this order. Output [..., N].
class FullyConnected : public PackedOp {
public:
    OPENVINO_OP("FullyConnected", "ovfast")
    struct Attributes {
        int64_t rows = 0;     ///< N
        int64_t columns = 0;  ///< K
        bool norm = false;
        float epsilon = 0.0F;
        bool bias = false;
        bool residual = false;
    };
    FullyConnected() = default;
    FullyConnected(const ov::OutputVector& inputs, const Attributes& attributes);
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

/// Three FullyConnected of one input in one pass: x is normalized and quantized once, and the rows
/// of all three are one piece of parallel work.
/// Inputs: x [..., K]; packed q, k, v; then gamma [K] if norm; then the biases of those whose bit
/// is set (1 q, 2 k, 4 v). Outputs [..., q_rows], [..., k_rows], [..., v_rows].
class QKV : public PackedOp {
public:
    OPENVINO_OP("QKV", "ovfast")
    struct Attributes {
        int64_t columns = 0;
        int64_t q_rows = 0, k_rows = 0, v_rows = 0;
        bool norm = false;
        float epsilon = 0.0F;
        int64_t biases = 0;
    };
    QKV() = default;
    QKV(const ov::OutputVector& inputs, const Attributes& attributes);
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

enum class Gate { Silu, GeluTanh, GeluErf };

/// down(activation(gate(x)) * up(x)) (+ residual). The intermediate row never leaves the cache at
/// few rows; prompts are worked on in pieces of rows.
/// Inputs: x [..., K]; packed gate [I, K], up [I, K], down [N, I]; then gamma [K] if norm, then
/// residual [..., N] if residual. Output [..., N].
class GatedMLP : public PackedOp {
public:
    OPENVINO_OP("GatedMLP", "ovfast")
    struct Attributes {
        int64_t columns = 0;       ///< K
        int64_t intermediate = 0;  ///< I
        int64_t rows = 0;          ///< N
        Gate gate = Gate::Silu;    ///< in the IR: "silu", "gelu_tanh", "gelu_erf"
        bool norm = false;
        float epsilon = 0.0F;
        bool residual = false;
    };
    GatedMLP() = default;
    GatedMLP(const ov::OutputVector& inputs, const Attributes& attributes);
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

/// Rows of a packed matrix: out[..., :] = W[ids[...], :]. Inputs: ids i32 or i64 [...]; packed
/// [rows, columns]; if `halves`, another whose rows are added: the halves of a split matrix
/// (kernels/split.hpp). Output [..., columns]. An id outside [0, rows) throws. Lets an embedding
/// share its bytes with a tied lm_head.
class Embedding : public PackedOp {
public:
    OPENVINO_OP("Embedding", "ovfast")
    struct Attributes {
        int64_t rows = 0;
        int64_t columns = 0;
        bool halves = false;
    };
    Embedding() = default;
    Embedding(const ov::OutputVector& inputs, const Attributes& attributes);
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

}  // namespace ovfast::ops
