#include <algorithm>
#include <sstream>

#include "apps/bench/llm_report.hpp"
#include "apps/bench/text_table.hpp"

// What `ovfast-bench llm` prints.
namespace ovfast::bench {
namespace {

std::string header(const LlmReport& report, const Side& side) {
    std::ostringstream text;
    const EngineInfo& info = side.info;
    text << side.config.model;
    if (const std::string options = side.config.text(); !options.empty())
        text << " (" << options << ')';
    if (side.encrypted) text << ", encrypted";
    if (side.tuning) {
        text << "\n  Tuned: " << side.tuning->text() << " (`ovfast tune`, " << side.tuning->made
             << "; --no-tuned leaves it out)";
    }
    text << "\n  " << info.threads << (info.threads == 1 ? " thread" : " threads") << " of "
         << report.host.cpu_name << ", attention of " << info.attention << ", "
         << (info.packed ? "packed weights" : "weights as they are") << ", "
         << megabytes(info.weights_bytes) << "\n  Load "
         << ms(side.tokenizer_seconds + side.engine_seconds) << " ms (tokenizer "
         << ms(side.tokenizer_seconds) << ", read " << ms(info.read_seconds) << ", compile "
         << ms(info.compile_seconds) << "), first inference " << ms(side.first_inference_seconds)
         << " ms\n  KV cache " << info.kv_bytes_per_token << " bytes a token, bound "
         << megabytes(info.kv_cache_bytes) << "\n";
    return text.str();
}

std::string workload_text(const LlmReport& report, const Side& side, size_t index) {
    const Workload& workload = report.workloads[index];
    const std::vector<RunFigures>& runs = side.runs[index];
    std::vector<std::vector<std::string>> rows{
        {"", "mean", "p50", "p90", "p99", "median of runs", "spread"}};
    for (const Latency& latency : latencies()) {
        const Summary all = summarize(pooled(runs, latency));
        if (all.count == 0) continue;
        const Summary over = summarize(run_medians(runs, latency));
        rows.push_back({std::string(latency.title) + " ms", ms(all.mean), ms(all.p50), ms(all.p90),
                        ms(all.p99), ms(over.median),
                        // Of waiting that hardly takes any time, it would say nothing.
                        latency.values == &RunFigures::queue ? "" : percent(over.spread(), 2)});
    }
    const auto add = [&](const std::string& title, const std::vector<double>& values) {
        if (values.empty()) return;
        const Summary over = summarize(values);
        rows.push_back({title, significant(over.mean), "", "", "", significant(over.median),
                        percent(over.spread(), 2)});
    };
    for (const Rate& rate : rates()) add(rate.title, run_values(runs, rate));
    add("Goodput, requests/s", goodputs(runs));
    int64_t completed = 0;
    int64_t cancelled = 0;
    int64_t cached = 0;
    int64_t kv = 0;
    for (const RunFigures& run : runs) {
        completed += run.completed;
        cancelled += run.cancelled;
        cached += run.cached_tokens;
        kv = std::max(kv, run.kv_tokens);
    }
    std::ostringstream text;
    text << "\n"
         << workload.text() << ": " << runs.size() << (runs.size() == 1 ? " run, " : " runs, ")
         << completed << (completed == 1 ? " request" : " requests");
    if (cancelled > 0) text << ", " << cancelled << " cancelled";
    if (cached > 0) text << ", " << cached << " prompt tokens from the prefix cache";
    text << ", KV memory up to "
         << megabytes(static_cast<uint64_t>(kv) * side.info.kv_bytes_per_token) << "\n"
         << format_table(rows);
    return text.str();
}

}  // namespace

std::vector<Comparison> comparisons(const LlmReport& report) {
    std::vector<Comparison> all;
    if (report.sides.size() != 2) return all;
    const size_t measured = std::min(report.sides[0].runs.size(), report.sides[1].runs.size());
    for (size_t w = 0; w < measured; ++w) {
        const auto& a = report.sides[0].runs.at(w);
        const auto& b = report.sides[1].runs.at(w);
        const auto add = [&](const std::string& figure, std::vector<double> of_a,
                             std::vector<double> of_b, bool smaller, double factor) {
            // What was cut short leaves A with a run more.
            const size_t pairs = std::min(of_a.size(), of_b.size());
            of_a.resize(pairs);
            of_b.resize(pairs);
            if (pairs == 0 || median(of_a) <= 0.0 || median(of_b) <= 0.0) return;
            all.push_back({report.workloads[w].text(), figure, smaller, median(of_a) * factor,
                           median(of_b) * factor, paired_ratio(of_a, of_b)});
        };
        for (const Latency& latency : latencies()) {
            if (latency.values == &RunFigures::queue) continue;  // often 0
            add(std::string(latency.title) + " ms", run_medians(a, latency),
                run_medians(b, latency), true, kMs);
        }
        for (const Rate& rate : rates()) {
            add(rate.title, run_values(a, rate), run_values(b, rate), false, 1.0);
        }
    }
    return all;
}

std::string comparison_text(const std::vector<Comparison>& comparisons) {
    std::vector<std::vector<std::string>> rows{{"figure", "A", "B", "B / A", "interval", "B is"}};
    std::ostringstream text;
    std::string workload;
    const auto flush = [&] {
        if (rows.size() > 1)
            text << (workload.empty() ? "" : "\n" + workload + ":\n") << format_table(rows);
        rows.resize(1);
    };
    bool few = false;
    size_t needed = 0;
    double confidence = 1.0;
    for (const Comparison& one : comparisons) {
        if (one.workload != workload) {
            flush();
            workload = one.workload;
        }
        const Ratio& ratio = one.ratio;
        std::string interval;
        if (ratio.low) {
            interval = significant(*ratio.low, 4) + " to " + significant(*ratio.high, 4);
            confidence = std::min(confidence, ratio.confidence);
        } else {
            few = true;
            needed = std::max(needed, ratio.needed);
        }
        rows.push_back({one.figure, significant(one.a, 4), significant(one.b, 4),
                        significant(ratio.estimate, 4), interval,
                        to_string(judge(ratio, one.smaller_is_better))});
    }
    flush();
    if (confidence < 1.0) {
        text << "Intervals have at least " << significant(confidence * 100.0, 3)
             << " % confidence.\n";
    }
    if (few) {
        text << "An interval of 95 % takes at least " << needed << " runs of each.\n";
    }
    return text.str();
}

std::string llm_text(const LlmReport& report) {
    std::ostringstream text;
    for (size_t s = 0; s < report.sides.size(); ++s) {
        if (report.sides.size() > 1) text << (s > 0 ? "\n" : "") << "AB"[s] << ": ";
        text << header(report, report.sides[s]);
        for (size_t w = 0; w < report.sides[s].runs.size(); ++w) {
            if (!report.sides[s].runs[w].empty()) text << workload_text(report, report.sides[s], w);
        }
    }
    if (report.sides.size() == 2) {
        const std::vector<Comparison> compared = comparisons(report);
        if (!compared.empty()) {
            text << "\nB against A, run by run in alternation\n" << comparison_text(compared);
        }
    }
    if (report.costs && report.machine) {
        text << "\nRoofline: " << describe(*report.machine) << "\n"
             << describe(*report.costs) << "\n"
             << table(report.roofline, *report.machine);
        if (!report.decode_layers.empty()) {
            text << "\nLayers: " << describe(report.layer_machine)
                 << "\n\nDecoding, 1 token a step\n"
                 << table(by_kind(report.decode_layers), report.layer_machine)
                 << "\nPrefill, a prompt of 256 tokens\n"
                 << table(by_kind(report.prefill_layers), report.layer_machine);
        }
    } else if (report.machine) {
        text << "\nMachine: " << describe(*report.machine) << "\n";
    }
    if (report.peak_rss > 0) text << "Peak RSS " << megabytes(report.peak_rss) << "\n";
    for (const std::string& warning : report.warnings) text << "Warning: " << warning << ".\n";
    if (report.interrupted) text << "Interrupted: the figures are those of what was done.\n";
    return text.str();
}

}  // namespace ovfast::bench
