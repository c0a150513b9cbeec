#include "engine/paged_model.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <limits>
#include <openvino/core/any.hpp>
#include <openvino/op/util/read_value_base.hpp>
#include <openvino/pass/sdpa_to_paged_attention.hpp>
#include <openvino/runtime/properties.hpp>
#include <sstream>

#include "engine/lm_head.hpp"
#include "engine/sliding_window.hpp"
#include "ops/decoder_stack.hpp"
#include "ops/packed_ops.hpp"
#include "ops/paged_attention.hpp"
#include "ovfast/error.hpp"
#include "ovfast/host.hpp"
#include "runtime/model_writer.hpp"
#include "runtime/pack_model.hpp"
#include "runtime/packed_store.hpp"

namespace ovfast {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

bool has_input(const ov::Model& model, const std::string& name) {
    const std::vector<ov::Output<const ov::Node>> inputs = model.inputs();
    return std::any_of(inputs.begin(), inputs.end(),
                       [&](const auto& input) { return input.get_names().count(name) != 0; });
}

// Reads the model as the options want it, and tells how it came.
LoadedModel read_decoder(ov::Core& core, const ModelFiles& files, const EngineOptions& options) {
    const std::filesystem::path& dir = files.path();
    LoadedModel loaded;
    if (options.packed == "auto") {
        loaded = load_packed(core, files, options.progress);
    } else if (is_packed(files)) {
        throw std::invalid_argument(
            "packed is 'never', but '" + dir.string() +
            "' holds a packed model; export it with --no-pack to run it on OpenVINO's operations");
    } else {
        loaded.model = read_ir(core, files, kModelXml);
    }
    if (!has_input(*loaded.model, "input_ids")) {
        throw ModelError((dir / "openvino_model.xml").string() +
                         " is no text-generation model: it has no input 'input_ids'");
    }
    // The default leaves what the model says.
    if (options.activation_precision != "int8") {
        const auto activations = ops::parse_activations(options.activation_precision).value();
        for (const auto& node : loaded.model->get_ops()) {
            if (auto* op = dynamic_cast<ops::PackedOp*>(node.get())) {
                op->set_activations(activations);
            }
        }
    }
    return loaded;
}

void page_attention(ov::Core& core, const std::shared_ptr<ov::Model>& model,
                    const ModelFiles& files) {
    const std::filesystem::path& dir = files.path();
    const std::vector<SlidingWindow> windows = find_sliding_windows(core, *model);
    try {
        ov::pass::SDPAToPagedAttention().run_on_model(model);
        set_sliding_windows(*model, windows);
    } catch (const std::exception& e) {
        throw ModelError("the attention of " + dir.string() +
                         " cannot be paged: " + reason_about(files, e));
    }
    for (const auto& node : model->get_ordered_ops()) {
        if (ov::is_type<ov::op::util::ReadValueBase>(node)) {
            throw ModelError("the model in " + dir.string() + " keeps the state '" +
                             node->get_friendly_name() +
                             "', which is no KV cache (recurrent layers are not supported)");
        }
    }
}

// What run() and the KV cache supply; any other input would be left unset.
void check_inputs(const ov::Model& model, const std::filesystem::path& dir) {
    constexpr std::array<const char*, 9> supplied{
        "input_ids",          "position_ids",  "past_lens",
        "subsequence_begins", "block_indices", "block_indices_begins",
        "max_context_len",    kLogitRows,      ops::kKvStoreInput};
    for (const auto& input : model.inputs()) {
        const auto& names = input.get_names();
        const bool known = std::any_of(names.begin(), names.end(), [&](const std::string& name) {
            return name.rfind("key_cache.", 0) == 0 || name.rfind("value_cache.", 0) == 0 ||
                   std::find(supplied.begin(), supplied.end(), name) != supplied.end();
        });
        if (!known) {
            throw ModelError(
                "the model in " + dir.string() + " has the input '" +
                (names.empty() ? input.get_node()->get_friendly_name() : *names.begin()) +
                "', which text generation does not supply (supported are input_ids, "
                "attention_mask, position_ids and beam_idx)");
        }
    }
}

ov::AnyMap compile_properties(ov::Core& core, const EngineOptions& options, int threads) {
    const auto supported = core.get_property(options.device, ov::supported_properties);
    ov::AnyMap properties{{ov::hint::performance_mode.name(), "LATENCY"},
                          {ov::inference_num_threads.name(), threads}};
    // Of what is not packed.
    if (options.activation_precision == "exact") {
        properties[ov::hint::dynamic_quantization_group_size.name()] = 0;
    } else if (options.activation_precision == "int8_g128") {
        properties[ov::hint::dynamic_quantization_group_size.name()] = 128;
    }
    for (const auto& [name, value] : options.properties) {
        const bool known = std::any_of(supported.begin(), supported.end(),
                                       [&](const auto& p) { return p == name && p.is_mutable(); });
        if (!known) {
            std::ostringstream message;
            message << "property '" << name << "' is not one that " << options.device
                    << " lets us set; those are:";
            for (const auto& p : supported) {
                if (p.is_mutable()) message << ' ' << p;
            }
            throw std::invalid_argument(message.str());
        }
        if (name == ov::inference_num_threads.name() && options.num_threads != 0) {
            throw std::invalid_argument("num_threads and the property " + name +
                                        " say the same thing: give one of them");
        }
        properties[name] = value;
    }
    return properties;
}

// OpenVINO writes the weights in clear into its cache, whatever callbacks encrypt the graph.
void refuse_caches(const EngineOptions& options) {
    for (const auto& [name, value] : options.properties) {
        if (name.rfind("CACHE_", 0) == 0 && name != ov::cache_mode.name()) {
            throw std::invalid_argument("the model is encrypted: property " + name +
                                        " is refused, since OpenVINO's cache holds the weights in "
                                        "clear");
        }
    }
}

// Unless the user chose a precision.
ov::AnyMap in_f32(ov::AnyMap properties) {
    if (properties.count(ov::hint::execution_mode.name()) == 0) {
        properties.emplace(ov::hint::inference_precision.name(), "f32");
    }
    return properties;
}

std::string gib(uint64_t bytes) {
    std::ostringstream text;
    text.precision(2);
    text << std::fixed << static_cast<double>(bytes) / (1ULL << 30) << " GiB";
    return text.str();
}

}  // namespace

