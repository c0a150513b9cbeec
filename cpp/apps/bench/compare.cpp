#include "apps/bench/compare.hpp"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <tuple>

#include "apps/bench/files.hpp"
#include "apps/bench/text.hpp"
#include "ovfast/error.hpp"

namespace ovfast::bench {
namespace {

using nlohmann::ordered_json;

struct Key {
    std::string workload, figure;
    bool smaller_is_better = false;
    bool operator<(const Key& other) const {
        return std::tie(workload, figure) < std::tie(other.workload, other.figure);
    }
};

// Values of a side, in the order in which the first file has them.
struct Values {
    std::vector<Key> order;
    std::map<Key, std::vector<double>> of;

    void add(const Key& key, double value) {
        if (!(value > 0.0)) return;  // no ratio is made of it
        if (of.count(key) == 0) order.push_back(key);
        of[key].push_back(value);
    }
};

[[noreturn]] void refuse(const std::string& file, const std::string& why) {
    throw Error("'" + file + "': " + why);
}

template <typename T>
T or_zero(const ordered_json& object, const char* key) {
    return object.contains(key) && object[key].is_number() ? object[key].get<T>() : T{};
}

void add_llm(const std::string& file, const ordered_json& report, Values& values) {
    if (report.at("configurations").size() != 1) {
        refuse(file, "it compares " + std::to_string(report["configurations"].size()) +
                         " configurations already (--ab), expected one");
    }
    for (const ordered_json& object : report["configurations"][0].at("workloads")) {
        const Workload workload{
            or_zero<int64_t>(object, "prompt_tokens"), or_zero<int64_t>(object, "output_tokens"),
            or_zero<int64_t>(object, "concurrency"), or_zero<double>(object, "rate"), 0};
        for (const ordered_json& run : object.at("runs")) {
            for (const Latency& latency : latencies()) {
                if (latency.values == &RunFigures::queue) continue;  // often 0
                const ordered_json& summary = run.at(std::string(latency.key) + "_ms");
                if (summary.is_null()) continue;
                values.add({workload.text(), std::string(latency.title) + " ms", true},
                           summary.at("median"));
            }
            if (run.at("completed") == 0) continue;
            for (const Rate& rate : rates()) {
                values.add({workload.text(), rate.title, false}, run.at(rate.key));
            }
        }
    }
}

// benchmark_app's values are numbers here and texts in some versions.
std::optional<double> number(const ordered_json& value) {
    if (value.is_number()) return value.get<double>();
    if (!value.is_string()) return std::nullopt;
    char* end = nullptr;
    const std::string text = value;
    const double parsed = std::strtod(text.c_str(), &end);
    return end != text.c_str() && *end == '\0' ? std::optional(parsed) : std::nullopt;
}

void add_app(const ordered_json& report, Values& values) {
    static const std::vector<std::pair<const char*, Key>> known{
        {"latency_median", {"", "Latency, median, ms", true}},
        {"latency_avg", {"", "Latency, average, ms", true}},
        {"throughput", {"", "Throughput, FPS", false}},
        {"first_inference_time", {"", "First inference, ms", true}},
        {"load_model_time", {"", "Load model, ms", true}},
        {"compile_model_time", {"", "Compile model, ms", true}},
        {"read_model_time", {"", "Read model, ms", true}}};
    const ordered_json& results = report.at("execution_results");
    for (const auto& [name, key] : known) {
        if (!results.contains(name)) continue;
        if (const auto value = number(results[name])) values.add(key, *value);
    }
}

std::string mode_of(const std::string& file, const ordered_json& report) {
    if (report.is_object() && report.value("tool", "") == "ovfast-bench" &&
        report.value("mode", "") == "llm") {
        return "llm";
    }
    if (report.is_object() && report.contains("execution_results")) return "benchmark_app";
    refuse(file, "expected a JSON report of ovfast-bench or benchmark_app");
}

std::string error_of(const ordered_json& report) {
    for (const ordered_json* object :
         {&report, report.contains("execution_results") ? &report["execution_results"] : &report}) {
        if (object->contains("error") && (*object)["error"].is_string()) return (*object)["error"];
    }
    return "";
}

Values read(const std::vector<std::string>& files, std::string& mode) {
    Values values;
    for (const std::string& file : files) {
        ordered_json report;
        try {
            report = ordered_json::parse(read_file(file));
            const std::string found = mode_of(file, report);
            if (mode.empty()) mode = found;
            if (found != mode) refuse(file, "it is of " + found + ", the first one of " + mode);
            if (const std::string error = error_of(report); !error.empty()) {
                refuse(file, "it reports an error: " + error);
            }
            if (mode == "llm") {
                add_llm(file, report, values);
            } else {
                add_app(report, values);
            }
        } catch (const nlohmann::json::exception& e) {
            refuse(file, std::string("expected a JSON report: ") + e.what());
        }
    }
    return values;
}

}  // namespace

std::vector<Comparison> compare_reports(const std::vector<std::string>& a,
                                        const std::vector<std::string>& b) {
    std::string mode;
    const Values of_a = read(a, mode);
    const Values of_b = read(b, mode);
    std::vector<Comparison> compared;
    for (const Key& key : of_a.order) {
        const auto found = of_b.of.find(key);
        if (found == of_b.of.end()) continue;
        const std::vector<double>& first = of_a.of.at(key);
        compared.push_back({key.workload, key.figure, key.smaller_is_better, median(first),
                            median(found->second), independent_ratio(first, found->second)});
    }
    if (compared.empty()) {
        throw Error("'" + a.front() + "' and '" + b.front() + "' have no workload in common");
    }
    return compared;
}

int compare_main(int argc, char** argv) {
    CLI::App app{
        "Compares reports: how many times as large each figure of B is as A's, with a confidence "
        "interval.\nSeveral reports of a side, separated by commas, count as more runs. What "
        "differs between two processes is not in the interval: --ab measures both in one.",
        "ovfast-bench compare"};
    std::string files_a;
    std::string files_b;
    bool as_json = false;
    app.add_option("A", files_a, "JSON reports of A")->required();
    app.add_option("B", files_b, "JSON reports of B")->required();
    app.add_flag("--json", as_json, "Print JSON");
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp& e) {
        return app.exit(e);
    } catch (const CLI::ParseError& e) {
        std::fprintf(stderr, "ovfast-bench compare: error: %s\n", e.what());
        return 2;
    }
    try {
        const std::vector<std::string> a = split(files_a, ',');
        const std::vector<std::string> b = split(files_b, ',');
        const std::vector<Comparison> compared = compare_reports(a, b);
        if (as_json) {
            ordered_json all = ordered_json::array();
            for (const Comparison& one : compared) all.push_back(to_json(one));
            std::fputs(dump({{"a", a}, {"b", b}, {"comparison", all}}).c_str(), stdout);
        } else {
            std::fputs(comparison_text(compared).c_str(), stdout);
        }
        return 0;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "ovfast-bench compare: error: %s\n", e.what());
        return 1;
    }
}

}  // namespace ovfast::bench
