#include "apps/bench/llm_options.hpp"

#include <cmath>
#include <set>
#include <sstream>
#include <stdexcept>

namespace ovfast::bench {
namespace {

template <typename T>
[[noreturn]] void refuse(const char* option, const T& value, const char* expected) {
    std::ostringstream message;
    message << option << " is " << value << ", expected " << expected;
    throw std::invalid_argument(message.str());
}

template <typename T>
void require_positive(const char* option, const std::vector<T>& values) {
    std::set<T> seen;
    for (const T value : values) {
        if (!(value > 0)) refuse(option, value, "numbers above 0");
        if (!seen.insert(value).second) refuse(option, value, "each number once");
    }
}

void refuse_both(bool first, const char* one, bool second, const char* other) {
    if (first && second) {
        throw std::invalid_argument(std::string(one) + " and " + other +
                                    " contradict each other: give one of them");
    }
}

}  // namespace

void LlmOptions::finish() {
    if (engine.model.empty()) throw std::invalid_argument("-m is missing: expected a directory");
    refuse_both(!prompts_file.empty(), "--prompts", !prompt_tokens.empty(), "--prompt-tokens");
    refuse_both(!rates.empty(), "--rate", !concurrency.empty(), "--concurrency");
    if (prompt_tokens.empty()) prompt_tokens = {prompts_file.empty() ? 128 : 0};
    if (prompts_file.empty()) require_positive("--prompt-tokens", prompt_tokens);
    require_positive("--output-tokens", output_tokens);
    require_positive("--rate", rates);
    for (const double rate : rates) {
        if (std::isinf(rate)) refuse("--rate", rate, "requests a second");
    }
    if (concurrency.empty() && rates.empty()) concurrency = {1};
    require_positive("--concurrency", concurrency);
    for (const int64_t level : concurrency) {
        if (level > engine.options.max_sequences) {
            refuse("--concurrency", level,
                   ("at most --max-sequences, which is " +
                    std::to_string(engine.options.max_sequences))
                       .c_str());
        }
        if (requests != 0 && requests < level) {
            refuse("--requests", requests,
                   ("at least the concurrency, which is " + std::to_string(level)).c_str());
        }
    }
    if (requests < 0) refuse("--requests", requests, "at least 1, or 0 to derive it");
    if (!runs) runs = ab.empty() ? 5 : 8;
    if (*runs < 1) refuse("--runs", *runs, "at least 1");
    if (warmup < 0) refuse("--warmup", warmup, "0 or more");
    for (const auto& [option, bound] :
         {std::pair{"--slo-ttft", slo_ttft_ms}, {"--slo-tpot", slo_tpot_ms}}) {
        if (bound && !(*bound > 0.0)) refuse(option, *bound, "milliseconds above 0");
    }
    refuse_both(per_layer, "-pc", !ab.empty(), "--ab");
    for (const std::string& file : {json, csv, html}) {
        if (!file.empty() && (file == json) + (file == csv) + (file == html) > 1) {
            throw std::invalid_argument("two reports go to '" + file + "'");
        }
    }
    roofline = roofline || per_layer;
    engine.finish();
}

std::vector<Workload> LlmOptions::workloads() const {
    std::vector<Workload> all;
    for (const int64_t prompt : prompt_tokens) {
        for (const int64_t output : output_tokens) {
            for (const int64_t level : concurrency) {
                all.push_back({prompt, output, level, 0.0, requests != 0 ? requests : level});
            }
            for (const double rate : rates) {
                all.push_back({prompt, output, 0, rate, requests != 0 ? requests : 16});
            }
        }
    }
    return all;
}

void add_llm_options(CLI::App& app, LlmOptions& options) {
    add_engine_options(app, options.engine);
    const auto list = [&](const char* name, auto& values, const char* text) {
        app.add_option(name, values, text)->delimiter(',')->type_name("N,...")->group("Workload");
    };
    list("--prompt-tokens", options.prompt_tokens, "Lengths of prompts; default 128");
    list("--output-tokens", options.output_tokens, "Lengths of answers");
    list("--concurrency", options.concurrency, "Requests that are there at once; default 1");
    list("--rate", options.rates, "Requests a second, arriving as a Poisson process");
    app.add_option("--prompts", options.prompts_file,
                   "Prompts, one a line: token ids, or objects with token_ids, prompt or text in a "
                   ".jsonl file")
        ->type_name("FILE")
        ->group("Workload");
    app.add_option("--requests", options.requests,
                   "Requests in a run; default: the concurrency, or 16 with --rate")
        ->group("Workload");
    app.add_option("--runs", options.runs, "Runs of each workload; default 5, 8 with --ab")
        ->group("Workload");
    app.add_option("--warmup", options.warmup,
                   "Requests before a workload's first run that count nowhere")
        ->group("Workload");
    app.add_option("--seed", options.seed, "Of prompts and arrivals")->group("Workload");
    app.add_option("--slo-ttft", options.slo_ttft_ms,
                   "Goodput: requests whose TTFT is at most this")
        ->type_name("MS")
        ->group("Workload");
    app.add_option("--slo-tpot", options.slo_tpot_ms,
                   "Goodput: requests whose TPOT is at most this")
        ->type_name("MS")
        ->group("Workload");
    app.add_option("--ab", options.ab,
                   "Measure a second configuration in alternation with the first: what differs, as "
                   "KEY=VALUE,... of engine options (model included) or a JSON file")
        ->type_name("CONFIG")
        ->allow_extra_args(false)
        ->group("Workload");
    app.add_flag("--roofline", options.roofline,
                 "Share of what the machine's memory and arithmetic allow")
        ->group("Output");
    app.add_flag("--per-layer,--pc", options.per_layer,
                 "The same for each layer (loads the model once more)")
        ->group("Output");
    app.add_option("--json", options.json, "Report as JSON")->type_name("FILE")->group("Output");
    app.add_option("--csv", options.csv, "A line for each run")->type_name("FILE")->group("Output");
    app.add_option("--html", options.html, "Report with plots, one file")
        ->type_name("FILE")
        ->group("Output");
    app.add_flag("--detail", options.detail, "Every request and inter-token latency in the JSON")
        ->group("Output");
    app.add_flag("-q,--quiet", options.quiet, "No progress, only the result")->group("Output");
}

}  // namespace ovfast::bench
