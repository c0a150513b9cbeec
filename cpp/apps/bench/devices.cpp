#include "apps/bench/devices.hpp"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <openvino/runtime/core.hpp>
#include <openvino/runtime/properties.hpp>
#include <sstream>

#include "apps/bench/machine.hpp"
#include "apps/bench/text_table.hpp"
#include "kernels/cpu_features.hpp"
#include "ovfast/host.hpp"
#include "ovfast/ops.hpp"
#include "ovfast/version.hpp"

namespace ovfast::bench {
namespace {

using nlohmann::ordered_json;

// As hello_query_device does: a property that cannot be printed or read says so.
std::string value_of(ov::Core& core, const std::string& device, const std::string& name) {
    try {
        const ov::Any value = core.get_property(device, name);
        if (value.empty()) return "EMPTY VALUE";
        std::ostringstream text;
        value.print(text);
        return text.str();
    } catch (const std::exception&) {
        return "UNSUPPORTED TYPE";
    }
}

ordered_json query_devices() {
    ov::Core core;
    ordered_json devices = ordered_json::array();
    for (const std::string& device : core.get_available_devices()) {
        ordered_json properties = ordered_json::array();
        for (const auto& property : core.get_property(device, ov::supported_properties)) {
            if (property == ov::supported_properties.name()) continue;
            properties.push_back({{"name", std::string(property)},
                                  {"mutable", property.is_mutable()},
                                  {"value", value_of(core, device, property)}});
        }
        devices.push_back({{"device", device}, {"properties", properties}});
    }
    return devices;
}

// The best one that may be chosen: kernels take it where there is one of their kind.
std::string selected_isa() {
    std::string best;
    for (const kernels::Isa isa : kernels::supported_isas()) {
        if (kernels::allowed(isa)) best = kernels::name(isa);
    }
    return best;
}

ordered_json query_host() {
    const HostLimits host = read_host_limits();
    ordered_json caches = ordered_json::array();
    for (const CacheLevel& cache : read_caches()) {
        caches.push_back({{"level", cache.level},
                          {"type", cache.type},
                          {"bytes", cache.bytes},
                          {"shared_by", cache.shared_by}});
    }
    const auto forced = kernels::forced_isa();
    return {{"cpu", host.cpu_name},
            {"processors", host.processors},
            {"affinity", host.affinity},
            {"cpu_quota", host.cpu_quota > 0.0 ? ordered_json(host.cpu_quota) : ordered_json()},
            {"threads", host.threads},
            {"memory_bytes", host.memory_total},
            {"memory_available_bytes", host.memory_available},
            {"memory_limit_bytes",
             host.memory_limit > 0 ? ordered_json(host.memory_limit) : ordered_json()},
            {"isa", host.isa},
            {"kernels", supported_isas()},
            {"kernels_forced", forced ? ordered_json(kernels::name(*forced)) : ordered_json()},
            {"kernels_selected", selected_isa()},
            {"caches", caches}};
}

std::string join(const ordered_json& names) {
    std::string text;
    for (const auto& name : names) text += (text.empty() ? "" : " ") + name.get<std::string>();
    return text;
}

std::string mebibytes(const ordered_json& bytes) {
    if (bytes.is_null()) return "none";
    return significant(bytes.get<double>() / (1 << 20), 4) + " MiB";
}

std::string as_text(const ordered_json& report) {
    std::ostringstream text;
    text << "ovfast " << report["ovfast"].get<std::string>() << ", OpenVINO "
         << report["openvino"].get<std::string>() << "\n\nHost\n";
    const ordered_json& host = report["host"];
    std::vector<std::vector<std::string>> rows{
        {"  processor", host["cpu"]},
        {"  processors", std::to_string(host["processors"].get<int>()) + ", affinity allows " +
                             std::to_string(host["affinity"].get<int>())},
        {"  cgroup CPU quota",
         host["cpu_quota"].is_null() ? "none" : significant(host["cpu_quota"].get<double>())},
        {"  threads to compute with", std::to_string(host["threads"].get<int>())},
        {"  memory", mebibytes(host["memory_bytes"]) + ", available " +
                         mebibytes(host["memory_available_bytes"])},
        {"  cgroup memory limit", mebibytes(host["memory_limit_bytes"])},
        {"  instruction sets", join(host["isa"])},
        {"  kernels of ovfast",
         join(host["kernels"]) + "; selected: " + host["kernels_selected"].get<std::string>() +
             (host["kernels_forced"].is_null() ? "" : " (OVFAST_FORCE_ISA)")}};
    for (const ordered_json& cache : host["caches"]) {
        rows.push_back({"  cache L" + std::to_string(cache["level"].get<int>()) + " " +
                            cache["type"].get<std::string>(),
                        std::to_string(cache["bytes"].get<uint64_t>() / 1024) + " KiB, shared by " +
                            std::to_string(cache["shared_by"].get<int>())});
    }
    text << format_table(rows, 2) << "\nAvailable devices\n";
    for (const ordered_json& device : report["devices"]) {
        text << device["device"].get<std::string>() << "\n  SUPPORTED_PROPERTIES:\n";
        for (const ordered_json& property : device["properties"]) {
            text << "    " << (property["mutable"].get<bool>() ? "Mutable: " : "Immutable: ")
                 << property["name"].get<std::string>() << " : "
                 << property["value"].get<std::string>() << '\n';
        }
    }
    return text.str();
}

}  // namespace

int devices_main(int argc, char** argv) {
    CLI::App app{"Shows the devices of OpenVINO and what this process may use of the machine.",
                 "ovfast-bench devices"};
    bool as_json = false;
    app.add_flag("--json", as_json, "Print one JSON object");
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp& e) {
        return app.exit(e);
    } catch (const CLI::ParseError& e) {
        std::fprintf(stderr, "ovfast-bench devices: error: %s\n", e.what());
        return 2;
    }
    try {
        const ordered_json report{{"ovfast", version()},
                                  {"openvino", openvino_loaded_version()},
                                  {"host", query_host()},
                                  {"devices", query_devices()}};
        std::fputs(as_json ? (report.dump(2) + "\n").c_str() : as_text(report).c_str(), stdout);
        return 0;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "ovfast-bench devices: error: %s\n", e.what());
        return 1;
    }
}

}  // namespace ovfast::bench
