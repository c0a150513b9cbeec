#include "ops/decoder_stack.hpp"

#include <openvino/op/constant.hpp>

#include "kernels/linear.hpp"
#include "ops/linear_work.hpp"
#include "ops/op_checks.hpp"

namespace ovfast::ops {
namespace {

// A thread normalizes or turns this many floats in about the time that it takes to wake it.
constexpr size_t kFloatsPerWorker = 32 * 1024;

// Calls body(row) for each of `rows` rows of `width` floats, in several threads if that pays.
template <typename Body>
void for_rows(size_t rows, size_t width, const Body& body) {
    const auto threads = static_cast<size_t>(tbb::this_task_arena::max_concurrency());
    const size_t workers =
        std::min({threads, rows, std::max<size_t>(1, rows * width / kFloatsPerWorker)});
    run_workers(workers, [&](size_t worker) {
        const size_t last = rows * (worker + 1) / workers;
        for (size_t row = rows * worker / workers; row < last; ++row) body(row);
    });
}

// y = norm(y) + x
void add_normalized(const RmsNorm& norm, const ov::Tensor& x, ov::Tensor& y) {
    const size_t rows = y.get_shape()[0];
    const size_t columns = y.get_shape()[1];
    const auto& vectors = kernels::vector_kernels();
    const float* in = x.data<const float>();
    float* out = y.data<float>();
    for_rows(rows, columns, [&](size_t row) {
        apply_norm(norm, out + row * columns, 1, columns);
        vectors.add(in + row * columns, out + row * columns, columns);
    });
}

// The inputs of an operation with constants in all places but those that evaluate() fills in.
ov::TensorVector constant_inputs(const ov::Node& node) {
    ov::TensorVector inputs;
    for (const auto& value : node.input_values()) {
        const auto* constant =
            dynamic_cast<const ov::op::v0::Constant*>(value.get_node_shared_ptr().get());
        inputs.push_back(constant != nullptr
                             ? ov::Tensor(constant->get_element_type(), constant->get_shape(),
                                          const_cast<void*>(constant->get_data_ptr()))
                             : ov::Tensor());
    }
    return inputs;
}

}  // namespace

struct DecoderStack::Runner {
    struct Step {
        ov::Tensor x;
        ov::TensorVector qkv_in, qkv_out, attention_in, attention_out, out_in, out_out, mlp_in,
            mlp_out;
    };
    std::vector<DecoderLayer> layers;
    std::vector<Step> steps;
    std::vector<const Rope*> ropes;  // distinct rotations
    std::vector<RopeTable> tables;   // [ropes]
    std::vector<size_t> table_of;    // [layers]
    std::mutex mutex;

    explicit Runner(std::vector<DecoderLayer> all) : layers(std::move(all)) {
        for (const DecoderLayer& layer : layers) {
            Step step;
            step.qkv_in = constant_inputs(*layer.qkv);
            step.qkv_out.resize(3);
            step.attention_in.resize(8);
            step.attention_out.resize(1);
            step.out_in = constant_inputs(*layer.out);
            step.out_out.resize(1);
            step.mlp_in = constant_inputs(*layer.mlp);
            step.mlp_out.resize(1);
            steps.push_back(std::move(step));
            size_t index = 0;
            while (index < ropes.size() && !(*ropes[index] == layer.rope)) ++index;
            if (index == ropes.size()) ropes.push_back(&layer.rope);
            table_of.push_back(index);
        }
        tables.resize(ropes.size());
    }

    // Values between operations are needed by the next one only, so all layers share their memory.
    void shape_buffers(size_t rows) {
        const auto columns = static_cast<size_t>(layers.front().qkv->attributes().columns);
        if (rows == rows_) return;
        rows_ = 0;  // until all tensors refer to memory that is there
        const auto tensor = [&](GrowingBuffer& buffer, size_t width) {
            return ov::Tensor(ov::element::f32, {rows, width}, buffer.get<float>(rows * width));
        };
        size_t widest[3] = {0, 0, 0};
        size_t attention = 0;
        for (const DecoderLayer& layer : layers) {
            const auto& shape = layer.attention->attributes().shape;
            widest[0] = std::max(widest[0], shape.heads * shape.key_size);
            widest[1] = std::max(widest[1], shape.kv_heads * shape.key_size);
            widest[2] = std::max(widest[2], shape.kv_heads * shape.value_size);
            attention = std::max(attention, shape.heads * shape.value_size);
        }
        for (size_t i = 0; i < 3; ++i) heads_[i].get<float>(rows * widest[i]);
        attention_.get<float>(rows * attention);
        const ov::Tensor x = tensor(x_, columns);
        const ov::Tensor middle = tensor(middle_, columns);
        for (size_t i = 0; i < layers.size(); ++i) {
            const DecoderLayer& layer = layers[i];
            const auto& shape = layer.attention->attributes().shape;
            Step& step = steps[i];
            step.qkv_in[0] = x;
            step.qkv_out[layer.q] = tensor(heads_[0], shape.heads * shape.key_size);
            step.qkv_out[layer.k] = tensor(heads_[1], shape.kv_heads * shape.key_size);
            step.qkv_out[layer.v] = tensor(heads_[2], shape.kv_heads * shape.value_size);
            step.attention_in[0] = step.qkv_out[layer.q];
            step.attention_in[1] = step.qkv_out[layer.k];
            step.attention_in[2] = step.qkv_out[layer.v];
            step.attention_out[0] = tensor(attention_, shape.heads * shape.value_size);
            step.out_in[0] = step.attention_out[0];
            step.x = x;
            if (layer.out->attributes().residual) step.out_in.back() = x;
            step.out_out[0] = middle;
            step.mlp_in[0] = middle;
            if (layer.mlp->attributes().residual) step.mlp_in.back() = middle;
            step.mlp_out[0] = x;
        }
        rows_ = rows;
    }

