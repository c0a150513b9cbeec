#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

#include "ops/packed_ops.hpp"
#include "ovfast/engine.hpp"

namespace ovfast {
namespace {

constexpr int64_t kLargestTile = 1 << 20;

template <typename T>
[[noreturn]] void refuse(const char* option, T value, const char* allowed) {
    throw std::invalid_argument(std::string(option) + " is " + std::to_string(value) +
                                ", expected " + allowed);
}

/// `name` alone, or `name`, a separator and something after it.
bool is_device(const std::string& device, const std::string& name, char separator) {
    if (device == name) return true;
    return device.size() > name.size() + 1 && device.compare(0, name.size(), name) == 0 &&
           device[name.size()] == separator;
}

}  // namespace

void EngineOptions::validate() const {
    const bool known = device == "CPU" || is_device(device, "GPU", '.') ||
                       is_device(device, "AUTO", ':') ||
                       (device != "HETERO" && is_device(device, "HETERO", ':')) ||
                       (device != "MULTI" && is_device(device, "MULTI", ':'));
    if (!known) {
        throw std::invalid_argument(
            "device is '" + device +
            "', expected 'CPU', 'GPU', 'GPU.<number>', 'AUTO', or 'AUTO:', 'HETERO:' or 'MULTI:' "
            "with devices after it");
    }
    if (gpu_operations != "openvino" && gpu_operations != "ovfast") {
        throw std::invalid_argument("gpu_operations is '" + gpu_operations +
                                    "', expected 'openvino' or 'ovfast'");
    }
    if (device == "CPU") {
        if (gpu_operations != "openvino") {
            throw std::invalid_argument("gpu_operations is '" + gpu_operations +
                                        "', but the device is CPU");
        }
    } else {
        if (attention == "ovfast") {
            throw std::invalid_argument("attention is 'ovfast', but the device is " + device);
        }
        if (num_threads != 0) {
            throw std::invalid_argument("num_threads is " + std::to_string(num_threads) +
                                        ", but the device is " + device +
                                        "; set a property of OpenVINO instead");
        }
    }
    if (!(kv_cache_gb >= 0.0 && kv_cache_gb <= 1 << 20)) {
        refuse("kv_cache_gb", kv_cache_gb, "a positive size in GiB, or 0 to derive it");
    }
    if (max_batch_tokens < 1) refuse("max_batch_tokens", max_batch_tokens, "at least 1");
    if (max_sequences < 1) refuse("max_sequences", max_sequences, "at least 1");
    if (num_threads < 0) refuse("num_threads", num_threads, "at least 1, or 0 to derive it");
    if (max_context < 0) refuse("max_context", max_context, "at least 1, or 0 for no bound");
    if (packed != "auto" && packed != "never") {
        throw std::invalid_argument("packed is '" + packed + "', expected 'auto' or 'never'");
    }
    if (!ops::parse_activations(activation_precision)) {
        throw std::invalid_argument("activation_precision is '" + activation_precision +
                                    "', expected 'int8', 'int8_g128' or 'exact'");
    }
    for (const auto& [name, tile] :
         {std::pair{"tile_kb", tile_kb}, std::pair{"tile_columns", tile_columns}}) {
        if (tile < 0 || tile > kLargestTile)
            refuse(name, tile, "1 to 1048576, or 0 for the default");
        if (tile > 0 && packed == "never") {
            throw std::invalid_argument(std::string(name) + " is " + std::to_string(tile) +
                                        ", but packed is 'never': OpenVINO's own operations have "
                                        "no such tiles");
        }
    }
    if (attention != "auto" && attention != "ovfast" && attention != "openvino") {
        throw std::invalid_argument("attention is '" + attention +
                                    "', expected 'auto', 'ovfast' or 'openvino'");
    }
    for (const int64_t id : eos_token_ids) {
        if (id < 0) refuse("eos_token_ids", id, "token ids, which are not negative");
    }
}

const char* to_string(FinishReason reason) {
    switch (reason) {
        case FinishReason::kRunning:
            return "running";
        case FinishReason::kStop:
            return "stop";
        case FinishReason::kLength:
            return "length";
        case FinishReason::kCancelled:
            return "cancelled";
        case FinishReason::kError:
            return "error";
    }
    return "unknown";
}

}  // namespace ovfast
