#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "ovfast/engine.hpp"

namespace ovfast::bench {

/// Requests of one kind. Clients either wait for each other (a request follows when one ends, so
/// that `concurrency` of them are there all the time) or do not (requests arrive at a mean `rate`).
struct Workload {
    int64_t prompt_tokens = 0;  ///< 0: as long as the prompts of a file are
    int64_t output_tokens = 0;
    int64_t concurrency = 0;  ///< 0: by rate
    double rate = 0.0;        ///< requests a second; 0: by concurrency
    int64_t requests = 0;     ///< of one run

    /// "prompt 128, output 64, concurrency 4".
    std::string text() const;
    bool operator==(const Workload& other) const;
};

/// What became of a request. Times in seconds, measured in the engine.
struct RequestResult {
    bool done = false;       ///< it came to its end; else it was cancelled
    double submitted = 0.0;  ///< since the run began
    RequestMetrics metrics;

    /// Time per output token after the first; 0 for a single one.
    double tpot() const;
};

struct RunResult {
    std::vector<RequestResult> requests;  ///< those that were submitted, in that order
    double seconds = 0.0;                 ///< first submission to last end
};

/// How far a run is, for whoever shows it.
struct RunProgress {
    std::atomic<int64_t> submitted{0};
    std::atomic<int64_t> ended{0};
    std::atomic<int64_t> generated{0};  ///< tokens of those that ended
};

/// Runs `prompts`, one a request, each to `workload.output_tokens` tokens whatever they are, with
/// the most probable token each time. `arrivals` are those of poisson_arrivals() when the workload
/// has a rate. `shown` is called at once and then ten times a second, from the calling thread. What
/// runs is cancelled when `stop` says so. Throws what a request threw, after the others were
/// cancelled.
RunResult run_workload(Engine& engine, const Workload& workload,
                       std::vector<std::vector<int64_t>> prompts,
                       const std::vector<double>& arrivals, bool (*stop)(),
                       const std::function<void(const RunProgress&)>& shown);

/// Most tokens whose keys and values were held at once, at most: of every request all tokens that
/// it ended with, rounded up to blocks, from when it was scheduled to its end.
int64_t peak_kv_tokens(const RunResult& run, int64_t block_tokens);

}  // namespace ovfast::bench
