#include "apps/bench/device_config.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "apps/bench/console.hpp"
#include "apps/bench/files.hpp"
#include "apps/bench/output_file.hpp"
#include "apps/bench/text.hpp"

namespace ovfast::bench {
namespace {

using Values = std::map<std::string, std::string>;

bool is_virtual(const std::string& device) {
    return device == "MULTI" || device == "HETERO" || device == "AUTO";
}

/// "GPU.1(x)" -> "GPU".
std::string device_type(const std::string& device) {
    return device.substr(0, device.find_first_of(".("));
}

/// The values of the devices behind AUTO, MULTI or HETERO become one value of that device,
/// "{CPU:2,GPU:4}"; a value that was given to the virtual device itself comes first for AUTO and
/// HETERO.
void gather_for_virtual(const std::string& device, Values& values) {
    const auto own = values.find(device);
    if (own != values.end() && values.size() > 1) {
        if (device == "MULTI") {
            values.erase(own);
        } else {
            values = {{device, own->second}};
        }
    }
    if (values.empty() || (values.size() == 1 && values.count(device))) return;
    std::vector<std::string> parts;
    for (const auto& [name, value] : values) parts.push_back(name + ":" + value);
    values = {{device, "{" + join(parts, ",") + "}"}};
}

/// Sets properties of one device after the other.
class Configurator {
public:
    Configurator(ov::Core& core, const Options& options) : core_(core), options_(options) {}

    DeviceSetup run();

private:
    void configure(const std::string& device);
    void set_hint(const std::string& device);
    void set_counters(const std::string& device);
    void set_streams(const std::string& device);
    void set_precision(const std::string& device);
    void set_cpu_property(const std::string& device, const std::string& key, const ov::Any& value);
    void set_of_hardware(const std::string& device, const std::string& hardware,
                         const std::string& key, const ov::Any& value);
    void set_of_virtual(const std::string& device, const std::string& value,
                        const std::string& key);

    bool supports(const std::string& key) const {
        return std::find(supported_.begin(), supported_.end(), key) != supported_.end();
    }

