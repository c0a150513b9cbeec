#include <sstream>

#include "apps/bench/llm_report.hpp"
#include "ovfast/version.hpp"

// The machine-readable reports of `ovfast-bench llm`.
namespace ovfast::bench {
namespace {

using nlohmann::ordered_json;

constexpr int kFormat = 1;  // grows when a key changes its meaning

ordered_json or_null(const std::string& text) {
    return text.empty() ? ordered_json() : ordered_json(text);
}

ordered_json machine_json(const LlmReport& report) {
    ordered_json caches = ordered_json::array();
    for (const CacheLevel& cache : report.caches) {
        caches.push_back({{"level", cache.level},
                          {"type", cache.type},
                          {"bytes", cache.bytes},
                          {"shared_by", cache.shared_by}});
    }
    ordered_json machine{{"cpu", report.host.cpu_name},
                         {"threads", report.host.threads},
                         {"memory_bytes", report.host.memory_total},
                         {"memory_limit_bytes", report.host.memory_limit},
                         {"caches", caches}};
    if (report.machine) machine["limits"] = to_json(*report.machine);
    if (report.activity) {
        machine["load_average_before"] = report.activity->load;
        machine["share_of_other_processes"] = report.activity->others;
        machine["share_of_steal"] = report.activity->steal;
    }
    return machine;
}

ordered_json info_json(const Side& side) {
    const EngineInfo& info = side.info;
    ordered_json properties = ordered_json::object();
    for (const auto& [name, value] : side.options.properties) properties[name] = value;
    ordered_json tuned;
    if (side.tuning) tuned = {{"made", side.tuning->made}, {"applied", side.tuning->applied}};
    return {{"model", side.config.model},
            {"options", side.config.text()},
            {"tuned", tuned},
            {"properties", properties},
            {"encrypted", side.encrypted},
            {"device", info.device},
            {"threads", info.threads},
            {"attention", info.attention},
            {"attention_reason", or_null(info.attention_reason)},
            {"packed", info.packed},
            {"fused_layers", info.fused_layers},
            {"max_context", info.max_context},
            {"weights_bytes", info.weights_bytes},
            {"kv_bytes_per_token", info.kv_bytes_per_token},
            {"kv_block_tokens", info.kv_block_tokens},
            {"kv_cache_bytes", info.kv_cache_bytes},
            {"tokenizer_ms", side.tokenizer_seconds * kMs},
            {"load_ms", (side.tokenizer_seconds + side.engine_seconds) * kMs},
            {"read_ms", info.read_seconds * kMs},
            {"compile_ms", info.compile_seconds * kMs},
            {"first_inference_ms", side.first_inference_seconds * kMs}};
}

ordered_json run_json(const RunFigures& run, const EngineInfo& info) {
    ordered_json object{
        {"seconds", run.seconds},
        {"completed", run.completed},
        {"cancelled", run.cancelled},
        {"prompt_tokens", run.prompt_tokens},
        {"cached_tokens", run.cached_tokens},
        {"generated_tokens", run.generated_tokens},
        {"preemptions", run.preemptions},
        {"kv_bytes", static_cast<uint64_t>(run.kv_tokens) * info.kv_bytes_per_token}};
    for (const Rate& rate : rates()) object[rate.key] = run.*rate.value;
    object["goodput_per_second"] = run.goodput ? ordered_json(*run.goodput) : ordered_json();
    for (const Latency& latency : latencies()) {
        object[std::string(latency.key) + "_ms"] = to_json(summarize(run.*latency.values), kMs);
    }
    return object;
}

ordered_json request_json(const RequestResult& request) {
    const RequestMetrics& metrics = request.metrics;
    ordered_json times = ordered_json::array();
    for (const float seconds : metrics.inter_token_seconds) times.push_back(seconds * kMs);
    return {{"completed", request.done},
            {"submitted_ms", request.submitted * kMs},
            {"prompt_tokens", metrics.prompt_tokens},
            {"cached_tokens", metrics.cached_tokens},
            {"generated_tokens", metrics.generated_tokens},
            {"queue_ms", metrics.queue_seconds * kMs},
            {"ttft_ms", metrics.ttft_seconds * kMs},
            {"tpot_ms", request.tpot() * kMs},
            {"end_to_end_ms", metrics.total_seconds * kMs},
            {"infer_ms", metrics.infer_seconds * kMs},
            {"steps", metrics.steps},
            {"inter_token_ms", times}};
}

ordered_json figures_json(const std::vector<RunFigures>& runs) {
    ordered_json figures = ordered_json::object();
    for (const Latency& latency : latencies()) {
        ordered_json object = to_json(summarize(pooled(runs, latency)), kMs);
        object["run_medians"] = to_json(summarize(run_medians(runs, latency)), kMs);
        figures[std::string(latency.key) + "_ms"] = object;
    }
    for (const Rate& rate : rates()) {
        figures[rate.key] = to_json(summarize(run_values(runs, rate)));
    }
    const std::vector<double> good = goodputs(runs);
    figures["goodput_per_second"] = good.empty() ? ordered_json() : to_json(summarize(good));
    return figures;
}

ordered_json side_json(const LlmReport& report, const Side& side) {
    ordered_json object = info_json(side);
    ordered_json workloads = ordered_json::array();
    for (size_t i = 0; i < side.runs.size(); ++i) {
        const Workload& workload = report.workloads[i];
        ordered_json runs = ordered_json::array();
        for (const RunFigures& run : side.runs[i]) runs.push_back(run_json(run, side.info));
        for (size_t r = 0; i < side.results.size() && r < side.results[i].size(); ++r) {
            ordered_json requests = ordered_json::array();
            for (const RequestResult& one : side.results[i][r].requests) {
                requests.push_back(request_json(one));
            }
            runs[r]["requests"] = requests;
        }
        workloads.push_back(
            {{"prompt_tokens",
              workload.prompt_tokens > 0 ? ordered_json(workload.prompt_tokens) : ordered_json()},
             {"output_tokens", workload.output_tokens},
             {"concurrency",
              workload.concurrency > 0 ? ordered_json(workload.concurrency) : ordered_json()},
             {"rate", workload.rate > 0.0 ? ordered_json(workload.rate) : ordered_json()},
             {"requests_a_run", workload.requests},
             {"figures", figures_json(side.runs[i])},
             {"runs", runs}});
    }
    object["workloads"] = workloads;
    return object;
}

std::string quoted(const std::string& text) {
    if (text.find_first_of(",\"\n") == std::string::npos) return text;
    std::string result = "\"";
    for (const char c : text) result += c == '"' ? std::string("\"\"") : std::string(1, c);
    return result + "\"";
}

}  // namespace

ordered_json to_json(const Summary& summary, double factor) {
    if (summary.count == 0) return nullptr;
    return {{"count", summary.count},
            {"mean", summary.mean * factor},
            {"median", summary.median * factor},
            {"deviation", summary.deviation * factor},
            {"min", summary.min * factor},
            {"p50", summary.p50 * factor},
            {"p90", summary.p90 * factor},
            {"p99", summary.p99 * factor},
            {"max", summary.max * factor},
            {"spread", summary.spread()}};
}

ordered_json to_json(const Comparison& comparison) {
    const Ratio& ratio = comparison.ratio;
    return {{"workload", or_null(comparison.workload)},
            {"figure", comparison.figure},
            {"smaller_is_better", comparison.smaller_is_better},
            {"a", comparison.a},
            {"b", comparison.b},
            {"ratio_of_medians", ratio.of_medians},
            {"ratio", ratio.estimate},
            {"low", ratio.low ? ordered_json(*ratio.low) : ordered_json()},
            {"high", ratio.high ? ordered_json(*ratio.high) : ordered_json()},
            {"confidence", ratio.low ? ordered_json(ratio.confidence) : ordered_json()},
            {"verdict", to_string(judge(ratio, comparison.smaller_is_better))}};
}

std::string dump(const ordered_json& object) {
    return object.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

ordered_json llm_json(const LlmReport& report) {
    ordered_json object{{"tool", "ovfast-bench"},
                        {"mode", "llm"},
                        {"format", kFormat},
                        {"ovfast", version()},
                        {"openvino", openvino_loaded_version()},
                        {"time", report.time},
                        {"command", report.command},
                        {"error", or_null(report.error)},
                        {"interrupted", report.interrupted},
                        {"warnings", report.warnings},
                        {"machine", machine_json(report)}};
    const auto bound = [](const std::optional<double>& ms) {
        return ms ? ordered_json(*ms) : ordered_json();
    };
    object["slo"] = {{"ttft_ms", bound(report.options.slo_ttft_ms)},
                     {"tpot_ms", bound(report.options.slo_tpot_ms)}};
    object["peak_rss_bytes"] = report.peak_rss;
    object["seed"] = report.options.seed;
    ordered_json sides = ordered_json::array();
    for (const Side& side : report.sides) sides.push_back(side_json(report, side));
    object["configurations"] = sides;
    if (report.sides.size() == 2) {
        ordered_json compared = ordered_json::array();
        for (const Comparison& one : comparisons(report)) compared.push_back(to_json(one));
        object["comparison"] = compared;
    }
    if (report.costs && report.machine) {
        const auto rows = [](const std::vector<RooflineRow>& from, const MachineLimits& machine) {
            ordered_json all = ordered_json::array();
            for (const RooflineRow& row : from) all.push_back(to_json(row, machine));
            return all;
        };
        ordered_json roofline = to_json(*report.costs);
        roofline["steps"] = rows(report.roofline, *report.machine);
        if (!report.decode_layers.empty()) {
            roofline["layer_limits"] = to_json(report.layer_machine);
            roofline["decode_layers"] = rows(report.decode_layers, report.layer_machine);
            roofline["prefill_layers"] = rows(report.prefill_layers, report.layer_machine);
        }
        object["roofline"] = roofline;
    }
    return object;
}

std::string llm_csv(const LlmReport& report) {
    std::ostringstream csv;
    csv << "configuration,model,options,prompt_tokens,output_tokens,concurrency,rate,run,seconds,"
           "completed,cancelled,tokens_in,cached_tokens,tokens_out,kv_bytes";
    for (const Rate& rate : rates()) csv << ',' << rate.key;
    csv << ",goodput_per_second";
    for (const Latency& latency : latencies()) {
        for (const char* figure : {"mean", "p50", "p90", "p99"}) {
            csv << ',' << latency.key << '_' << figure << "_ms";
        }
    }
    csv << '\n';
    for (size_t s = 0; s < report.sides.size(); ++s) {
        const Side& side = report.sides[s];
        for (size_t w = 0; w < side.runs.size(); ++w) {
            const Workload& workload = report.workloads[w];
            for (size_t r = 0; r < side.runs[w].size(); ++r) {
                const RunFigures& run = side.runs[w][r];
                csv << "AB"[s] << ',' << quoted(side.config.model) << ','
                    << quoted(side.config.text()) << ',';
                if (workload.prompt_tokens > 0) csv << workload.prompt_tokens;
                csv << ',' << workload.output_tokens << ',';
                if (workload.concurrency > 0) csv << workload.concurrency;
                csv << ',';
                if (workload.rate > 0.0) csv << workload.rate;
                csv << ',' << r + 1 << ',' << run.seconds << ',' << run.completed << ','
                    << run.cancelled << ',' << run.prompt_tokens << ',' << run.cached_tokens << ','
                    << run.generated_tokens << ','
                    << static_cast<uint64_t>(run.kv_tokens) * side.info.kv_bytes_per_token;
                for (const Rate& rate : rates()) csv << ',' << run.*rate.value;
                csv << ',';
                if (run.goodput) csv << *run.goodput;
                for (const Latency& latency : latencies()) {
                    const Summary summary = summarize(run.*latency.values);
                    for (const double value :
                         {summary.mean, summary.p50, summary.p90, summary.p99}) {
                        csv << ',';
                        if (summary.count > 0) csv << value * kMs;
                    }
                }
                csv << '\n';
            }
        }
    }
    return csv.str();
}

}  // namespace ovfast::bench
