#pragma once

#include <map>
#include <openvino/openvino.hpp>
#include <string>
#include <vector>

#include "apps/bench/options.hpp"

namespace ovfast::bench {

/// Properties by device: what -load_config reads and -dump_config writes.
using Config = std::map<std::string, ov::AnyMap>;

Config load_config(const std::string& file);
void dump_config(const std::string& file, const Config& config);

/// "MULTI:CPU,GPU" -> {"MULTI", "CPU", "GPU"}.
std::vector<std::string> parse_devices(const std::string& devices);

/// "CPU:2,GPU:4", or "2" for all, -> value by device. Throws std::runtime_error for a device that
/// is not among `devices`.
std::map<std::string, std::string> parse_value_per_device(const std::vector<std::string>& devices,
                                                          const std::string& values);

/// What step 3 makes of options and loaded configuration.
struct DeviceSetup {
    Config config;
    ov::AnyMap properties;                       // for compile_model
    std::map<std::string, std::string> streams;  // by device, where they were set
    bool counters = false;                       // the device collects the time of each layer
};

/// Decides the properties of each device, with benchmark_app's warnings. Throws std::runtime_error.
DeviceSetup configure_devices(ov::Core& core, const Options& options);

}  // namespace ovfast::bench
