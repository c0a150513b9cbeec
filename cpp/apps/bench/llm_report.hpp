#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/bench/engine_config.hpp"
#include "apps/bench/figures.hpp"
#include "apps/bench/llm_options.hpp"
#include "apps/bench/machine.hpp"
#include "apps/bench/roofline.hpp"
#include "ovfast/host.hpp"

namespace ovfast::bench {

inline constexpr double kMs = 1e3;  // of a second

/// One configuration and what was measured of it.
struct Side {
    EngineConfig config;
    EngineOptions options;  ///< as the engine got them, what was tuned among them
    std::optional<Tuning> tuning;
    bool encrypted = false;
    bool packed_files = false;
    EngineInfo info;
    double tokenizer_seconds = 0.0, engine_seconds = 0.0;
    double first_inference_seconds = 0.0;  ///< of the engine: a prompt of 16 tokens, one token out
    std::vector<std::vector<RunFigures>> runs;    ///< [workload][run]
    std::vector<std::vector<RunResult>> results;  ///< the same, each request; with --detail
};

/// Two figures of one thing.
struct Comparison {
    std::string workload;  ///< empty for figures of the whole file
    std::string figure;    ///< "TPOT ms"
    bool smaller_is_better = false;
    double a = 0.0, b = 0.0;  ///< medians
    Ratio ratio;
};

/// Everything that the reports say.
struct LlmReport {
    LlmOptions options;
    std::vector<std::string> command;
    std::string time;  ///< when it began, ISO 8601
    std::vector<Workload> workloads;
    std::vector<Side> sides;  ///< A, and B with --ab
    HostLimits host;
    std::vector<CacheLevel> caches;
    std::optional<MachineLimits> machine;
    std::optional<Activity> activity;
    uint64_t peak_rss = 0;  ///< without what the probes hold
    std::vector<std::string> warnings;
    std::optional<GraphCosts> costs;
    std::vector<RooflineRow> roofline;       ///< steps of the workloads
    std::vector<RooflineRow> decode_layers;  ///< with --pc
    std::vector<RooflineRow> prefill_layers;
    MachineLimits layer_machine;  ///< as it was while layers were measured
    bool interrupted = false;
    std::string error;
};

/// B against A, workload by workload; empty with one side.
std::vector<Comparison> comparisons(const LlmReport& report);

std::string llm_text(const LlmReport& report);
nlohmann::ordered_json llm_json(const LlmReport& report);
/// As a file has it: indented, bytes that are no UTF-8 replaced.
std::string dump(const nlohmann::ordered_json& object);
std::string llm_csv(const LlmReport& report);
/// "A against B" tables, for --ab and `compare`.
std::string comparison_text(const std::vector<Comparison>& comparisons);
nlohmann::ordered_json to_json(const Comparison& comparison);
nlohmann::ordered_json to_json(const Summary& summary, double factor = 1.0);

}  // namespace ovfast::bench
