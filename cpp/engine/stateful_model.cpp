#include "engine/stateful_model.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <openvino/op/constant.hpp>
#include <openvino/op/util/read_value_base.hpp>
#include <openvino/runtime/auto/properties.hpp>
#include <openvino/runtime/intel_gpu/properties.hpp>
#include <openvino/runtime/properties.hpp>
#include <sstream>

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

/// The devices that "MULTI:GPU,CPU" and its like are made of.
std::vector<std::string> listed_devices(const std::string& device) {
    std::vector<std::string> devices;
    std::istringstream list(device.substr(device.find(':') + 1));
    for (std::string one; std::getline(list, one, ',');) devices.push_back(one);
    return devices;
}

/// What a model is compiled for: each device of MULTI, else the device as it is.
std::vector<std::string> devices_of(const EngineOptions& options) {
    if (!is_on(options, "MULTI:")) return {options.device};
    return listed_devices(options.device);
}

/// How exactly linear layers compute, in properties of a plugin.
ov::AnyMap precision_properties(const EngineOptions& options, bool groups) {
    ov::AnyMap properties;
    if (options.activation_precision == "exact") {
        properties[ov::hint::inference_precision.name()] = "f32";
        if (groups) properties[ov::hint::dynamic_quantization_group_size.name()] = 0;
    } else if (options.activation_precision == "int8_g128") {
        properties[ov::hint::dynamic_quantization_group_size.name()] = 128;
    }
    return properties;
}

ov::AnyMap compile_properties(ov::Core& core, const EngineOptions& options,
                              const std::string& device) {
    ov::AnyMap properties{{ov::hint::performance_mode.name(), "LATENCY"}};
    const auto is = [&](const char* name) { return device.rfind(name, 0) == 0; };
    if (is("AUTO")) {
        // A request must not change the device between two tokens: its state would stay behind.
        properties[ov::intel_auto::enable_startup_fallback.name()] = false;
        properties[ov::intel_auto::enable_runtime_fallback.name()] = false;
    }
    if (is("HETERO")) {
        // It knows no such properties itself, but hands each device what is for it.
        const ov::AnyMap precision = precision_properties(options, true);
        ov::AnyMap of_devices;
        for (const std::string& one : listed_devices(device)) of_devices[one] = precision;
        if (!precision.empty()) properties[ov::device::properties.name()] = of_devices;
    } else {
        properties.merge(precision_properties(options, is("GPU") || is("CPU")));
    }
    return with_users_properties(core, options, device, std::move(properties));
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
    info_.notes.push_back(
        "on " + options.device +
        " each sequence is computed by itself, and prompts that begin alike share "
        "nothing");
    has_mask_ = has_input(*model, "attention_mask");
    has_positions_ = has_input(*model, "position_ids");
    has_beam_ = has_input(*model, "beam_idx");
    info_.read_seconds = seconds_since(start);

    start = Clock::now();
    try {
        for (const std::string& device : devices_of(options)) {
            const ov::AnyMap properties = compile_properties(core, options, device);
            models_.push_back(core.compile_model(model, device, properties));
            idle_.push_back({models_.back().create_infer_request()});
            for (const auto& name : models_.back().get_property(ov::execution_devices)) {
                info_.execution_devices.push_back(name);
            }
        }
    } catch (const std::invalid_argument&) {
        throw;
    } catch (const std::exception& e) {
        throw_not_compiled(files, options, e);
    }
    const auto profile = options.properties.find(ov::enable_profiling.name());
    profiled_ = profile != options.properties.end() && profile->second == "YES";
    info_.compile_seconds = seconds_since(start);
    bound_cache(info_, options, kBlockTokens, token_bytes * kBlockTokens, info_.weights_bytes,
                device_memory(core, options));
}

