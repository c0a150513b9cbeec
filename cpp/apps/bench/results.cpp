#include "apps/bench/results.hpp"

#include <algorithm>
#include <numeric>

#include "apps/bench/console.hpp"
#include "apps/bench/statistics.hpp"
#include "apps/bench/text.hpp"

namespace ovfast::bench {
namespace {

/// Microseconds where milliseconds would show too few digits.
std::string latency_text(double milliseconds, double average) {
    return average < 1 ? fixed(1000 * milliseconds) + " us" : fixed(milliseconds) + " ms";
}

LatencySummary summary_of(std::vector<double> latencies, int boundary, std::string shape) {
    std::sort(latencies.begin(), latencies.end());
    const double sum = std::accumulate(latencies.begin(), latencies.end(), 0.0);
    return {std::move(shape), percentile(latencies, boundary),
            sum / static_cast<double>(latencies.size()), latencies.front(), latencies.back()};
}

void print_latency(const LatencySummary& latency, int boundary, const std::string& pad) {
    const auto line = [&](const std::string& name, const std::string& space, double value) {
        log_info("   " + name + space + pad + latency_text(value, latency.average));
    };
    if (boundary == 50) {
        line("Median:", "     ", latency.percentile);
    } else {
        line(std::to_string(boundary) + " percentile:", "  ", latency.percentile);
    }
    line("Average:", "    ", latency.average);
    line("Min:", "        ", latency.least);
    line("Max:", "        ", latency.most);
}

}  // namespace

Results summarize(const Measured& measured, const InputsInfo& info, int boundary) {
    Results results;
    results.boundary = boundary;
    results.iterations = measured.iterations;
    results.duration_ms = measured.duration_ms;
    results.throughput = measured.frames_per_second();
    results.interrupted = measured.interrupted;
    if (measured.latencies_ms.empty()) return results;
    results.latency = summary_of(measured.latencies_ms, boundary, "");
    std::vector<std::vector<double>> by_group(info.groups());
    for (size_t i = 0; i < measured.groups.size(); ++i) {
        by_group[measured.groups[i]].push_back(measured.latencies_ms[i]);
    }
    for (size_t group = 0; group < by_group.size(); ++group) {
        if (by_group[group].empty()) continue;
        results.groups.push_back(
            summary_of(by_group[group], boundary, strip(info.group_text(group))));
    }
    return results;
}

void report_results(Report& report, const Results& results) {
    const auto add = [&](const std::string& csv, const std::string& json,
                         const nlohmann::json& value, const std::string& python = "") {
        report.add(Report::Section::results, csv, json, value, python);
    };
    add("total execution time (ms)", "execution_time", results.duration_ms);
    add("total number of iterations", "iterations_num", results.iterations);
    if (results.interrupted) add("interrupted", "interrupted", "True");
    if (results.latency) {
        const std::string boundary = std::to_string(results.boundary);
        const std::string other = "latency (" + boundary + " percentile) (ms)";
        const bool median = results.boundary == 50;
        add(median ? "Median latency (ms)" : other, "latency_median", results.latency->percentile,
            median ? "latency (ms)" : other);
        add("Percentile boundary", "percentile_boundary", results.boundary);
        add("Average latency (ms)", "latency_avg", results.latency->average, "avg latency");
        add("Min latency (ms)", "latency_min", results.latency->least, "min latency");
        add("Max latency (ms)", "latency_max", results.latency->most, "max latency");
        report.add_groups(results.groups);
    }
    add("throughput", "throughput", results.throughput);
}

void print_results(const Results& results, const ov::CompiledModel& model) {
    try {
        const auto devices = model.get_property(ov::execution_devices);
        log_info("Execution Devices:['" + join(devices, "', '") + "']");
    } catch (const ov::Exception&) {
        // A device need not know.
    }
    log_info("Count:            " + std::to_string(results.iterations) + " iterations");
    log_info("Duration:         " + fixed(results.duration_ms) + " ms");
    if (results.latency) {
        log_info("Latency:");
        print_latency(*results.latency, results.boundary, "   ");
        if (!results.groups.empty()) log_info("Latency for each data shape group:");
        for (size_t i = 0; i < results.groups.size(); ++i) {
            log_info(std::to_string(i + 1) + ". " + results.groups[i].data_shape);
            print_latency(results.groups[i], results.boundary, "");
        }
    }
    log_info("Throughput:   " + fixed(results.throughput) + " FPS");
}

}  // namespace ovfast::bench
