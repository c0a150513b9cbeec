#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/bench/engine_config.hpp"
#include "apps/bench/workload.hpp"

namespace ovfast::bench {

/// What `ovfast-bench llm` is asked for.
struct LlmOptions {
    EngineConfig engine;
    std::vector<std::string> ab;  ///< changes that make B of it; empty: only one configuration

    std::vector<int64_t> prompt_tokens;  ///< empty: 128, or those of the file
    std::vector<int64_t> output_tokens{128};
    std::vector<int64_t> concurrency;  ///< empty: 1, or by rate
    std::vector<double> rates;         ///< requests a second
    std::string prompts_file;
    int64_t requests = 0;     ///< of a run; 0: the concurrency, or 16 by rate
    std::optional<int> runs;  ///< without: 5, or 8 of each with --ab; has a value after finish()
    int64_t warmup = 1;       ///< requests before each workload that count nowhere
    uint64_t seed = 1;

    std::optional<double> slo_ttft_ms, slo_tpot_ms;
    bool roofline = false;
    bool per_layer = false;
    bool detail = false;
    bool quiet = false;
    std::string json, csv, html;  ///< files; empty: none

    /// Throws std::invalid_argument naming the option, what it got and what is allowed.
    void finish();
    /// Every combination, in the order in which they are listed.
    std::vector<Workload> workloads() const;
};

void add_llm_options(CLI::App& app, LlmOptions& options);

}  // namespace ovfast::bench
