#include "engine/stateful_model.hpp"

#include <algorithm>
#include <array>
#include <openvino/op/constant.hpp>
#include <openvino/op/util/read_value_base.hpp>
#include <openvino/runtime/auto/properties.hpp>
#include <openvino/runtime/intel_gpu/properties.hpp>
#include <openvino/runtime/properties.hpp>

#include "engine/lm_head.hpp"
#include "ops/rewrite_device.hpp"
#include "ovfast/error.hpp"
#include "ovfast/host.hpp"
#include "ovfast/ops.hpp"
#include "runtime/model_writer.hpp"
#include "runtime/pack_model.hpp"
#include "runtime/read_ir.hpp"

namespace ovfast {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kBlockTokens = 32;
// Requests of ended sequences that are kept for the next ones: making one takes milliseconds.
constexpr size_t kIdleRequests = 8;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

bool is_on(const EngineOptions& options, const char* device) {
    return options.device.rfind(device, 0) == 0;
}

void require_device(ov::Core& core, const EngineOptions& options) {
    if (!is_on(options, "GPU")) return;
    std::string found;
    for (const std::string& name : core.get_available_devices()) {
        if (name == options.device || (options.device == "GPU" && name == "GPU.0")) return;
        found += (found.empty() ? "" : ", ") + name;
    }
    throw std::invalid_argument("device is '" + options.device +
                                "', but OpenVINO finds no such device here, only: " + found +
                                "; `ovfast doctor` says what is missing");
}

std::shared_ptr<ov::Model> read_stock(ov::Core& core, const ModelFiles& files,
                                      const EngineOptions& options) {
    const std::filesystem::path& dir = files.path();
    if (is_packed(files)) {
        throw std::invalid_argument(
            "'" + dir.string() +
            "' holds packed weights, which only the CPU runs, but the device is " + options.device +
            "; export it with --no-pack");
    }
    const std::shared_ptr<ov::Model> model = read_ir(core, files, kModelXml);
    check_decoder(*model, dir);
    constexpr std::array<const char*, 4> supplied{"input_ids", "attention_mask", "position_ids",
                                                  "beam_idx"};
    for (const auto& input : model->inputs()) {
        const auto& names = input.get_names();
        const bool known = std::any_of(supplied.begin(), supplied.end(),
                                       [&](const char* name) { return names.count(name) != 0; });
        if (!known) {
            throw ModelError(
                "the model in " + dir.string() + " has the input '" +
                (names.empty() ? input.get_node()->get_friendly_name() : *names.begin()) +
                "', which text generation does not supply (supported are input_ids, "
                "attention_mask, position_ids and beam_idx)");
        }
    }
    return model;
}

/// Bytes that the states take for one token.
uint64_t state_bytes_per_token(const ov::Model& model, const std::filesystem::path& dir) {
    uint64_t bytes = 0;
    for (const auto& node : model.get_ops()) {
        if (!ov::is_type<ov::op::util::ReadValueBase>(node)) continue;
        uint64_t values = 1;
        for (const auto& dimension : node->get_output_partial_shape(0)) {
            if (dimension.is_static()) values *= static_cast<uint64_t>(dimension.get_length());
        }
        bytes += values * node->get_output_element_type(0).size();
    }
    if (bytes == 0) {
        throw ModelError("the model in " + dir.string() +
                         " keeps no KV cache as state: export it stateful");
    }
    return bytes;
}

/// The model gives the logits of its last token alone, f32 [1, vocabulary].
void give_last_logits(const std::shared_ptr<ov::Model>& model) {
    const std::shared_ptr<ov::Model> lm_head = split_lm_head(model);
    const auto rows = model->get_parameters().back();
    rows->output(0).replace(
        ov::op::v0::Constant::create(ov::element::i64, {1}, {int64_t{-1}})->output(0));
    model->remove_parameter(rows);
    if (lm_head) {
        // One graph: nothing is to be had here from running the head elsewhere or not at all.
        const auto result = model->get_results().front();
        lm_head->get_parameters().front()->output(0).replace(result->input_value(0));
        result->input(0).replace_source_output(lm_head->get_results().front()->input_value(0));
    }
    model->validate_nodes_and_infer_types();
}

ov::AnyMap compile_properties(ov::Core& core, const EngineOptions& options) {
    ov::AnyMap properties{{ov::hint::performance_mode.name(), "LATENCY"}};
    if (is_on(options, "MULTI")) properties.clear();  // a hint of its own
    if (is_on(options, "AUTO")) {
        // A request must not change the device between two tokens: its state would stay behind.
        properties[ov::intel_auto::enable_startup_fallback.name()] = false;
        properties[ov::intel_auto::enable_runtime_fallback.name()] = false;
    }
    if (options.activation_precision == "exact") {
        properties[ov::hint::inference_precision.name()] = "f32";
        if (is_on(options, "GPU")) {
            properties[ov::hint::dynamic_quantization_group_size.name()] = 0;
        }
    } else if (options.activation_precision == "int8_g128") {
        properties[ov::hint::dynamic_quantization_group_size.name()] = 128;
    }
    return with_users_properties(core, options, std::move(properties));
}

CacheMemory device_memory(ov::Core& core, const EngineOptions& options) {
    if (!is_on(options, "GPU")) return host_memory();
    const uint64_t total = core.get_property(options.device, ov::intel_gpu::device_total_mem_size);
    return {total, total, "GPU", " on the GPU"};
}

template <typename T>
ov::Tensor row(const T* values, size_t count) {
    // Only for the time of the inference, during which nobody writes to it.
    return {ov::element::from<T>(), {1, count}, const_cast<T*>(values)};
}

}  // namespace