PagedModel::PagedModel(const ModelFiles& files, const EngineOptions& options) {
    options.validate();
    if (files.encrypted()) refuse_caches(options);
    const std::filesystem::path& model_dir = files.path();
    const HostLimits host = read_host_limits();
    info_.device = options.device;
    if (options.num_threads > host.affinity) {
        throw std::invalid_argument("num_threads is " + std::to_string(options.num_threads) +
                                    ", but this process may use " + std::to_string(host.affinity) +
                                    " processors");
    }
    info_.threads = options.num_threads != 0 ? options.num_threads : host.threads;

    auto start = Clock::now();
    ov::Core core;
    const ov::AnyMap properties = compile_properties(core, options, info_.threads);
    const LoadedModel loaded = read_decoder(core, files, options);
    const std::shared_ptr<ov::Model>& model = loaded.model;
    info_.packed = loaded.report.packed;
    info_.packed_dir = loaded.report.directory;
    info_.notes = loaded.report.notes;
    info_.unpacked_layers =
        std::count_if(loaded.report.layers.begin(), loaded.report.layers.end(),
                      [](const PackedLayer& layer) { return layer.operation.empty(); });
    info_.weights_bytes = constant_bytes(*model);
    page_attention(core, model, files);
    choose_attention(model, options);
    const std::shared_ptr<ov::Model> lm_head = split_lm_head(model);
    check_inputs(*model, model_dir);
    info_.lm_head_rows = lm_head != nullptr;
    info_.vocab_size = (lm_head ? lm_head : model)->output(0).get_partial_shape()[1].get_length();
    has_positions_ = has_input(*model, "position_ids");
    has_max_context_ = has_input(*model, "max_context_len");
    has_top_k_ = lm_head && has_input(*lm_head, kTopK);
    info_.read_seconds = seconds_since(start);

    start = Clock::now();
    try {
        // Where all that costs is ours, bf16 only adds conversions to and from f32, which are what
        // our operations take; otherwise prompts are faster in what the plugin chooses.
        // "exact" speaks of all the model, too.
        const bool ours = info_.packed && info_.unpacked_layers == 0 && !attention_.empty();
        const bool f32 = ours || options.activation_precision == "exact";
        model_ = core.compile_model(model, options.device, f32 ? in_f32(properties) : properties);
        request_ = model_.create_infer_request();
        if (lm_head) {
            // It only ever has a few rows, where the plugin's f32 with activations quantized on the
            // fly is 1.2 to 1.4 times as fast as its bf16, and gives better logits.
            lm_head_ = core.compile_model(lm_head, options.device, in_f32(properties))
                           .create_infer_request();
        }
    } catch (const std::exception& e) {
        const std::string why = "cannot compile " + model_dir.string() + " for " + options.device +
                                ": " + reason_about(files, e);
        // The plugin knows which values a property takes, and only says so here.
        for (const auto& [name, value] : options.properties) {
            if (std::string(e.what()).find(name) != std::string::npos)
                throw std::invalid_argument(why);
        }
        throw ModelError(why);
    }
    info_.threads = model_.get_property(ov::inference_num_threads);
    profiled_ = model_.get_property(ov::enable_profiling);
    info_.compile_seconds = seconds_since(start);
    reserve_cache(options, info_.weights_bytes);
}

