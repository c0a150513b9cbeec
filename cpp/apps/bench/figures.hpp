#pragma once

#include <optional>
#include <string>
#include <vector>

#include "apps/bench/statistics.hpp"
#include "apps/bench/workload.hpp"

namespace ovfast::bench {

/// Bounds that a request has to keep to be good, seconds.
struct Slo {
    std::optional<double> ttft, tpot;
};

/// Figures of one run. Only requests that came to their end count, in latencies and tokens alike.
struct RunFigures {
    double seconds = 0.0;
    int64_t completed = 0, cancelled = 0;
    int64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
    int64_t preemptions = 0;
    int64_t kv_tokens = 0;                                     ///< peak_kv_tokens()
    double tokens_in = 0.0, tokens_out = 0.0, requests = 0.0;  ///< a second
    std::optional<double> goodput;  ///< requests a second that kept the bounds
    /// Seconds: of each request, but `inter_token` of each token after the first.
    std::vector<double> ttft, tpot, inter_token, total, queue;
};
RunFigures figures_of(const RunResult& run, const Slo& slo, int64_t block_tokens);

/// A latency of a workload.
struct Latency {
    const char* key;    ///< "ttft"
    const char* title;  ///< "TTFT"
    std::vector<double> RunFigures::* values;
};
const std::vector<Latency>& latencies();

/// A rate of a workload, one number a run.
struct Rate {
    const char* key;    ///< "tokens_out_per_second"
    const char* title;  ///< "Tokens/s out"
    double RunFigures::* value;
};
const std::vector<Rate>& rates();

/// Of all requests of all runs together, ascending.
std::vector<double> pooled(const std::vector<RunFigures>& runs, const Latency& latency);
/// The median of each run that has one.
std::vector<double> run_medians(const std::vector<RunFigures>& runs, const Latency& latency);
/// The number of each run that completed a request.
std::vector<double> run_values(const std::vector<RunFigures>& runs, const Rate& rate);
/// Of the runs; empty without bounds.
std::vector<double> goodputs(const std::vector<RunFigures>& runs);

}  // namespace ovfast::bench
