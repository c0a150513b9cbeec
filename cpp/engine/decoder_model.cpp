#include "engine/decoder_model.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <openvino/core/any.hpp>
#include <openvino/runtime/properties.hpp>
#include <sstream>
#include <stdexcept>

#include "engine/paged_model.hpp"
#include "engine/stateful_model.hpp"
#include "ovfast/error.hpp"
#include "ovfast/host.hpp"
#include "runtime/pack_model.hpp"
#include "runtime/read_ir.hpp"

namespace ovfast {
namespace {

std::string gib(uint64_t bytes) {
    std::ostringstream text;
    text.precision(2);
    text << std::fixed << static_cast<double>(bytes) / (1ULL << 30) << " GiB";
    return text.str();
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

}  // namespace

CacheMemory host_memory() {
    const HostLimits host = read_host_limits();
    if (host.memory_limit == 0) return {host.memory_available, host.memory_total, "machine", ""};
    return {host.memory_available, std::min(host.memory_limit, host.memory_total), "cgroup",
            " under the cgroup limit"};
}

std::unique_ptr<DecoderModel> load_decoder(const ModelFiles& files, const EngineOptions& options) {
    options.validate();
    if (files.encrypted()) refuse_caches(options);
    if (options.device == "CPU") return std::make_unique<PagedModel>(files, options);
    return std::make_unique<StatefulModel>(files, options);
}

bool has_input(const ov::Model& model, const std::string& name) {
    const std::vector<ov::Output<const ov::Node>> inputs = model.inputs();
    return std::any_of(inputs.begin(), inputs.end(),
                       [&](const auto& input) { return input.get_names().count(name) != 0; });
}

void check_decoder(const ov::Model& model, const std::filesystem::path& dir) {
    if (!has_input(model, "input_ids")) {
        throw ModelError((dir / "openvino_model.xml").string() +
                         " is no text-generation model: it has no input 'input_ids'");
    }
}

ov::AnyMap with_users_properties(ov::Core& core, const EngineOptions& options,
                                 const std::string& device, ov::AnyMap properties) {
    // Of what is made of several devices OpenVINO tells properties only without them.
    const auto supported =
        core.get_property(device.substr(0, device.find(':')), ov::supported_properties);
    for (const auto& [name, value] : options.properties) {
        const bool known = std::any_of(supported.begin(), supported.end(),
                                       [&](const auto& p) { return p == name && p.is_mutable(); });
        if (!known) {
            std::ostringstream message;
            message << "property '" << name << "' is not one that " << device
                    << " lets us set; those are:";
            for (const auto& p : supported) {
                if (p.is_mutable()) message << ' ' << p;
            }
            throw std::invalid_argument(message.str());
        }
        properties[name] = value;
    }
    return properties;
}

void throw_not_compiled(const ModelFiles& files, const EngineOptions& options,
                        const std::exception& error) {
    const std::string why = "cannot compile " + files.path().string() + " for " + options.device +
                            ": " + reason_about(files, error);
    // The plugin knows which values a property takes, and only says so here.
    for (const auto& [name, value] : options.properties) {
        if (std::string(error.what()).find(name) != std::string::npos)
            throw std::invalid_argument(why);
    }
    throw ModelError(why);
}

void bound_cache(EngineInfo& info, const EngineOptions& options, int64_t block_tokens,
                 uint64_t block_bytes, uint64_t weight_bytes, const CacheMemory& memory) {
    info.kv_block_tokens = block_tokens;
    info.kv_bytes_per_token = block_bytes / static_cast<uint64_t>(block_tokens);

    uint64_t bound = 0;
    if (options.kv_cache_gb > 0.0) {
        bound = static_cast<uint64_t>(options.kv_cache_gb * static_cast<double>(1ULL << 30));
        if (bound > memory.total) {
            throw CapacityError("kv_cache_gb asks for " + gib(bound) + ", but the " + memory.owner +
                                " has " + gib(memory.total) + " of memory");
        }
        info.kv_cache_reason = "kv_cache_gb asks for " + gib(bound);
    } else {
        // The plugin copies the weights into its own layout at the first inference, and the
        // activations of a step need room too; half of what then remains leaves the machine usable.
        const uint64_t spoken_for = weight_bytes + (uint64_t{512} << 20);
        const uint64_t room = memory.available > spoken_for ? memory.available - spoken_for : 0;
        bound = room / 2;
        std::ostringstream text;
        text << "half of the memory that the weights leave free: " << gib(memory.available)
             << " available" << memory.where << ", " << gib(spoken_for)
             << " for weights and activations";
        // In floating point: sys.maxsize is a fair way to say "no bound".
        const double per_sequence =
            std::ceil(static_cast<double>(options.max_context) / static_cast<double>(block_tokens));
        const double wanted = per_sequence * static_cast<double>(options.max_sequences) *
                              static_cast<double>(block_bytes);
        if (wanted != 0.0 && wanted < static_cast<double>(bound)) {
            bound = static_cast<uint64_t>(wanted);
            text.str("");
            text << "all that " << options.max_sequences << " sequences of " << options.max_context
                 << " tokens can use";
        }
        info.kv_cache_reason = text.str();
    }

    const uint64_t blocks =
        std::min<uint64_t>(bound / block_bytes, std::numeric_limits<int32_t>::max() / 2);
    if (blocks == 0) {
        throw CapacityError("the KV cache has no room for one block of " +
                            std::to_string(block_tokens) + " tokens (" +
                            std::to_string(block_bytes) + " bytes): " + info.kv_cache_reason +
                            "; set kv_cache_gb or free memory");
    }
    info.kv_blocks = static_cast<int64_t>(blocks);
    info.kv_cache_bytes = blocks * block_bytes;
    const int64_t capacity = info.kv_blocks * block_tokens;
    info.max_context =
        options.max_context != 0 ? std::min(options.max_context, capacity) : capacity;
}

}  // namespace ovfast
