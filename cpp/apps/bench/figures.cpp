#include "apps/bench/figures.hpp"

#include <algorithm>

namespace ovfast::bench {

RunFigures figures_of(const RunResult& run, const Slo& slo, int64_t block_tokens) {
    RunFigures figures;
    figures.seconds = run.seconds;
    // What was cut short: until the last request that counts.
    double last_done = 0.0;
    figures.kv_tokens = peak_kv_tokens(run, block_tokens);
    int64_t good = 0;
    for (const RequestResult& request : run.requests) {
        const RequestMetrics& metrics = request.metrics;
        figures.preemptions += metrics.preemptions;
        if (!request.done) {
            ++figures.cancelled;
            continue;
        }
        ++figures.completed;
        last_done = std::max(last_done, request.submitted + metrics.total_seconds);
        figures.prompt_tokens += metrics.prompt_tokens;
        figures.cached_tokens += metrics.cached_tokens;
        figures.generated_tokens += metrics.generated_tokens;
        figures.ttft.push_back(metrics.ttft_seconds);
        figures.total.push_back(metrics.total_seconds);
        figures.queue.push_back(metrics.queue_seconds);
        if (metrics.generated_tokens > 1) figures.tpot.push_back(request.tpot());
        figures.inter_token.insert(figures.inter_token.end(), metrics.inter_token_seconds.begin(),
                                   metrics.inter_token_seconds.end());
        const bool in_time = !slo.ttft || metrics.ttft_seconds <= *slo.ttft;
        const bool at_pace = !slo.tpot || request.tpot() <= *slo.tpot;
        if (in_time && at_pace) ++good;
    }
    if (figures.cancelled > 0) figures.seconds = last_done - run.requests.front().submitted;
    if (figures.completed > 0 && figures.seconds > 0.0) {
        figures.tokens_in = static_cast<double>(figures.prompt_tokens) / figures.seconds;
        figures.tokens_out = static_cast<double>(figures.generated_tokens) / figures.seconds;
        figures.requests = static_cast<double>(figures.completed) / figures.seconds;
        if (slo.ttft || slo.tpot) figures.goodput = static_cast<double>(good) / figures.seconds;
    }
    return figures;
}

const std::vector<Latency>& latencies() {
    static const std::vector<Latency> all{
        {"ttft", "TTFT", &RunFigures::ttft},
        {"tpot", "TPOT", &RunFigures::tpot},
        {"inter_token", "Inter-token latency", &RunFigures::inter_token},
        {"end_to_end", "End to end", &RunFigures::total},
        {"queue", "Queue", &RunFigures::queue},
    };
    return all;
}

const std::vector<Rate>& rates() {
    static const std::vector<Rate> all{
        {"tokens_out_per_second", "Tokens/s out", &RunFigures::tokens_out},
        {"tokens_in_per_second", "Tokens/s in", &RunFigures::tokens_in},
        {"requests_per_second", "Requests/s", &RunFigures::requests},
    };
    return all;
}

std::vector<double> pooled(const std::vector<RunFigures>& runs, const Latency& latency) {
    std::vector<double> values;
    for (const RunFigures& run : runs) {
        const std::vector<double>& more = run.*latency.values;
        values.insert(values.end(), more.begin(), more.end());
    }
    std::sort(values.begin(), values.end());
    return values;
}

std::vector<double> run_medians(const std::vector<RunFigures>& runs, const Latency& latency) {
    std::vector<double> medians;
    for (const RunFigures& run : runs) {
        const std::vector<double>& values = run.*latency.values;
        if (!values.empty()) medians.push_back(median(values));
    }
    return medians;
}

std::vector<double> run_values(const std::vector<RunFigures>& runs, const Rate& rate) {
    std::vector<double> values;
    for (const RunFigures& run : runs) {
        if (run.completed > 0) values.push_back(run.*rate.value);
    }
    return values;
}

std::vector<double> goodputs(const std::vector<RunFigures>& runs) {
    std::vector<double> values;
    for (const RunFigures& run : runs) {
        if (run.goodput) values.push_back(*run.goodput);
    }
    return values;
}

}  // namespace ovfast::bench
