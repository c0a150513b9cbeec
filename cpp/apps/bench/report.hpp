#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <openvino/openvino.hpp>
#include <string>
#include <utility>
#include <vector>

namespace ovfast::bench {

using Counters = std::vector<ov::ProfilingInfo>;  // the layers of one inference

/// Latencies of one kind, milliseconds.
struct LatencySummary {
    std::string data_shape;  // of the group; empty for all
    double percentile = 0;
    double average = 0;
    double least = 0;
    double most = 0;
};

/// benchmark_app's report, as CSV or JSON. It bears the names of both originals: where C++ and
/// Python call a value differently it stands there twice.
class Report {
public:
    enum class Section { command_line, configuration, results };

    Report(std::string type, std::string folder, bool json);

    /// A value under its names in C++'s CSV and JSON and in Python's report ("": as in C++'s CSV).
    void add(Section section, const std::string& csv, const std::string& json,
             const nlohmann::json& value, const std::string& python = "");
    void add_groups(std::vector<LatencySummary> groups);
    /// From now on what went wrong may quote an encrypted model, which no report may.
    void conceal_errors() { concealed_ = true; }
    void add_error(const std::string& message);

    /// Writes benchmark_report.csv or .json.
    void write() const;
    /// Writes benchmark_<type>_report.csv or .json, with the layers of each request.
    void write_counters(const std::vector<Counters>& requests) const;
    /// Writes benchmark_sorted_report.csv or .json.
    void write_sorted_counters(const Counters& layers) const;

private:
    struct Field {
        std::string csv;
        std::string json;
        std::string python;
        nlohmann::json value;
        std::string text;
    };

    std::string path(const std::string& name) const;
    std::string csv() const;
    nlohmann::ordered_json json() const;

    std::string type_;
    std::string folder_;
    bool json_;
    bool concealed_ = false;
    std::vector<std::pair<Section, Field>> fields_;
    std::vector<LatencySummary> groups_;
};

}  // namespace ovfast::bench
