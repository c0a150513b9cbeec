#pragma once

#include <openvino/openvino.hpp>
#include <optional>
#include <vector>

#include "apps/bench/infer_loop.hpp"
#include "apps/bench/input_info.hpp"
#include "apps/bench/report.hpp"

namespace ovfast::bench {

/// The figures of a run.
struct Results {
    int boundary = 50;  // the percentile that is reported
    uint64_t iterations = 0;
    double duration_ms = 0;
    double throughput = 0;  // frames a second
    bool interrupted = false;
    std::optional<LatencySummary> latency;  // none without a finished inference
    std::vector<LatencySummary> groups;     // by group of shapes, where they were kept apart
};

Results summarize(const Measured& measured, const InputsInfo& info, int boundary);

void report_results(Report& report, const Results& results);

/// Prints benchmark_app's final block.
void print_results(const Results& results, const ov::CompiledModel& model);

}  // namespace ovfast::bench