StatefulModel::StatefulModel(const ModelFiles& files, const EngineOptions& options) {
    const std::filesystem::path& model_dir = files.path();
    auto start = Clock::now();
    ov::Core core;
    require_device(core, options);
    info_.device = options.device;
    info_.threads = read_host_limits().threads;  // of what the engine itself does
    info_.prefix_caching = false;
    info_.attention = "openvino";
    info_.attention_reason = "the device is " + options.device;
    const std::shared_ptr<ov::Model> model = read_stock(core, files, options);
    for (const auto& node : model->get_ops()) {
        const auto* constant = ov::as_type<const ov::op::v0::Constant>(node.get());
        if (constant) info_.weights_bytes += constant->get_byte_size();
    }
    const uint64_t token_bytes = state_bytes_per_token(*model, model_dir);
    give_last_logits(model);
    info_.vocab_size = model->output(0).get_partial_shape()[1].get_length();
    info_.lm_head_rows = true;
    max_chunk_ = static_cast<size_t>(options.max_batch_tokens);
    if (options.gpu_operations == "ovfast") {
        register_ops(core);
        info_.gpu_operations = static_cast<int64_t>(ops::use_device_operations(*model));
        if (info_.gpu_operations == 0) {
            throw std::invalid_argument(
                "gpu_operations is 'ovfast', but the graph in " + model_dir.string() +
                " has no gated activation or norm after a residual that ours could replace");
        }
        chunks_by_two_ = true;
        while ((max_chunk_ & (max_chunk_ - 1)) != 0) max_chunk_ &= max_chunk_ - 1;
        info_.notes.push_back(
            "kernels of ovfast are built for each length of a piece of a prompt: pieces are powers "
            "of two up to " +
            std::to_string(max_chunk_) + " tokens");
    }
    info_.notes.push_back("on " + options.device +
                          " sequences are computed one after the other, and prompts that begin "
                          "alike share nothing");
    has_mask_ = has_input(*model, "attention_mask");
    has_positions_ = has_input(*model, "position_ids");
    has_beam_ = has_input(*model, "beam_idx");
    info_.read_seconds = seconds_since(start);

    start = Clock::now();
    const ov::AnyMap properties = compile_properties(core, options);
    try {
        model_ = core.compile_model(model, options.device, properties);
        idle_.push_back(model_.create_infer_request());
    } catch (const std::exception& e) {
        throw_not_compiled(files, options, e);
    }
    info_.execution_devices = model_.get_property(ov::execution_devices);
    const auto profile = options.properties.find(ov::enable_profiling.name());
    profiled_ = profile != options.properties.end() && profile->second == "YES";
    info_.compile_seconds = seconds_since(start);
    bound_cache(info_, options, kBlockTokens, token_bytes * kBlockTokens, info_.weights_bytes,
                device_memory(core, options));
}