// Our own attention unless the user wants something that only OpenVINO's has.
void PagedModel::choose_attention(const std::shared_ptr<ov::Model>& model,
                                  const EngineOptions& options) {
    info_.attention = "openvino";
    if (options.attention == "openvino") {
        info_.attention_reason = "attention is 'openvino'";
        return;
    }
    std::string why;
    for (const auto& [name, value] : options.properties) {
        if (name.find("_CACHE_") != std::string::npos) why = name + " is set";
    }
    if (options.activation_precision == "exact") why = "activation_precision is 'exact'";
    if (options.device != "CPU") why = "the device is " + options.device;
    if (why.empty()) attention_ = ops::use_own_attention(model, why);
    if (attention_.empty()) {
        if (options.attention == "ovfast") {
            throw std::invalid_argument("attention is 'ovfast', but " + why);
        }
        info_.attention_reason = why;
        return;
    }
    info_.attention = "ovfast";
    // With one node for all layers there is nothing left to see in a profile.
    const auto profile = options.properties.find(ov::enable_profiling.name());
    if (profile == options.properties.end() || profile->second == "NO") {
        info_.fused_layers = static_cast<int64_t>(ops::fuse_decoder_stack(model));
    }
}

void PagedModel::reserve_cache(const EngineOptions& options, uint64_t weight_bytes) {
    const KvCache::Layout layout =
        attention_.empty() ? KvCache::layout(model_) : KvCache::layout(attention_);
    info_.kv_block_tokens = layout.block_tokens;
    info_.kv_bytes_per_token = layout.block_bytes / static_cast<uint64_t>(layout.block_tokens);

    uint64_t bound = 0;
    if (options.kv_cache_gb > 0.0) {
        bound = static_cast<uint64_t>(options.kv_cache_gb * static_cast<double>(1ULL << 30));
        const HostLimits host = read_host_limits();
        const uint64_t memory = host.memory_limit != 0
                                    ? std::min(host.memory_limit, host.memory_total)
                                    : host.memory_total;
        if (bound > memory) {
            throw CapacityError("kv_cache_gb asks for " + gib(bound) + ", but the " +
                                (host.memory_limit != 0 ? "cgroup" : "machine") + " has " +
                                gib(memory) + " of memory");
        }
        info_.kv_cache_reason = "kv_cache_gb asks for " + gib(bound);
    } else {
        // The plugin copies the weights into its own layout at the first inference, and the
        // activations of a step need room too; half of what then remains leaves the machine usable.
        const HostLimits host = read_host_limits();
        const uint64_t spoken_for = weight_bytes + (uint64_t{512} << 20);
        const uint64_t room =
            host.memory_available > spoken_for ? host.memory_available - spoken_for : 0;
        bound = room / 2;
        std::ostringstream text;
        text << "half of the memory that the weights leave free: " << gib(host.memory_available)
             << " available" << (host.memory_limit != 0 ? " under the cgroup limit" : "") << ", "
             << gib(spoken_for) << " for weights and activations";
        // In floating point: sys.maxsize is a fair way to say "no bound".
        const double per_sequence = std::ceil(static_cast<double>(options.max_context) /
                                              static_cast<double>(layout.block_tokens));
        const double wanted = per_sequence * static_cast<double>(options.max_sequences) *
                              static_cast<double>(layout.block_bytes);
        if (wanted != 0.0 && wanted < static_cast<double>(bound)) {
            bound = static_cast<uint64_t>(wanted);
            text.str("");
            text << "all that " << options.max_sequences << " sequences of " << options.max_context
                 << " tokens can use";
        }
        info_.kv_cache_reason = text.str();
    }

    const uint64_t blocks =
        std::min<uint64_t>(bound / layout.block_bytes, std::numeric_limits<int32_t>::max() / 2);
    if (blocks == 0) {
        throw CapacityError(
            "the KV cache has no room for one block of " + std::to_string(layout.block_tokens) +
            " tokens (" + std::to_string(layout.block_bytes) + " bytes): " + info_.kv_cache_reason +
            "; set kv_cache_gb or free memory");
    }
    info_.kv_blocks = static_cast<int64_t>(blocks);
    info_.kv_cache_bytes = blocks * layout.block_bytes;
    const int64_t capacity = info_.kv_blocks * layout.block_tokens;
    info_.max_context =
        options.max_context != 0 ? std::min(options.max_context, capacity) : capacity;
    const auto count = static_cast<int32_t>(blocks);
    cache_ = attention_.empty() ? std::make_unique<KvCache>(model_, request_, count)
                                : std::make_unique<KvCache>(attention_, request_, count);
}

