#include "text/encoder.hpp"

#include <string_view>
#include <utility>

#include "openvino/op/constant.hpp"
#include "openvino/op/convert.hpp"
#include "openvino/runtime/intel_cpu/properties.hpp"
#include "openvino/runtime/properties.hpp"
#include "ovfast/error.hpp"

namespace ovfast {
namespace {

using ov::op::v0::Constant;

std::string_view type_of(const ov::Node& node) {
    return node.get_type_info().name;
}

/// The values of a constant ragged tensor with one row, or nothing if it is not constant.
bool constant_row(const ov::Node& node, size_t port, std::vector<int64_t>& row) {
    int64_t bounds[2];
    for (size_t i = 0; i < 2; ++i) {
        const auto bound = ov::as_type_ptr<Constant>(node.get_input_node_shared_ptr(port + i));
        if (!bound || ov::shape_size(bound->get_shape()) != 1) return false;
        bounds[i] = bound->cast_vector<int64_t>()[0];
    }
    const auto values = ov::as_type_ptr<Constant>(node.get_input_node_shared_ptr(port + 2));
    if (!values) return false;
    const auto all = values->cast_vector<int64_t>();
    if (bounds[0] < 0 || bounds[0] > bounds[1] || bounds[1] > static_cast<int64_t>(all.size()))
        throw ModelError("tokenizer: special tokens lie outside their constant");
    row.assign(all.begin() + bounds[0], all.begin() + bounds[1]);
    return true;
}

/// The operation that makes tokens of text, found from the graph's output, and the special tokens
/// that are put around them on the way.
std::shared_ptr<ov::Node> find_tokenization(ov::Model& model, std::vector<int64_t>& prefix,
                                            std::vector<int64_t>& suffix) {
    auto node = model.output("input_ids").get_node_shared_ptr();
    node = node->get_input_node_shared_ptr(0);
    // In a ragged tensor (begins, ends, values) the values' producer makes all three.
    constexpr size_t values_port = 2;
    while (true) {
        const std::string_view type = type_of(*node);
        if (ov::is_type<ov::op::v0::Convert>(node)) {
            node = node->get_input_node_shared_ptr(0);
        } else if (type == "RaggedToDense" || type == "Truncate") {
            node = node->get_input_node_shared_ptr(values_port);
        } else if (type == "CombineSegments") {
            std::shared_ptr<ov::Node> text;
            for (size_t port = 0; port + 3 <= node->get_input_size(); port += 3) {
                std::vector<int64_t> special_tokens;
                if (constant_row(*node, port, special_tokens)) {
                    auto& side = text ? suffix : prefix;
                    side.insert(side.end(), special_tokens.begin(), special_tokens.end());
                } else if (text) {
                    throw ModelError("tokenizer: expected one text, got one for pairs");
                } else {
                    text = node->get_input_node_shared_ptr(port + values_port);
                }
            }
            if (!text) throw ModelError("tokenizer: nothing but special tokens");
            node = text;
        } else {
            break;
        }
    }
    if (node->get_output_size() != 3 || node->get_output_element_type(2) != ov::element::i32)
        throw ModelError("tokenizer: step " + std::string(type_of(*node)) +
                         " is not supported; convert the tokenizer from its tokenizer.json");
    return node;
}

}  // namespace

Encoder::Encoder(ov::Core& core, const std::shared_ptr<ov::Model>& whole) {
    const ov::ParameterVector& inputs = whole->get_parameters();
    if (inputs.size() != 1 || inputs[0]->get_element_type() != ov::element::string)
        throw ModelError("tokenizer: expected one input of type string, got " +
                         std::to_string(inputs.size()) + " inputs");
    const auto tokenization = find_tokenization(*whole, prefix_, suffix_);
    const auto cut = std::make_shared<ov::Model>(tokenization->outputs(), inputs);
    // One text at a time is little work: without this, a pool of threads as big as the engine's
    // would be made and pinned for it.
    request_ = core.compile_model(cut, "CPU", ov::inference_num_threads(1), ov::num_streams(1),
                                  ov::hint::enable_cpu_pinning(false))
                   .create_infer_request();
    // The first inference builds the tables of merges, which takes as long as all the rest.
    std::vector<int64_t> token_ids;
    append_tokens("a", token_ids);
}

std::vector<int64_t> Encoder::encode(const std::string& text, bool add_special_tokens) const {
    std::vector<int64_t> token_ids;
    if (add_special_tokens) token_ids = prefix_;
    if (!text.empty()) append_tokens(text, token_ids);
    if (add_special_tokens) token_ids.insert(token_ids.end(), suffix_.begin(), suffix_.end());
    return token_ids;
}

void Encoder::append_tokens(const std::string& text, std::vector<int64_t>& token_ids) const {
    ov::Tensor input(ov::element::string, ov::Shape{1});
    input.data<std::string>()[0] = text;
    // One stream runs one inference at a time anyway; requests of several threads at once would
    // only queue inside the plugin.
    const std::lock_guard<std::mutex> lock(mutex_);
    request_.set_input_tensor(input);
    request_.infer();

    const ov::Tensor begins = request_.get_output_tensor(0);
    const ov::Tensor ends = request_.get_output_tensor(1);
    const ov::Tensor values = request_.get_output_tensor(2);
    if (begins.get_size() != 1 || ends.get_size() != 1)
        throw ModelError("tokenizer: expected one row of tokens, got " +
                         std::to_string(begins.get_size()));
    const int32_t begin = begins.data<int32_t>()[0];
    const int32_t end = ends.data<int32_t>()[0];
    if (begin < 0 || begin > end || static_cast<size_t>(end) > values.get_size())
        throw ModelError("tokenizer: the tokens lie outside their tensor");
    const auto* ids = values.data<int32_t>();
    token_ids.insert(token_ids.end(), ids + begin, ids + end);
}

}  // namespace ovfast