    ov::Core& core_;
    const Options& options_;
    DeviceSetup setup_;
    std::vector<std::string> hardware_;
    bool behind_virtual_ = false;
    Values streams_;
    Values precisions_;
    std::vector<ov::PropertyName> supported_;  // of the device being configured
};

void Configurator::set_hint(const std::string& device) {
    const std::string key = ov::hint::performance_mode.name();
    if (!supports(key)) {
        log_warning("Device " + device + " does not support performance hint property(-hint).");
        return;
    }
    ov::AnyMap& properties = setup_.config[device];
    using Mode = ov::hint::PerformanceMode;
    const std::string& hint = options_.hint;
    if (hint == "throughput" || hint == "tput") {
        properties[key] = Mode::THROUGHPUT;
    } else if (hint == "latency") {
        properties[key] = Mode::LATENCY;
    } else if (hint == "cumulative_throughput" || hint == "ctput") {
        properties[key] = Mode::CUMULATIVE_THROUGHPUT;
    } else if (hint == "none") {
        // Also not what a loaded configuration says.
        properties.erase(key);
    } else if (!properties.count(key)) {
        const Mode mode = options_.api == "sync" ? Mode::LATENCY : Mode::THROUGHPUT;
        properties[key] = mode;
        log_warning(
            "Performance hint was not explicitly specified in command line or config file. "
            "Device(" +
            device + ") performance hint will be set to " + ov::Any(mode).as<std::string>() + ".");
    }
}

void Configurator::set_counters(const std::string& device) {
    ov::AnyMap& properties = setup_.config[device];
    const std::string key = ov::enable_profiling.name();
    const auto loaded = properties.find(key);
    const auto switch_on = [&](const std::string& reason) {
        log_warning("Turn on performance counters for " + device + " device " + reason + ".");
        properties[key] = true;
    };
    const std::string& type = options_.report_type;
    if (options_.counters) {
        properties[key] = *options_.counters;
    } else if (loaded != properties.end() && loaded->second.as<bool>()) {
        log_warning("Performance counters for " + device +
                    " device is turned on. To print results use -pc option.");
    } else if (!type.empty() && type != "no_counters") {
        switch_on("since report type is " + type);
    } else if (!options_.exec_graph_path.empty()) {
        switch_on("due to execution graph dumping");
    } else if (!options_.sort_counters.empty()) {
        switch_on("since pcsort value is " + options_.sort_counters);
    } else {
        properties[key] = false;
    }
    setup_.counters = setup_.counters || properties[key].as<bool>();
}

void Configurator::set_of_hardware(const std::string& device, const std::string& hardware,
                                   const std::string& key, const ov::Any& value) {
    ov::Any& all = setup_.config[device][ov::device::properties.name()];
    ov::AnyMap map = all.empty() ? ov::AnyMap{} : all.as<ov::AnyMap>();
    ov::AnyMap of_hardware = map.count(hardware) ? map[hardware].as<ov::AnyMap>() : ov::AnyMap{};
    of_hardware[key] = value;
    map[hardware] = of_hardware;
    all = map;
}

void Configurator::set_of_virtual(const std::string& device, const std::string& value,
                                  const std::string& key) {
    if (!contains(value, ":")) {
        setup_.config[device][key] = value;
        return;
    }
    for (const std::string& pair : split(value.substr(1, value.size() - 2), ',')) {
        const std::vector<std::string> parts = split(pair, ':');
        set_of_hardware(device, parts.at(0), key, parts.at(1));
    }
}

void Configurator::set_precision(const std::string& device) {
    const auto given = precisions_.find(device);
    if (given == precisions_.end()) return;
    const std::string key = ov::hint::inference_precision.name();
    if (supports(key)) {
        setup_.config[device][key] = given->second;
    } else if (is_virtual(device)) {
        set_of_virtual(device, given->second, key);
    } else {
        throw std::runtime_error(
            "Device " + device + " doesn't support config key INFERENCE_PRECISION_HINT! " +
            "Please specify -infer_precision for correct devices in format " +
            "<dev1>:<infer_precision1>,<dev2>:<infer_precision2> or via configuration file.");
    }
}

void Configurator::set_streams(const std::string& device) {
    const std::string key = ov::num_streams.name();
    const auto given = streams_.find(device);
    ov::AnyMap& properties = setup_.config[device];
    if (given != streams_.end()) {
        if (supports(key)) {
            properties[key] = given->second;
        } else if (is_virtual(device)) {
            set_of_virtual(device, given->second, key);
        } else {
            throw std::runtime_error("Device " + device + " doesn't support config key '" + key +
                                     "'! Please specify -nstreams for correct devices in format  "
                                     "<dev1>:<nstreams1>,<dev2>:<nstreams2>");
        }
    }
    if (properties.count(key) && !is_virtual(device)) {
        setup_.streams[device] = properties[key].as<std::string>();
    }
}

void Configurator::set_cpu_property(const std::string& device, const std::string& key,
                                    const ov::Any& value) {
    if (supports(key) || options_.device == "AUTO") {
        setup_.config[device][key] = value;
    } else if (behind_virtual_ &&
               std::find(hardware_.begin(), hardware_.end(), "CPU") != hardware_.end()) {
        set_of_hardware(device, "CPU", key, value);
    } else {
        log_warning("Device " + device + " does not support " + key + ": it is left out");
    }
}

void Configurator::configure(const std::string& device) {
    supported_ = core_.get_property(device, ov::supported_properties);
    setup_.config[device];
    set_hint(device);
    if (options_.requests > 0) {
        setup_.config[device][ov::hint::num_requests.name()] = std::to_string(options_.requests);
    }
    set_counters(device);
    if (options_.threads.value_or(0) > 0) {
        set_cpu_property(device, ov::inference_num_threads.name(),
                         std::to_string(*options_.threads));
    }
    if (!options_.pin.empty()) {
        set_cpu_property(device, ov::hint::enable_cpu_pinning.name(), options_.pin);
    }
    set_streams(device);
    set_precision(device);
}

DeviceSetup Configurator::run() {
    std::vector<std::string> devices = parse_devices(options_.device);
    streams_ = parse_value_per_device(devices, options_.streams);
    precisions_ = parse_value_per_device(devices, options_.infer_precision);
    if (!options_.load_config.empty()) setup_.config = load_config(options_.load_config);

    // What was loaded for "GPU" is meant for "GPU.1" too.
    Config& config = setup_.config;
    std::vector<std::string> used;
    for (const std::string& device : devices) {
        const auto of_type = config.find(device_type(device));
        if (of_type != config.end() && !config.count(device)) {
            config[device] = of_type->second;
            used.push_back(of_type->first);
        }
    }
    for (const std::string& type : used) config.erase(type);

    hardware_ = devices;
    if (std::any_of(devices.begin(), devices.end(), is_virtual)) {
        behind_virtual_ = true;
        const std::string device = devices[0];
        hardware_.erase(hardware_.begin());
        devices = {device};
        gather_for_virtual(device, streams_);
        gather_for_virtual(device, precisions_);
    }
    for (const std::string& device : devices) configure(device);

    for (const auto& [device, properties] : config) {
        if (options_.device.rfind(device, 0) == 0) setup_.properties = properties;
    }
    const auto exact = config.find(options_.device);
    if (exact != config.end()) setup_.properties = exact->second;
    return setup_;
}

}  // namespace

Config load_config(const std::string& file) {
    Config config;
    const std::string expected = file + ": expected {\"DEVICE\": {\"PROPERTY\": \"value\"}}";
    try {
        const nlohmann::json json = nlohmann::json::parse(read_file(file));
        for (const auto& [device, properties] : json.items()) {
            if (!properties.is_object()) {
                throw std::runtime_error(expected + ", got " + properties.dump() + " for " +
                                         device);
            }
            ov::AnyMap& values = config[device];
            for (const auto& [key, value] : properties.items()) {
                values[key] = value.is_string() ? value.get<std::string>() : value.dump();
            }
        }
        if (!json.is_object()) throw std::runtime_error(expected + ", got " + json.dump());
    } catch (const nlohmann::json::exception& error) {
        throw std::runtime_error(expected + ", got something else: " + error.what());
    }
    return config;
}

void dump_config(const std::string& file, const Config& config) {
    nlohmann::ordered_json json = nlohmann::ordered_json::object();
    for (const auto& [device, properties] : config) {
        nlohmann::ordered_json& values = json[device] = nlohmann::ordered_json::object();
        for (const auto& [key, value] : properties) values[key] = value.as<std::string>();
    }
    OutputFile(file).write(json.dump(4) + "\n");
}

std::vector<std::string> parse_devices(const std::string& devices) {
    const size_t colon = devices.find(':');
    std::vector<std::string> result = {devices.substr(0, colon)};
    if (colon == std::string::npos) return result;
    for (const std::string& device : split(devices.substr(colon + 1), ',')) {
        // AUTO's "-GPU": any device but that one.
        result.push_back(device.rfind('-', 0) == 0 ? device.substr(1) : device);
    }
    return result;
}

Values parse_value_per_device(const std::vector<std::string>& devices, const std::string& values) {
    Values result;
    if (values.empty()) return result;
    for (const std::string& text : split(values, ',')) {
        const std::vector<std::string> parts = split(text, ':');
        if (parts.size() == 1) {
            for (const std::string& device : devices) result[device] = parts[0];
        } else if (parts.size() == 2) {
            if (std::find(devices.begin(), devices.end(), parts[0]) == devices.end()) {
                throw std::runtime_error("Failed to set property to '" + parts[0] +
                                         "' which is not found in the target devices list '" +
                                         join(devices, " ") + "'!");
            }
            result[parts[0]] = parts[1];
        } else {
            throw std::runtime_error("Unknown string format: " + values);
        }
    }
    return result;
}

DeviceSetup configure_devices(ov::Core& core, const Options& options) {
    return Configurator(core, options).run();
}

}  // namespace ovfast::bench
