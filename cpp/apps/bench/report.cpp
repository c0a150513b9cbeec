#include "apps/bench/report.hpp"

#include <filesystem>

#include "apps/bench/console.hpp"
#include "apps/bench/counters.hpp"
#include "apps/bench/output_file.hpp"
#include "apps/bench/text.hpp"

namespace ovfast::bench {
namespace {

using Section = Report::Section;

std::string section_title(Section section) {
    switch (section) {
        case Section::command_line:
            return "Command line parameters";
        case Section::configuration:
            return "Configuration setup";
        case Section::results:
            return "Execution results";
    }
    return {};
}

std::string section_key(Section section) {
    switch (section) {
        case Section::command_line:
            return "cmd_options";
        case Section::configuration:
            return "configuration_setup";
        case Section::results:
            return "execution_results";
    }
    return {};
}

std::string as_text(const nlohmann::json& value) {
    if (value.is_string()) return value.get<std::string>();
    if (value.is_number_float()) return fixed(value.get<double>());
    if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
    return value.dump();
}

double milliseconds(std::chrono::microseconds time) {
    return time.count() / 1000.0;
}

/// A name may hold what would end a cell.
std::string cell(const std::string& text) {
    if (text.find_first_of(";\"\n") == std::string::npos) return text;
    std::string quoted = "\"";
    for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
    return quoted + "\"";
}

std::string counters_csv(const Counters& layers, bool with_share) {
    const CounterTotals all = totals(layers);
    std::string text = "layerName;execStatus;layerType;execType;realTime (ms);cpuTime (ms)";
    text += with_share ? ";proportion (%)\n" : "\n";
    for (const ov::ProfilingInfo& layer : layers) {
        text += cell(layer.node_name) + ";" + status_name(layer.status) + ";" +
                cell(layer.node_type) + ";" + cell(layer.exec_type) + ";" +
                fixed(milliseconds(layer.real_time), 3) + ";" +
                fixed(milliseconds(layer.cpu_time), 3);
        if (with_share) text += ";" + fixed(100 * share(layer, all)) + "%";
        text += '\n';
    }
    text += "Total;;;;" + fixed(milliseconds(all.real), 3) + ";" + fixed(milliseconds(all.cpu), 3);
    return text + (with_share ? ";\n\n" : "\n\n");
}

nlohmann::ordered_json counters_json(const Counters& layers, bool with_share) {
    const CounterTotals all = totals(layers);
    nlohmann::ordered_json nodes = nlohmann::ordered_json::array();
    for (const ov::ProfilingInfo& layer : layers) {
        nlohmann::ordered_json node = {
            {"name", layer.node_name},
            {"node_type", layer.node_type},
            {"status", status_name(layer.status)},
            {"real_time", milliseconds(layer.real_time)},
            {"cpu_time", milliseconds(layer.cpu_time)},
            {"exec_type", layer.exec_type},
        };
        if (with_share) node["%"] = std::stod(fixed(100 * share(layer, all)));
        nodes.push_back(node);
    }
    return {{"nodes", nodes},
            {"total_real_time", milliseconds(all.real)},
            {"total_cpu_time", milliseconds(all.cpu)}};
}

}  // namespace

Report::Report(std::string type, std::string folder, bool json)
    : type_(std::move(type)), folder_(std::move(folder)), json_(json) {}

void Report::add(Section section, const std::string& csv, const std::string& json,
                 const nlohmann::json& value, const std::string& python) {
    fields_.push_back({section, {csv, json, python.empty() ? csv : python, value, as_text(value)}});
}

void Report::add_error(const std::string& message) {
    add(Section::results, "error", "error",
        concealed_ ? "the message, which may quote the encrypted model, is printed only" : message);
}

void Report::add_groups(std::vector<LatencySummary> groups) {
    groups_ = std::move(groups);
}

std::string Report::path(const std::string& name) const {
    return std::filesystem::path(folder_) / (name + (json_ ? ".json" : ".csv"));
}

std::string Report::csv() const {
    std::string text;
    for (const Section section :
         {Section::command_line, Section::configuration, Section::results}) {
        std::string rows;
        for (const auto& [of, field] : fields_) {
            if (of != section) continue;
            rows += cell(field.csv) + ";" + cell(field.text) + "\n";
            if (field.python != field.csv)
                rows += cell(field.python) + ";" + cell(field.text) + "\n";
        }
        if (!rows.empty()) text += section_title(section) + "\n" + rows + "\n";
    }
    if (!groups_.empty()) text += "Group Latencies\nData shape;Median;Average;Min;Max\n";
    for (const LatencySummary& group : groups_) {
        text += group.data_shape + ";" + fixed(group.percentile) + ";" + fixed(group.average) +
                ";" + fixed(group.least) + ";" + fixed(group.most) + "\n";
    }
    return text;
}

nlohmann::ordered_json Report::json() const {
    nlohmann::ordered_json all = nlohmann::ordered_json::object();
    for (const auto& [section, field] : fields_) {
        nlohmann::ordered_json& object = all[section_key(section)];
        object[field.json] = field.value;
        if (field.python != field.json) object[field.python] = field.text;
    }
    for (const LatencySummary& group : groups_) {
        all["execution_results"]["group_latencies"].push_back({{"data_shape", group.data_shape},
                                                               {"latency_median", group.percentile},
                                                               {"latency_average", group.average},
                                                               {"latency_min", group.least},
                                                               {"latency_max", group.most}});
    }
    return all;
}

void Report::write() const {
    const std::string file = path("benchmark_report");
    OutputFile(file).write(json_ ? json().dump(4) + "\n" : csv());
    log_info("Statistics report is stored to " + file);
}

void Report::write_counters(const std::vector<Counters>& requests) const {
    if (type_ == "no_counters") {
        log_info(
            "Statistics collecting for performance counters was not requested. No reports are "
            "dumped.");
        return;
    }
    if (requests.empty()) {
        log_info("Performance counters are empty. No reports are dumped.");
        return;
    }
    const bool sort = type_ == "sort_detailed_counters";
    std::vector<Counters> blocks = requests;
    if (type_ == "average_counters") blocks = {averaged(requests)};
    if (sort) {
        for (Counters& layers : blocks) layers = sorted(layers, "sort");
    }

    std::string text;
    if (json_) {
        nlohmann::ordered_json all;
        if (type_ == "average_counters") {
            all = {{"report_type", "average"},
                   {"avg_performance", counters_json(blocks[0], false)}};
        } else {
            all = {{"report_type", "detailed"}};
            for (const Counters& layers : blocks) {
                all["detailed_performance"].push_back(counters_json(layers, sort));
            }
        }
        text = all.dump(4) + "\n";
    } else {
        for (const Counters& layers : blocks) text += counters_csv(layers, sort);
    }
    const std::string file = path("benchmark_" + type_ + "_report");
    OutputFile(file).write(text);
    log_info("Performance counters report is stored to " + file);
}

void Report::write_sorted_counters(const Counters& layers) const {
    const std::string file = path("benchmark_sorted_report");
    if (json_) {
        const nlohmann::ordered_json all = {{"report_type", "sorted"},
                                            {"avg_performance", counters_json(layers, true)}};
        OutputFile(file).write(all.dump(4) + "\n");
    } else {
        OutputFile(file).write(counters_csv(layers, true));
    }
    log_info("Sorted performance counters report is stored to " + file);
}

}  // namespace ovfast::bench
