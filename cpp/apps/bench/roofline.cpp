#include "apps/bench/roofline.hpp"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <openvino/runtime/core.hpp>
#include <regex>
#include <sstream>

#include "apps/bench/text_table.hpp"
#include "ovfast/error.hpp"
#include "ovfast/ops.hpp"

namespace ovfast::bench {
namespace {

using nlohmann::ordered_json;

double seconds_for(double amount, double rate) {
    return rate > 0.0 ? amount / rate : 0.0;
}

// "model.layers.3.mlp" -> "model.layers.*.mlp", "MatMul_12_blk.3.ffn" -> "MatMul_*_blk.*.ffn".
std::string kind_of(const std::string& name) {
    static const std::regex number("([._/]|^)(\\d+)(?=[._/]|$)");
    return std::regex_replace(name, number, "$1*");
}

}  // namespace

Limit limit_of(const Work& work, const MachineLimits& machine) {
    return {seconds_for(work.bytes, machine.rates.read),
            seconds_for(work.int8_operations, machine.rates.int8) +
                seconds_for(work.f32_operations, machine.rates.f32)};
}

double share(const RooflineRow& row, const MachineLimits& machine) {
    return row.seconds > 0.0 ? limit_of(row.work, machine).seconds() / row.seconds : 0.0;
}

std::vector<RooflineRow> join_layers(
    const GraphCosts& costs, const std::function<std::optional<Work>(const NodeCost&)>& work,
    const std::map<std::string, double>& times) {
    std::vector<RooflineRow> rows;
    std::map<std::string, double> left = times;
    for (const NodeCost& node : costs.nodes) {
        const auto time = left.find(node.name);
        if (time == left.end()) continue;  // it became part of another one
        const std::optional<Work> done = work(node);
        if (!done) continue;
        rows.push_back({node.name, node.type, 1, *done, time->second});
        left.erase(time);
    }
    RooflineRow other{"other operations", "", 0, {}, 0.0};
    for (const auto& [name, seconds] : left) {
        ++other.count;
        other.seconds += seconds;
    }
    std::stable_sort(rows.begin(), rows.end(),
                     [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
    if (other.count > 0) rows.push_back(other);
    return rows;
}

std::vector<RooflineRow> by_kind(const std::vector<RooflineRow>& rows) {
    std::vector<RooflineRow> kinds;
    for (const RooflineRow& row : rows) {
        const std::string name = kind_of(row.name);
        const auto found = std::find_if(kinds.begin(), kinds.end(), [&](const RooflineRow& kind) {
            return kind.name == name && kind.type == row.type;
        });
        if (found == kinds.end()) {
            kinds.push_back(row);
            kinds.back().name = name;
        } else {
            found->count += row.count;
            found->work += row.work;
            found->seconds += row.seconds;
        }
    }
    std::stable_sort(kinds.begin(), kinds.end(),
                     [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
    return kinds;
}

std::string describe(const MachineLimits& machine) {
    std::ostringstream text;
    text << "memory reads at " << significant(machine.rates.read / 1e9) << " GB/s";
    if (machine.rates.int8 > 0.0) {
        text << ", int8 peak " << significant(machine.rates.int8 / 1e9) << " GOPS ("
             << machine.int8_instruction << ")";
    }
    if (machine.rates.f32 > 0.0) {
        text << ", f32 peak " << significant(machine.rates.f32 / 1e9) << " GFLOPS ("
             << machine.f32_instruction << ")";
    }
    text << ", " << machine.threads << (machine.threads == 1 ? " thread" : " threads");
    if (machine.probes > 1) {
        text << "; spread over " << machine.probes << " probes: " << percent(machine.read_spread)
             << ", " << percent(machine.int8_spread) << ", " << percent(machine.f32_spread);
    }
    return text.str();
}

std::string table(const std::vector<RooflineRow>& rows, const MachineLimits& machine) {
    const bool measured =
        std::any_of(rows.begin(), rows.end(), [](const auto& row) { return row.seconds > 0.0; });
    std::vector<std::vector<std::string>> cells{
        {"operation", "type", "count", "MB", "GOP", "limit ms", "bound by"}};
    if (measured) {
        cells[0].insert(cells[0].end(), {"measured ms", "GB/s", "GOPS", "of the limit"});
    }
    for (const RooflineRow& row : rows) {
        const Limit limit = limit_of(row.work, machine);
        const double operations = row.work.int8_operations + row.work.f32_operations;
        const bool counted = row.work.bytes > 0.0 || operations > 0.0;
        cells.push_back({row.name, row.type, std::to_string(row.count)});
        auto& line = cells.back();
        if (counted) {
            line.insert(line.end(),
                        {significant(row.work.bytes / 1e6), significant(operations / 1e9),
                         significant(limit.seconds() * 1e3), limit.bound()});
        } else {
            line.insert(line.end(), {"", "", "", ""});
        }
        if (row.seconds <= 0.0) continue;
        line.push_back(significant(row.seconds * 1e3));
        if (!counted) continue;
        line.insert(line.end(),
                    {significant(row.work.bytes / row.seconds / 1e9),
                     significant(operations / row.seconds / 1e9), percent(share(row, machine))});
    }
    return format_table(cells, 2);
}

ordered_json to_json(const MachineLimits& machine) {
    return {{"threads", machine.threads},
            {"read_bytes_per_second", machine.rates.read},
            {"int8_operations_per_second", machine.rates.int8},
            {"int8_instruction", machine.int8_instruction},
            {"f32_operations_per_second", machine.rates.f32},
            {"f32_instruction", machine.f32_instruction},
            {"probes", machine.probes},
            {"read_spread", machine.read_spread},
            {"int8_spread", machine.int8_spread},
            {"f32_spread", machine.f32_spread}};
}

ordered_json to_json(const RooflineRow& row, const MachineLimits& machine) {
    const Limit limit = limit_of(row.work, machine);
    ordered_json object{{"name", row.name},
                        {"type", row.type},
                        {"count", row.count},
                        {"bytes", row.work.bytes},
                        {"int8_operations", row.work.int8_operations},
                        {"f32_operations", row.work.f32_operations},
                        {"memory_limit_ms", limit.memory_seconds * 1e3},
                        {"compute_limit_ms", limit.compute_seconds * 1e3},
                        {"limit_ms", limit.seconds() * 1e3},
                        {"bound_by", limit.bound()}};
    if (row.seconds > 0.0) {
        object["measured_ms"] = row.seconds * 1e3;
        object["share_of_limit"] = share(row, machine);
    }
    return object;
}

ordered_json to_json(const GraphCosts& costs) {
    return {{"weight_bytes", costs.weight_bytes()},
            {"weight_bytes_by_type", costs.weights},
            {"operations_not_counted", costs.not_counted}};
}

std::string describe(const GraphCosts& costs) {
    std::ostringstream text;
    text << significant(static_cast<double>(costs.weight_bytes()) / 1e6) << " MB of weights";
    const char* separator = ": ";
    for (const auto& [type, bytes] : costs.weights) {
        text << separator << type << ' ' << significant(static_cast<double>(bytes) / 1e6) << " MB";
        separator = ", ";
    }
    if (!costs.not_counted.empty()) {
        text << "; not counted:";
        for (const auto& [type, count] : costs.not_counted) text << ' ' << count << ' ' << type;
    }
    return text.str();
}

std::string cache_note(double bytes) {
    uint64_t largest = 0;
    for (const CacheLevel& cache : read_caches()) largest = std::max(largest, cache.bytes);
    if (bytes <= 0.0 || bytes > static_cast<double>(largest)) return "";
    return "what is read (" + significant(bytes / 1e6) + " MB) fits into the last cache (" +
           significant(static_cast<double>(largest) / 1e6) +
           " MB): the rate of memory need not be a limit, and more than 100 % of it can be reached";
}

std::shared_ptr<ov::Model> read_for_counting(const std::string& model,
                                             const std::optional<crypto::Key>& key) {
    namespace fs = std::filesystem;
    fs::path path = model;
    if (!fs::exists(path)) throw ModelError("'" + model + "' does not exist");
    if (fs::is_directory(path) && fs::exists(path / "openvino_model.xml")) {
        path /= "openvino_model.xml";
    }
    ov::Core core;
    if (key) return crypto::open_model(core, path, *key);
    register_ops(core);
    try {
        return core.read_model(path.string());
    } catch (const std::exception& e) {
        throw ModelError("cannot read '" + path.string() + "': " + e.what());
    }
}

std::string inference_roofline(const std::shared_ptr<const ov::Model>& model, double seconds,
                               const std::vector<ov::ProfilingInfo>& layers,
                               const MachineLimits& machine, int streams) {
    const GraphCosts costs = count_graph(model);
    bool incomplete = false;
    const Work work = inference_work(costs, incomplete);
    std::string text =
        "Roofline: " + describe(machine) + "\n" + describe(costs) + "\n" +
        table({{"inference", "", static_cast<int>(costs.nodes.size()), work, seconds}}, machine);
    if (incomplete) text += "Some operations are not counted: the limit is too low.\n";
    if (const std::string note = cache_note(work.bytes); !note.empty()) {
        text += "Note: " + note + ".\n";
    }
    if (layers.empty()) return text;
    std::map<std::string, double> times;
    for (const ov::ProfilingInfo& layer : layers) {
        if (layer.status != ov::ProfilingInfo::Status::EXECUTED) continue;
        times[layer.node_name] += std::chrono::duration<double>(layer.real_time).count();
    }
    const auto rows =
        join_layers(costs, [](const NodeCost& node) { return inference_work(node); }, times);
    MachineLimits part = machine;
    for (double* rate : {&part.rates.read, &part.rates.int8, &part.rates.f32}) *rate /= streams;
    return text +
           (streams > 1 ? "Layers, each on one of " + std::to_string(streams) +
                              " streams and against its part of the machine\n"
                        : "Layers\n") +
           table(rows, part);
}

}  // namespace ovfast::bench