    void turn_heads(const DecoderLayer& layer, const RopeTable& table, Step& step, size_t rows) {
        const auto& shape = layer.attention->attributes().shape;
        const auto turn = [&](const RmsNorm& norm, float* x, size_t row, size_t heads) {
            x += row * heads * shape.key_size;
            apply_norm(norm, x, heads, shape.key_size);
            apply_rope(layer.rope, table, row, x, heads, shape.key_size);
        };
        float* q = step.attention_in[0].data<float>();
        float* k = step.attention_in[1].data<float>();
        for_rows(rows, (shape.heads + shape.kv_heads) * shape.key_size, [&](size_t row) {
            turn(layer.q_norm, q, row, shape.heads);
            turn(layer.k_norm, k, row, shape.kv_heads);
        });
    }

    size_t rows_ = 0;
    GrowingBuffer x_, middle_, attention_, heads_[3];
};

DecoderStack::DecoderStack(const ov::OutputVector& inputs, std::vector<DecoderLayer> layers)
    : Op(inputs), runner_(std::make_shared<Runner>(std::move(layers))) {
    constructor_validate_and_infer_types();
}

void DecoderStack::validate_and_infer_types() {
    check_input_count(*this, 7);
    set_output_type(0, ov::element::f32, get_input_partial_shape(0));
}

bool DecoderStack::visit_attributes(ov::AttributeVisitor&) {
    return true;
}

std::shared_ptr<ov::Node> DecoderStack::clone_with_new_inputs(
    const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<DecoderStack>();
    copy->runner_ = runner_;
    copy->set_arguments(inputs);
    copy->validate_and_infer_types();
    return copy;
}

bool DecoderStack::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    Runner& runner = *runner_;
    const std::lock_guard lock(runner.mutex);
    const auto columns = runner.layers.front().qkv->attributes().columns;
    const size_t rows = count_rows(*this, inputs[0], columns);
    outputs[0].set_shape(inputs[0].get_shape());
    if (rows == 0) return true;
    const std::vector<int64_t> positions = integers(inputs[1]);
    OPENVINO_ASSERT(positions.size() == rows, get_friendly_name(), ": ", rows, " tokens have ",
                    positions.size(), " positions");
    runner.shape_buffers(rows);
    for (size_t i = 0; i < runner.ropes.size(); ++i) {
        runner.tables[i].fill(*runner.ropes[i], positions.data(), rows);
    }
    for (size_t i = 0; i < runner.layers.size(); ++i) {
        const DecoderLayer& layer = runner.layers[i];
        Runner::Step& step = runner.steps[i];
        if (i == 0) {
            step.qkv_in[0] = ov::Tensor(ov::element::f32, {rows, static_cast<size_t>(columns)},
                                        const_cast<float*>(inputs[0].data<const float>()));
            step.x = step.qkv_in[0];
            if (layer.out->attributes().residual) step.out_in.back() = step.x;
        }
        if (i + 1 == runner.layers.size()) {
            step.mlp_out[0] = ov::Tensor(ov::element::f32, {rows, static_cast<size_t>(columns)},
                                         outputs[0].data<float>());
        }
        layer.qkv->evaluate(step.qkv_out, step.qkv_in);
        runner.turn_heads(layer, runner.tables[runner.table_of[i]], step, rows);
        std::copy(inputs.begin() + 2, inputs.end(), step.attention_in.begin() + 3);
        layer.attention->evaluate(step.attention_out, step.attention_in);
        layer.out->evaluate(step.out_out, step.out_in);
        if (!layer.out_norm.gamma.empty()) add_normalized(layer.out_norm, step.x, step.out_out[0]);
        layer.mlp->evaluate(step.mlp_out, step.mlp_in);
        if (!layer.mlp_norm.gamma.empty()) {
            add_normalized(layer.mlp_norm, step.out_out[0], step.mlp_out[0]);
        }
    }
    return true;
}

}  // namespace ovfast::ops
