#include "apps/bench/app_ab.hpp"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "apps/bench/files.hpp"
#include "apps/bench/llm_report.hpp"
#include "apps/bench/statistics.hpp"

namespace ovfast::bench {
namespace {

// At commas that are not in brackets, which shapes have.
std::vector<std::string> split_changes(const std::string& text) {
    std::vector<std::string> parts{""};
    int depth = 0;
    for (const char c : text) {
        if (c == '[') ++depth;
        if (c == ']') --depth;
        if (c == ',' && depth == 0) {
            parts.emplace_back();
        } else {
            parts.back() += c;
        }
    }
    return parts;
}

void add_file(const std::string& file, std::vector<std::string>& arguments) {
    using nlohmann::ordered_json;
    ordered_json object;
    try {
        object = ordered_json::parse(read_file(file));
    } catch (const ordered_json::exception& e) {
        throw UsageError("argument -ab: '" + file + "' is no JSON: " + e.what());
    }
    if (!object.is_object()) throw UsageError("argument -ab: '" + file + "' holds no object");
    for (const auto& [name, value] : object.items()) {
        arguments.push_back("-" + name + "=" +
                            (value.is_string() ? value.get<std::string>() : value.dump()));
    }
}

}  // namespace

std::vector<std::string> ab_arguments(int argc, const char* const* argv,
                                      const std::string& changes) {
    std::vector<std::string> arguments(argv, argv + argc);
    if (std::filesystem::path(changes).extension() == ".json") {
        add_file(changes, arguments);
        return arguments;
    }
    for (const std::string& change : split_changes(changes)) {
        if (change.empty() || change[0] == '=') {
            throw UsageError("argument -ab: expected NAME=VALUE,... or a JSON file, got '" +
                             changes + "'");
        }
        arguments.push_back("-" + change);
    }
    return arguments;
}

void check_ab(const Options& options) {
    const auto refuse = [](bool given, const std::string& name) {
        if (given) {
            throw std::runtime_error("-ab prints how A and B compare and nothing else: leave out " +
                                     name);
        }
    };
    refuse(!options.report_type.empty(), "-report_type");
    refuse(options.counters.value_or(false), "-pc");
    refuse(!options.sort_counters.empty(), "-pcsort");
    refuse(!options.exec_graph_path.empty(), "-exec_graph_path");
    refuse(!options.dump_config.empty(), "-dump_config");
    refuse(options.roofline, "-roofline");
    refuse(options.iterations == uint64_t{0}, "-niter 0");
}

LoopPlan ab_part(const LoopPlan& whole) {
    LoopPlan part = whole;
    part.duration /= kAbRounds;
    if (whole.iterations > 0) {
        const uint64_t align = std::max<uint64_t>(whole.align, 1);
        part.iterations = (whole.iterations + kAbRounds * align - 1) / (kAbRounds * align) * align;
    }
    return part;
}

void AbFigures::add(size_t side, Measured measured) {
    if (measured.interrupted || measured.latencies_ms.empty()) return;
    throughput_[side].push_back(measured.frames_per_second());
    latency_[side].push_back(median(std::move(measured.latencies_ms)));
}

std::string AbFigures::text() const {
    const size_t pairs = std::min(throughput_[0].size(), throughput_[1].size());
    if (pairs == 0) return "No round was measured\n";
    std::vector<Comparison> compared;
    const auto compare = [&](const char* figure, bool smaller, const std::vector<double>* values) {
        const std::vector<double> a(values[0].begin(), values[0].begin() + std::ptrdiff_t(pairs));
        const std::vector<double> b(values[1].begin(), values[1].begin() + std::ptrdiff_t(pairs));
        compared.push_back({"", figure, smaller, median(a), median(b), paired_ratio(a, b)});
    };
    compare("Throughput, FPS", false, throughput_);
    compare("Latency, median, ms", true, latency_);
    return "B against A, " + std::to_string(pairs) + " rounds in alternation\n" +
           comparison_text(compared);
}

}  // namespace ovfast::bench