template <typename T>
void PagedModel::bind(ov::InferRequest& request, const char* name, const std::vector<T>& values) {
    // The tensor only refers to the batch's memory: run() is done with it before the batch changes.
    request.set_tensor(
        name, ov::Tensor(ov::element::from<T>(), {values.size()}, const_cast<T*>(values.data())));
}

const float* PagedModel::run(const StepBatch& batch) {
    bind(request_, "input_ids", batch.token_ids);
    if (has_positions_) bind(request_, "position_ids", batch.positions);
    bind(request_, "past_lens", batch.past_lengths);
    bind(request_, "subsequence_begins", batch.begins);
    bind(request_, "block_indices", batch.blocks);
    bind(request_, "block_indices_begins", batch.block_begins);
    bind(request_, kLogitRows, batch.logit_rows);
    if (has_max_context_) {
        max_context_ = batch.max_context;
        request_.set_tensor("max_context_len", ov::Tensor(ov::element::i32, {}, &max_context_));
    }
    try {
        request_.infer();
        if (profiled_) note_times(request_, inferences_);
        if (!lm_head_) return request_.get_output_tensor(0).data<float>();
        if (batch.logit_rows.empty()) return nullptr;
        lm_head_.set_input_tensor(0, request_.get_output_tensor(0));
        if (has_top_k_) {
            bind(lm_head_, kTopK, batch.top_k);
            bind(lm_head_, kNotCounted, batch.not_counted);
        }
        lm_head_.infer();
        if (profiled_) note_times(lm_head_, lm_head_inferences_);
        return lm_head_.get_output_tensor(0).data<float>();
    } catch (const std::exception& e) {
        throw Error("the model failed in a step of " + std::to_string(batch.token_ids.size()) +
                    " tokens: " + short_reason(e));
    }
}

void PagedModel::note_times(const ov::InferRequest& request, int64_t& inferences) {
    ++inferences;
    const std::lock_guard lock(times_mutex_);
    for (const ov::ProfilingInfo& info : request.get_profiling_info()) {
        if (info.status != ov::ProfilingInfo::Status::EXECUTED) continue;
        NodeClock& clock = clocks_[info.node_name];
        clock.type = info.node_type;
        // The plugin gives the average over all inferences so far, not the time of the last one.
        const double average = std::chrono::duration<double>(info.real_time).count();
        clock.seconds = average * static_cast<double>(inferences);
        clock.steps = inferences;
    }
}

std::vector<NodeTime> PagedModel::take_node_times() {
    const std::lock_guard lock(times_mutex_);
    std::vector<NodeTime> taken;
    for (auto& [name, clock] : clocks_) {
        if (clock.steps == clock.taken_steps) continue;
        // Averages come in whole microseconds: a difference may be less than nothing.
        const double seconds = std::max(0.0, clock.seconds - clock.taken_seconds);
        taken.push_back({name, clock.type, seconds, clock.steps - clock.taken_steps});
        clock.taken_seconds = clock.seconds;
        clock.taken_steps = clock.steps;
    }
    return taken;
}

}  // namespace ovfast
