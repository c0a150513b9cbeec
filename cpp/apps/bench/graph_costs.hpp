#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <openvino/core/model.hpp>
#include <optional>
#include <string>
#include <vector>

// What a model has to read and to compute at least, counted from its graph before any plugin
// changes it.
namespace ovfast::bench {

/// One operation. A multiply-add counts as two operations; additions of biases, norms and
/// activation functions are not counted.
struct NodeCost {
    std::string name;  ///< friendly name in the model
    std::string type;  ///< "MatMul", "GatedMLP", ...
    /// Bytes of its weights by element type ("u4", "f16"), scales and zero points under their own;
    /// packed weights by their real size under "packed u4 g128 f16 symmetric".
    std::map<std::string, uint64_t> weights;
    /// Of them, bytes that every execution reads; a table of embeddings reads rows instead, and a
    /// split lm_head only its high halves for sure.
    uint64_t bytes = 0;
    uint64_t bytes_a_row = 0;       ///< read for each row (token): embeddings
    double operations_a_row = 0.0;  ///< with constant weights
    /// Rows (tokens, pixels) of one execution; nothing when the shape is dynamic.
    std::optional<double> rows;
    /// Attention: operations for each pair of a query and a key, all heads together.
    double operations_a_pair = 0.0;
    std::optional<double> pairs;
    bool int8 = false;    ///< runs on 8-bit numbers: integer weights in a MatMul, or fake-quantized
    bool logits = false;  ///< gives the model's output: needed for one row of a prompt only
};

struct GraphCosts {
    std::vector<NodeCost> nodes;
    /// Bytes of the constants that these operations have, each once, by element type as above.
    std::map<std::string, uint64_t> weights;
    /// Type -> how many operations with much work in them are not counted, such as LSTMSequence.
    std::map<std::string, int> not_counted;

    uint64_t weight_bytes() const;
};

/// Counts. ovfast's operations are known, however the model was read.
GraphCosts count_graph(const std::shared_ptr<const ov::Model>& model);

/// Work of one inference, or of one step of an engine.
struct Work {
    double bytes = 0.0;
    double int8_operations = 0.0;
    double f32_operations = 0.0;

    Work& operator+=(const Work& other);
};

/// Of one inference of a model whose shapes are known. `incomplete` becomes true when some are not.
Work inference_work(const GraphCosts& costs, bool& incomplete);
/// Of one operation of it; nothing when its shapes are not known.
std::optional<Work> inference_work(const NodeCost& node);

/// A step of a language model: `tokens` of all sequences together, of which `logit_rows` are
/// sampled, with `pairs` of a query and a key that it may see.
struct StepShape {
    double tokens = 1;
    double logit_rows = 1;
    double pairs = 1;
};
Work step_work(const NodeCost& node, const StepShape& step);
/// Of all operations; keys and values that attention reads are not among its bytes.
Work step_work(const GraphCosts& costs, const StepShape& step);

}  // namespace ovfast::bench