const float* StatefulModel::run(const StepBatch& batch) {
    const auto vocabulary = static_cast<size_t>(info_.vocab_size);
    std::vector<Slot*> running;
    for (size_t i = 0; i < batch.sequences.size(); ++i) {
        Slot& slot = slot_of(batch.sequences[i]);
        const auto past = static_cast<size_t>(batch.past_lengths[i]);
        if (slot.tokens.size() != past) {
            throw std::logic_error("a sequence holds " + std::to_string(slot.tokens.size()) +
                                   " tokens, expected " + std::to_string(past));
        }
        slot.tokens.insert(slot.tokens.end(), batch.token_ids.begin() + batch.begins[i],
                           batch.token_ids.begin() + batch.begins[i + 1]);
        running.push_back(&slot);
    }
    const auto longest = static_cast<size_t>(batch.max_context);
    if (ones_.size() < longest) {
        ones_.assign(2 * longest, 1);
        positions_.resize(2 * longest);
        std::iota(positions_.begin(), positions_.end(), int64_t{0});
    }
    try {
        std::vector<Slot*> started = running;
        while (!started.empty()) {
            started.erase(std::remove_if(started.begin(), started.end(),
                                         [this](Slot* slot) { return !start(*slot); }),
                          started.end());
            for (Slot* slot : started) {
                slot->request.wait();
                if (profiled_) note_times(slot->request);
            }
        }
        logits_.resize(batch.logit_rows.size() * vocabulary);
        size_t row = 0;
        for (size_t i = 0; i < running.size() && row < batch.logit_rows.size(); ++i) {
            // The scheduler asks for the last token of a sequence or for none.
            if (batch.logit_rows[row] != batch.begins[i + 1] - 1) continue;
            const ov::Tensor logits = running[i]->request.get_output_tensor(0);
            std::copy_n(logits.data<const float>(), vocabulary, &logits_[row++ * vocabulary]);
        }
        if (row == batch.logit_rows.size()) return logits_.data();
    } catch (const std::exception& e) {
        throw Error("the model failed in a step of " + std::to_string(batch.token_ids.size()) +
                    " tokens on " + info_.device + ": " + short_reason(e));
    }
    throw std::logic_error("logits were asked for of a token that is not a sequence's last");
}

StatefulModel::Slot& StatefulModel::slot_of(uint64_t sequence) {
    const auto found = slots_.find(sequence);
    if (found != slots_.end()) return found->second;
    Slot slot;
    std::vector<size_t> load(models_.size());
    for (const auto& [other, taken] : slots_) ++load[taken.device];
    slot.device = static_cast<size_t>(std::min_element(load.begin(), load.end()) - load.begin());
    auto& idle = idle_[slot.device];
    if (idle.empty()) {
        slot.request = models_[slot.device].create_infer_request();
    } else {
        slot.request = std::move(idle.back());
        idle.pop_back();
    }
    slot.request.reset_state();
    return slots_.emplace(sequence, std::move(slot)).first->second;
}

bool StatefulModel::start(Slot& slot) {
    const size_t left = slot.tokens.size() - slot.in_state;
    if (left == 0) return false;
    size_t count = std::min(left, max_chunk_);
    if (chunks_by_two_) {
        while ((count & (count - 1)) != 0) count &= count - 1;  // its highest bit
    }
    auto& request = slot.request;
    const size_t total = slot.in_state + count;
    request.set_tensor("input_ids", row(&slot.tokens[slot.in_state], count));
    if (has_mask_) request.set_tensor("attention_mask", row(ones_.data(), total));
    if (has_positions_) {
        request.set_tensor("position_ids", row(&positions_[slot.in_state], count));
    }
    if (has_beam_) request.set_tensor("beam_idx", ov::Tensor(ov::element::i32, {1}, &beam_));
    request.start_async();
    slot.in_state = total;
    return true;
}

// Plugins hand out a state in other layouts and precisions than they keep it: computing it again is
// what works everywhere. The next step does.
void StatefulModel::fork(uint64_t from, uint64_t to) {
    slot_of(to).tokens = slots_.at(from).tokens;
}

void StatefulModel::release(uint64_t sequence) {
    const auto found = slots_.find(sequence);
    if (found == slots_.end()) return;
    auto& idle = idle_[found->second.device];
    if (idle.size() < kIdleRequests) idle.push_back(std::move(found->second.request));
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
