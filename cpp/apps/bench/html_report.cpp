#include "apps/bench/html_report.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>
#include <sstream>

#include "apps/bench/html.hpp"
#include "apps/bench/html_style.hpp"
#include "apps/bench/svg_plot.hpp"
#include "apps/bench/text_table.hpp"
#include "ovfast/version.hpp"

namespace ovfast::bench {
namespace {

std::string cell(const std::string& text, const char* kind = "") {
    return std::string("<td") + (*kind ? std::string(" class=\"") + kind + '"' : std::string()) +
           '>' + escape_html(text) + "</td>";
}

std::string head(const std::vector<std::string>& names, size_t texts = 1) {
    std::string row = "<thead><tr>";
    for (size_t i = 0; i < names.size(); ++i) {
        row += (i < texts ? "<th class=\"text\">" : "<th>") + escape_html(names[i]) + "</th>";
    }
    return row + "</tr></thead>";
}

std::string section(const std::string& title, const std::string& content) {
    return "<section><h2>" + escape_html(title) + "</h2>" + content + "</section>\n";
}

// Numbers for one workload of one side.
struct Entry {
    const Side* side;
    size_t index;  ///< of the workload
    std::string name;
    const std::vector<RunFigures>& runs() const { return side->runs[index]; }
};

std::vector<Entry> entries(const LlmReport& report) {
    std::vector<Entry> all;
    for (size_t w = 0; w < report.workloads.size(); ++w) {
        for (size_t s = 0; s < report.sides.size(); ++s) {
            const Side& side = report.sides[s];
            if (w >= side.runs.size() || side.runs[w].empty()) continue;
            const std::string name = report.workloads[w].text();
            all.push_back(
                {&side, w, report.sides.size() > 1 ? std::string(1, "AB"[s]) + ": " + name : name});
        }
    }
    return all;
}

std::string figure(const Plot& plot, const std::string& note = "") {
    std::string legend;
    if (plot.series.size() > 1) {
        legend = "<ul class=\"legend\">";
        for (size_t i = 0; i < plot.series.size(); ++i) {
            legend += "<li><span class=\"swatch s" + std::to_string(i) + "\"></span>" +
                      escape_html(plot.series[i].name) + "</li>";
        }
        legend += "</ul>";
    }
    return "<figure><figcaption>" + escape_html(plot.title) + "</figcaption>" + legend +
           draw(plot) + (note.empty() ? "" : "<p class=\"note\">" + escape_html(note) + "</p>") +
           "</figure>\n";
}

std::string distribution_figure(const LlmReport& report, const Latency& latency) {
    Plot plot;
    plot.title = std::string(latency.title) + ", distribution over all requests";
    if (latency.values == &RunFigures::inter_token) {
        plot.title = "Inter-token latency, distribution over all tokens";
    }
    plot.x_label = "milliseconds";
    plot.y_label = "share at most this";
    plot.steps = true;
    plot.percent = true;
    size_t left_out = 0;
    double low = INFINITY;
    double high = 0.0;
    for (const Entry& entry : entries(report)) {
        std::vector<double> values = pooled(entry.runs(), latency);
        if (values.empty()) continue;
        if (plot.series.size() == kPlotColors) {
            ++left_out;
            continue;
        }
        for (double& value : values) value *= kMs;
        low = std::min(low, values.front());
        high = std::max(high, values.back());
        plot.series.push_back(distribution(entry.name, values));
    }
    if (plot.series.empty()) return "";
    plot.log_x = low > 0.0 && high / low > 4.0;
    return figure(plot, left_out > 0 ? "The first " + std::to_string(kPlotColors) + " of " +
                                           std::to_string(kPlotColors + left_out) +
                                           " workloads; the table has them all."
                                     : "");
}

// A line for every pair of lengths (and side), over the levels of concurrency or rate.
std::string load_figure(const LlmReport& report, const std::string& title,
                        const std::string& y_label, bool by_rate,
                        const std::function<std::vector<double>(const Entry&)>& values) {
    Plot plot;
    plot.title = title;
    plot.x_label = by_rate ? "requests that arrive a second" : "concurrency";
    plot.y_label = y_label;
    std::map<std::string, PlotSeries> series;
    std::vector<std::string> order;
    std::set<double> levels;
    for (const Entry& entry : entries(report)) {
        const Workload& workload = report.workloads[entry.index];
        if ((workload.rate > 0.0) != by_rate) continue;
        const std::vector<double> of_runs = values(entry);
        if (of_runs.empty()) continue;
        const double level = by_rate ? workload.rate : static_cast<double>(workload.concurrency);
        const std::string name = entry.name.substr(0, entry.name.rfind(", "));
        if (series.count(name) == 0) order.push_back(name);
        levels.insert(level);
        const Summary over = summarize(of_runs);
        series[name].points.push_back({level, over.median, over.min, over.max,
                                       entry.name + ": " + significant(over.median) + " (" +
                                           significant(over.min) + " to " + significant(over.max) +
                                           ")"});
    }
    if (levels.size() < 2) return "";
    for (const std::string& name : order) {
        if (plot.series.size() == kPlotColors) break;
        series[name].name = name;
        plot.series.push_back(series[name]);
    }
    plot.x_ticks.assign(levels.begin(), levels.end());
    plot.log_x = *levels.begin() > 0.0 && *levels.rbegin() / *levels.begin() >= 4.0;
    return figure(plot,
                  order.size() > kPlotColors
                      ? "The first " + std::to_string(kPlotColors) + " of " +
                            std::to_string(order.size()) + " pairs of lengths."
                      : "Medians of the runs; the bars reach from the least to the greatest.");
}

// What there is to see over time when there is only one level of load.
std::string run_figure(const LlmReport& report) {
    Plot plot;
    plot.title = "Tokens/s out, run by run";
    plot.x_label = "run";
    plot.y_label = "tokens/s";
    std::set<double> runs;
    for (const Entry& entry : entries(report)) {
        if (plot.series.size() == kPlotColors) break;
        PlotSeries series{entry.name, {}};
        const std::vector<double> values = run_values(entry.runs(), rates().front());
        for (size_t i = 0; i < values.size(); ++i) {
            const double run = static_cast<double>(i + 1);
            runs.insert(run);
            series.points.push_back(
                {run, values[i], 0.0, 0.0,
                 entry.name + ", run " + std::to_string(i + 1) + ": " + significant(values[i])});
        }
        if (!series.points.empty()) plot.series.push_back(std::move(series));
    }
    if (runs.size() < 2) return "";
    if (runs.size() <= 20) plot.x_ticks.assign(runs.begin(), runs.end());
    return figure(plot);
}

std::string figures_table(const LlmReport& report) {
    const bool bounds = report.options.slo_ttft_ms || report.options.slo_tpot_ms;
    std::vector<std::string> names{"workload",  "requests", "TTFT p50", "p90",
                                   "p99",       "TPOT p50", "p90",      "p99",
                                   "tok/s out", "tok/s in", "spread"};
    if (bounds) names.emplace_back("goodput/s");
    std::string table = "<div class=\"scroll\"><table>" + head(names) + "<tbody>";
    for (const Entry& entry : entries(report)) {
        int64_t completed = 0;
        for (const RunFigures& run : entry.runs()) completed += run.completed;
        table += "<tr>" + cell(entry.name, "text") + cell(std::to_string(completed));
        for (const Latency* latency : {&latencies()[0], &latencies()[1]}) {
            const Summary all = summarize(pooled(entry.runs(), *latency));
            for (const double value : {all.p50, all.p90, all.p99}) {
                table += cell(all.count > 0 ? ms(value) : "");
            }
        }
        const Summary out = summarize(run_values(entry.runs(), rates()[0]));
        const Summary in = summarize(run_values(entry.runs(), rates()[1]));
        table += cell(significant(out.median), "strong") + cell(significant(in.median)) +
                 cell(percent(out.spread(), 2));
        if (bounds) {
            const std::vector<double> good = goodputs(entry.runs());
            table += cell(good.empty() ? "" : significant(median(good)));
        }
        table += "</tr>";
    }
    return table +
           "</tbody></table></div><p class=\"note\">Latencies in milliseconds, over all requests "
           "of "
           "all runs; tokens/s are medians of the runs, spread is (max - min) / median of tokens/s "
           "out.</p>";
}

std::string options_of(const Side& side) {
    std::string text = side.config.text().empty() ? "defaults" : side.config.text();
    if (side.tuning) text += "; tuned: " + side.tuning->text();
    return text;
}

std::string configurations(const LlmReport& report) {
    std::string table = "<div class=\"scroll\"><table>" +
                        head({"", "model", "options", "threads", "attention", "weights", "load",
                              "compile", "first inference", "KV a token", "KV bound"},
                             3) +
                        "<tbody>";
    for (size_t s = 0; s < report.sides.size(); ++s) {
        const Side& side = report.sides[s];
        const EngineInfo& info = side.info;
        table += "<tr>" + cell(std::string(1, "AB"[s]), "text") + cell(side.config.model, "text") +
                 cell(options_of(side), "text") + cell(std::to_string(info.threads)) +
                 cell(info.attention) + cell(megabytes(info.weights_bytes)) +
                 cell(ms(side.tokenizer_seconds + side.engine_seconds) + " ms") +
                 cell(ms(info.compile_seconds) + " ms") +
                 cell(ms(side.first_inference_seconds) + " ms") +
                 cell(std::to_string(info.kv_bytes_per_token) + " B") +
                 cell(megabytes(info.kv_cache_bytes)) + "</tr>";
    }
    return table + "</tbody></table></div>";
}

std::string comparison_table(const LlmReport& report) {
    std::string table = "<div class=\"scroll\"><table>" +
                        head({"workload", "figure", "A", "B", "B / A", "interval", "B is"}, 2) +
                        "<tbody>";
    for (const Comparison& one : comparisons(report)) {
        const Verdict verdict = judge(one.ratio, one.smaller_is_better);
        const char* kind = verdict == Verdict::kFaster   ? "good"
                           : verdict == Verdict::kSlower ? "bad"
                                                         : "dim";
        table += "<tr>" + cell(one.workload, "text") + cell(one.figure, "text") +
                 cell(significant(one.a, 4)) + cell(significant(one.b, 4)) +
                 cell(significant(one.ratio.estimate, 4), "strong") +
                 cell(one.ratio.low ? significant(*one.ratio.low, 4) + " to " +
                                          significant(*one.ratio.high, 4)
                                    : "") +
                 cell(to_string(verdict), kind) + "</tr>";
    }
    return table +
           "</tbody></table></div><p class=\"note\">Runs of A and B alternated in one process. "
           "Intervals are exact (Wilcoxon's signed ranks), of 95 % confidence at least.</p>";
}

std::string roofline_table(const std::vector<RooflineRow>& rows, const MachineLimits& machine) {
    std::string table = "<div class=\"scroll\"><table>" +
                        head({"operation", "count", "MB", "GOP", "limit ms", "bound by",
                              "measured ms", "of the limit", ""}) +
                        "<tbody>";
    for (const RooflineRow& row : rows) {
        const Limit limit = limit_of(row.work, machine);
        const double operations = row.work.int8_operations + row.work.f32_operations;
        const double reached = share(row, machine);
        const bool counted = limit.seconds() > 0.0;
        table += "<tr>" + cell(row.name, "text") + cell(std::to_string(row.count)) +
                 cell(counted ? significant(row.work.bytes / 1e6) : "") +
                 cell(counted ? significant(operations / 1e9) : "") +
                 cell(counted ? ms(limit.seconds()) : "") + cell(counted ? limit.bound() : "") +
                 cell(ms(row.seconds)) + cell(counted ? percent(reached) : "", "strong") +
                 "<td class=\"meter\">";
        if (counted) {
            table +=
                "<span style=\"width:" + significant(std::clamp(reached, 0.0, 1.0) * 100.0, 3) +
                "%\"></span>";
        }
        table += "</td></tr>";
    }
    return table + "</tbody></table></div>";
}

std::string tile(const std::string& title, const std::string& value, const std::string& unit) {
    return "<div class=\"tile\"><div class=\"name\">" + escape_html(title) +
           "</div><div class=\"value\">" + escape_html(value) + "<span>" + escape_html(unit) +
           "</span></div></div>";
}

// Of A's workload with the highest rate of tokens.
std::string tiles(const LlmReport& report) {
    const std::vector<Entry> all = entries(report);
    const Entry* best = nullptr;
    double most = 0.0;
    for (const Entry& entry : all) {
        const std::vector<double> values = run_values(entry.runs(), rates()[0]);
        if (entry.side != &report.sides.front() || values.empty()) continue;
        if (median(values) > most) {
            most = median(values);
            best = &entry;
        }
    }
    if (best == nullptr) return "";
    const Entry& first = all.front();
    std::string text = "<div class=\"tiles\">";
    const auto latency = [&](const char* name, size_t index) {
        const std::vector<double> values = pooled(first.runs(), latencies()[index]);
        if (!values.empty()) text += tile(name, ms(percentile(values, 50)), "ms");
    };
    latency("TTFT, p50", 0);
    latency("TPOT, p50", 1);
    text += tile("Tokens/s out, most", significant(most), "tok/s");
    text += tile("Load", ms(first.side->tokenizer_seconds + first.side->engine_seconds), "ms");
    if (report.peak_rss > 0) {
        text += tile("Peak RSS", significant(static_cast<double>(report.peak_rss) / 1e6), "MB");
    }
    return text + "</div><p class=\"note\">TTFT and TPOT: " + escape_html(first.name) +
           ". Most tokens/s: " + escape_html(best->name) + ".</p>\n";
}

std::string messages(const LlmReport& report) {
    std::string text;
    const auto add = [&](const char* kind, const std::string& message) {
        text += std::string("<p class=\"message ") + kind + "\">" + escape_html(message) + "</p>\n";
    };
    if (!report.error.empty()) add("bad", "Error: " + report.error);
    if (report.interrupted) add("warn", "Interrupted: the figures are those of what was done.");
    for (const std::string& warning : report.warnings) add("warn", "Warning: " + warning + ".");
    return text;
}

std::string command_line(const LlmReport& report) {
    std::string text;
    for (const std::string& part : report.command) text += (text.empty() ? "" : " ") + part;
    return text;
}

std::string plots(const LlmReport& report) {
    std::string text;
    const auto tokens = [](const Entry& entry) { return run_values(entry.runs(), rates()[0]); };
    const auto tpot = [](const Entry& entry) {
        std::vector<double> values = run_medians(entry.runs(), latencies()[1]);
        for (double& value : values) value *= kMs;
        return values;
    };
    for (const bool by_rate : {false, true}) {
        const std::string against = by_rate ? " against arrival rate" : " against concurrency";
        text += load_figure(report, "Tokens/s out" + against, "tokens/s", by_rate, tokens);
        text += load_figure(report, "TPOT" + against, "milliseconds", by_rate, tpot);
    }
    if (text.empty()) text += run_figure(report);
    text += distribution_figure(report, latencies()[0]);
    text += distribution_figure(report, latencies()[2]);
    return text;
}

}  // namespace

std::string llm_html(const LlmReport& report) {
    std::ostringstream page;
    const std::string model =
        report.sides.empty() ? report.options.engine.model : report.sides.front().config.model;
    const size_t slash = model.find_last_of('/', model.size() > 1 ? model.size() - 2 : 0);
    const std::string name = slash == std::string::npos ? model : model.substr(slash + 1);
    page << "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
            "<meta name=\"color-scheme\" content=\"light dark\"><title>"
         << escape_html(name) << " · ovfast-bench</title>\n<style>" << kHtmlStyle
         << "</style></head><body><main>\n<header><h1>" << escape_html(name) << "</h1><p>"
         << escape_html(report.host.cpu_name) << " · " << escape_html(report.time) << " · ovfast "
         << escape_html(version()) << " · OpenVINO " << escape_html(openvino_loaded_version())
         << "</p></header>\n"
         << messages(report);
    if (!entries(report).empty()) {
        page << tiles(report) << section("Workloads", figures_table(report));
        if (!comparisons(report).empty()) {
            page << section("B against A", comparison_table(report));
        }
        page << "<div class=\"plots\">" << plots(report) << "</div>\n";
    }
    if (report.machine && !report.roofline.empty()) {
        std::string content = "<p>" + escape_html(describe(*report.machine)) + "</p><p>" +
                              escape_html(describe(*report.costs)) + "</p>" +
                              roofline_table(report.roofline, *report.machine);
        if (!report.decode_layers.empty()) {
            content += "<h3>Layers, decoding 1 token a step</h3>" +
                       roofline_table(by_kind(report.decode_layers), report.layer_machine) +
                       "<h3>Layers, a prompt of 256 tokens</h3>" +
                       roofline_table(by_kind(report.prefill_layers), report.layer_machine);
        }
        page << section("Roofline", content);
    }
    if (!report.sides.empty()) {
        std::string content = configurations(report);
        if (report.machine)
            content += "<p>Machine: " + escape_html(describe(*report.machine)) + "</p>";
        content += "<pre>" + escape_html(command_line(report)) + "</pre>";
        page << section("Configuration", content);
    }
    page << "</main></body></html>\n";
    return page.str();
}

}  // namespace ovfast::bench