const float* StatefulModel::run(const StepBatch& batch) {
    const auto vocabulary = static_cast<size_t>(info_.vocab_size);
    logits_.resize(batch.logit_rows.size() * vocabulary);
    size_t rows = 0;
    for (size_t i = 0; i < batch.sequences.size(); ++i) {
        const auto last = static_cast<size_t>(batch.begins[i + 1]);
        try {
            Slot& slot = slot_of(batch.sequences[i], batch.past_lengths[i]);
            compute(slot, batch, static_cast<size_t>(batch.begins[i]), last);
            // The scheduler asks for the last token of a sequence or for none.
            if (rows == batch.logit_rows.size() ||
                batch.logit_rows[rows] != static_cast<int64_t>(last) - 1) {
                continue;
            }
            const ov::Tensor logits = slot.request.get_output_tensor(0);
            std::copy_n(logits.data<const float>(), vocabulary, &logits_[rows++ * vocabulary]);
        } catch (const std::exception& e) {
            throw Error("the model failed in a step of " + std::to_string(batch.token_ids.size()) +
                        " tokens on " + info_.device + ": " + short_reason(e));
        }
    }
    if (rows != batch.logit_rows.size()) {
        throw std::logic_error("logits were asked for of a token that is not a sequence's last");
    }
    return logits_.data();
}

StatefulModel::Slot& StatefulModel::slot_of(uint64_t sequence, int32_t past) {
    auto found = slots_.find(sequence);
    if (found == slots_.end()) {
        Slot slot;
        if (idle_.empty()) {
            slot.request = model_.create_infer_request();
        } else {
            slot.request = std::move(idle_.back());
            idle_.pop_back();
        }
        slot.request.reset_state();
        found = slots_.emplace(sequence, std::move(slot)).first;
    }
    if (found->second.past != past) {
        throw std::logic_error("the state of a sequence holds " +
                               std::to_string(found->second.past) + " tokens, expected " +
                               std::to_string(past));
    }
    return found->second;
}

void StatefulModel::compute(Slot& slot, const StepBatch& batch, size_t first, size_t last) {
    int32_t beam = 0;
    const ov::Tensor beams(ov::element::i32, {1}, &beam);
    while (first < last) {
        size_t count = std::min(last - first, max_chunk_);
        if (chunks_by_two_) {
            while ((count & (count - 1)) != 0) count &= count - 1;  // its highest bit
        }
        const auto total = static_cast<size_t>(slot.past) + count;
        if (mask_.size() < total) mask_.assign(std::max(total, 2 * mask_.size()), 1);
        slot.request.set_tensor("input_ids", row(&batch.token_ids[first], count));
        if (has_mask_) slot.request.set_tensor("attention_mask", row(mask_.data(), total));
        if (has_positions_) {
            slot.request.set_tensor("position_ids", row(&batch.positions[first], count));
        }
        if (has_beam_) slot.request.set_tensor("beam_idx", beams);
        slot.request.infer();
        if (profiled_) note_times(slot.request);
        slot.past += static_cast<int32_t>(count);
        first += count;
    }
}

void StatefulModel::fork(uint64_t from, uint64_t to) {
    const Slot& original = slots_.at(from);
    const int32_t past = original.past;
    ov::InferRequest source = original.request;
    Slot& copy = slot_of(to, 0);
    std::map<std::string, ov::VariableState> states;
    for (auto& state : source.query_state()) states.emplace(state.get_name(), state);
    for (auto& state : copy.request.query_state()) {
        state.set_state(states.at(state.get_name()).get_state());
    }
    copy.past = past;
}

void StatefulModel::release(uint64_t sequence) {
    const auto found = slots_.find(sequence);
    if (found == slots_.end()) return;
    if (idle_.size() < kIdleRequests) idle_.push_back(std::move(found->second.request));
    slots_.erase(found);
}

void StatefulModel::note_times(const ov::InferRequest& request) {
    const std::lock_guard lock(times_mutex_);
    for (const ov::ProfilingInfo& info : request.get_profiling_info()) {
        if (info.status != ov::ProfilingInfo::Status::EXECUTED) continue;
        NodeTime& time = times_[info.node_name];
        time.name = info.node_name;
        time.type = info.node_type;
        time.seconds += std::chrono::duration<double>(info.real_time).count();
        ++time.steps;
    }
}

std::vector<NodeTime> StatefulModel::take_node_times() {
    const std::lock_guard lock(times_mutex_);
    std::vector<NodeTime> taken;
    for (auto& [name, time] : times_) taken.push_back(std::move(time));
    times_.clear();
    return taken;
}

}  // namespace ovfast
