#include "apps/bench/llm.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <map>
#include <random>

#include "apps/bench/html_report.hpp"
#include "apps/bench/interrupt.hpp"
#include "apps/bench/llm_report.hpp"
#include "apps/bench/output_file.hpp"
#include "apps/bench/progress_line.hpp"
#include "apps/bench/prompts.hpp"
#include "apps/bench/text_table.hpp"
#include "ovfast/error.hpp"

namespace ovfast::bench {
namespace {

constexpr int64_t kFirstPrompt = 16;
constexpr int64_t kLayerContext = 64;
constexpr int64_t kLayerSteps = 32;
constexpr int64_t kLayerPrompt = 256;

std::string now() {
    const std::time_t time = std::time(nullptr);
    char text[32];
    std::tm local{};
    localtime_r(&time, &local);
    std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S%z", &local);
    return text;
}

/// One benchmark from its options to its report, which always holds what was measured so far.
class Benchmark {
public:
    Benchmark(LlmReport& report, ProgressLine& line)
        : report_(report), options_(report.options), line_(line) {}

    void run() {
        report_.host = read_host_limits();
        report_.caches = read_caches();
        report_.workloads = options_.workloads();
        BusyMeter busy;
        report_.sides.emplace_back().config = options_.engine;
        if (!options_.ab.empty()) {
            report_.sides.emplace_back().config = changed(options_.engine, options_.ab);
        }
        read_keys();
        for (size_t s = 0; s < report_.sides.size(); ++s) load(s);
        if (interrupted()) return;
        if (!options_.roofline) keys_.clear();
        peak_before_ = read_process_memory().peak_rss;
        MachineProbe probe(report_.sides.front().info.threads);
        probe_ = &probe;
        if (!options_.prompts_file.empty()) {
            file_ = read_prompts(options_.prompts_file, *engines_.front().tokenizer);
        }
        check_lengths();
        measure();
        report_.machine = probe.limits();
        report_.activity = busy.activity();
        // Before anything is loaded once more.
        report_.peak_rss = peak_rss();
        for (const std::string& warning : noise_warnings(report_.activity, *report_.machine)) {
            report_.warnings.push_back(warning);
        }
        warn_of_cached_prompts();
        report_.interrupted = interrupted();
        if (options_.roofline && !report_.interrupted) roofline();
    }

private:
    void read_keys() {
        const EngineConfig& a = report_.sides.front().config;
        if (report_.sides.size() == 1) {
            keys_ = {a.key_source.read(a.model, "--")};
        } else {
            const EngineConfig& b = report_.sides.back().config;
            const KeyPair keys = KeyPair::read(a.key_source, a.model, b.key_source, b.model, "--");
            keys_ = {keys.a, keys.b};
        }
        for (size_t s = 0; s < keys_.size(); ++s) report_.sides[s].encrypted = keys_[s].has_value();
        if (keys_.front() && options_.per_layer && !(options_.json + options_.html).empty()) {
            throw std::invalid_argument(
                "--pc names the layers of the model, which is encrypted: it is printed only, not "
                "written to --json or --html");
        }
    }

    void load(size_t s) {
        if (interrupted()) return;
        Side& side = report_.sides[s];
        counters_.emplace_back();
        engines_.push_back(
            load_engine(side.config, keys_[s], [this](double done, const std::string& what) {
                line_.show("Packing " + what + ", " + significant(done * 100.0, 2) + " %");
                return !interrupted();
            }));
        const LoadedEngine& loaded = engines_.back();
        side.options = loaded.options;
        side.tuning = loaded.tuning;
        side.packed_files = loaded.packed_files;
        report_.warnings.insert(report_.warnings.end(), loaded.warnings.begin(),
                                loaded.warnings.end());
        side.info = loaded.engine->info();
        side.tokenizer_seconds = loaded.tokenizer_seconds;
        side.engine_seconds = loaded.engine_seconds;
        side.runs.resize(report_.workloads.size());
        side.results.resize(report_.workloads.size());
        line_.show("First inference");
        const RunResult first = once(s, {kFirstPrompt, 1, 1, 0.0, 1});
        if (!first.requests.empty()) {
            side.first_inference_seconds = first.requests.front().metrics.ttft_seconds;
        }
    }

    // Prompts of a file may be of any length; a context that is too short is found out before
    // anything is measured.
    void check_lengths() const {
        for (const Side& side : report_.sides) {
            for (const Workload& workload : report_.workloads) {
                size_t prompt = static_cast<size_t>(workload.prompt_tokens);
                for (const auto& ids : file_) prompt = std::max(prompt, ids.size());
                const int64_t needed = static_cast<int64_t>(prompt) + workload.output_tokens;
                if (needed > side.info.max_context) {
                    throw CapacityError("prompt and output take " + std::to_string(needed) +
                                        " tokens, but the context has " +
                                        std::to_string(side.info.max_context));
                }
            }
        }
    }

    // A and B get the same prompts in the same order.
    std::vector<int64_t> prompt(size_t s, int64_t tokens) {
        Counters& counters = counters_[s];
        if (tokens == 0) return file_[counters.from_file++ % file_.size()];
        // Another text each time: nothing of it lies in the prefix cache.
        std::seed_seq mixed{options_.seed, ++counters.built};
        uint32_t words[2];
        mixed.generate(words, words + 2);
        return build_prompt(*engines_[s].tokenizer, tokens, uint64_t{words[0]} << 32 | words[1]);
    }

    RunResult once(
        size_t s, const Workload& workload,
        const std::function<void(const RunProgress&)>& shown = [](const auto&) {}) {
        std::vector<std::vector<int64_t>> prompts;
        for (int64_t i = 0; i < workload.requests; ++i) {
            prompts.push_back(prompt(s, workload.prompt_tokens));
        }
        std::vector<double> arrivals;
        if (workload.rate > 0.0) {
            arrivals = poisson_arrivals(prompts.size(), workload.rate, options_.seed + arrived_);
        }
        return run_workload(*engines_[s].engine, workload, std::move(prompts), arrivals,
                            interrupted, shown);
    }

    void measure() {
        const size_t sides = engines_.size();
        for (int run = 0; run < *options_.runs && !interrupted(); ++run) {
            line_.show("Probing the machine");
            probe_->measure();
            for (size_t w = 0; w < report_.workloads.size() && !interrupted(); ++w) {
                ++arrived_;  // both sides see the same arrivals
                for (size_t turn = 0; turn < sides && !interrupted(); ++turn) {
                    // A first, then B first: what drifts meets both alike.
                    const size_t s = (turn + static_cast<size_t>(run)) % sides;
                    if (run == 0) warm_up(s, w);
                    measure(s, w, run);
                }
            }
        }
        probe_->measure();
    }

    void warm_up(size_t s, size_t w) {
        if (options_.warmup == 0 || interrupted()) return;
        Workload workload = report_.workloads[w];
        workload.requests = options_.warmup;
        workload.rate = 0.0;
        workload.concurrency =
            std::max<int64_t>(1, std::min(workload.concurrency, options_.warmup));
        line_.show("Warming up: " + workload.text());
        once(s, workload);
    }

    void measure(size_t s, size_t w, int run) {
        if (interrupted()) return;
        const Workload& workload = report_.workloads[w];
        Side& side = report_.sides[s];
        const auto start = std::chrono::steady_clock::now();
        RunResult result = once(s, workload, [&](const RunProgress& progress) {
            const double seconds =
                std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
            std::string text =
                "Run " + std::to_string(run + 1) + "/" + std::to_string(*options_.runs) + ", ";
            if (engines_.size() > 1) text += std::string("AB"[s] + std::string(", "));
            text += workload.text() + ": " + std::to_string(progress.ended) + "/" +
                    std::to_string(workload.requests) + " requests, " +
                    significant(static_cast<double>(progress.generated) / seconds) + " tokens/s, " +
                    significant(seconds, 2) + " s";
            line_.show(text);
        });
        if (result.requests.empty()) return;
        const Slo slo{seconds(options_.slo_ttft_ms), seconds(options_.slo_tpot_ms)};
        side.runs[w].push_back(figures_of(result, slo, side.info.kv_block_tokens));
        if (options_.detail) side.results[w].push_back(std::move(result));
    }

    static std::optional<double> seconds(const std::optional<double>& ms) {
        return ms ? std::optional(*ms / 1e3) : std::nullopt;
    }

    uint64_t peak_rss() const {
        const uint64_t peak = read_process_memory().peak_rss;
        const uint64_t held = probe_->held_bytes();
        return std::max(peak_before_, peak - std::min(peak, held));
    }

    void warn_of_cached_prompts() {
        int64_t cached = 0;
        for (const Side& side : report_.sides) {
            for (const auto& runs : side.runs) {
                for (const RunFigures& run : runs) cached += run.cached_tokens;
            }
        }
        if (cached > 0) {
            report_.warnings.push_back(
                std::to_string(cached) +
                " tokens of prompts came from the prefix cache: give more prompts, or "
                "--no-prefix-caching");
        }
    }

    // Of A: what its steps have to read and to compute, against how long they took.
    void roofline() {
        const Side& side = report_.sides.front();
        line_.show("Counting operations");
        GraphCosts costs = count_graph(read_for_counting(
            side.info.packed_dir.empty() ? side.config.model : side.info.packed_dir.string(),
            keys_.front()));
        if (side.info.packed && side.info.packed_dir.empty() && !side.packed_files) {
            report_.warnings.push_back(
                "the packed model is only in memory: the roofline counts the weights of the files");
        }
        if (side.options.activation_precision == "exact") {
            for (NodeCost& node : costs.nodes) node.int8 = false;
        }
        for (size_t w = 0; w < report_.workloads.size(); ++w) add_steps(side, costs, w);
        if (options_.per_layer) layers(costs);
        report_.costs = std::move(costs);
    }

    void add_steps(const Side& side, const GraphCosts& costs, size_t w) {
        const Workload& workload = report_.workloads[w];
        if (workload.prompt_tokens == 0 || workload.concurrency == 0) return;
        const auto prompt = static_cast<double>(workload.prompt_tokens);
        const auto sequences = static_cast<double>(workload.concurrency);
        const auto kv = static_cast<double>(side.info.kv_bytes_per_token);
        const std::vector<double> tpot = pooled(side.runs[w], latencies().at(1));
        if (!tpot.empty()) {
            const double context = prompt + static_cast<double>(workload.output_tokens) / 2.0;
            Work work = step_work(costs, {sequences, sequences, sequences * context});
            work.bytes += kv * sequences * context;
            report_.roofline.push_back(
                {"decode, " + workload.text(), "step", 1, work, median(tpot)});
        }
        const std::vector<double> ttft = pooled(side.runs[w], latencies().front());
        if (workload.concurrency == 1 && !ttft.empty()) {
            report_.roofline.push_back({"prefill, " + workload.text(), "prompt", 1,
                                        prefill_work(side, costs, workload.prompt_tokens),
                                        median(ttft)});
        }
    }

    // Each chunk reads the weights, and the keys and values of what came before it.
    static Work prefill_work(const Side& side, const GraphCosts& costs, int64_t prompt) {
        const auto kv = static_cast<double>(side.info.kv_bytes_per_token);
        const int64_t chunk = side.options.max_batch_tokens;
        Work work;
        for (int64_t done = 0; done < prompt; done += chunk) {
            const auto tokens = static_cast<double>(std::min(chunk, prompt - done));
            const auto before = static_cast<double>(done);
            const bool last = done + chunk >= prompt;
            work += step_work(
                costs, {tokens, last ? 1.0 : 0.0, tokens * before + tokens * (tokens + 1.0) / 2.0});
            work.bytes += kv * before;
        }
        return work;
    }

    // In an engine of its own: operations that are timed are not fused with each other.
    void layers(const GraphCosts& costs) {
        line_.show("Loading the model again, for its layers");
        engines_.clear();
        EngineConfig config = report_.sides.front().config;
        config.options = report_.sides.front().options;
        config.tuned = false;  // it is applied already
        config.options.properties["PERF_COUNT"] = "YES";
        config.options.prefix_caching = false;
        engines_.push_back(
            load_engine(config, keys_.front(), [](double, const std::string&) { return true; }));
        line_.show("Layers");
        MachineProbe probe(report_.sides.front().info.threads);
        probe.measure();
        times_of(kLayerContext, 4, 1);
        const Times prompt = times_of(kLayerContext, 1, 3);
        Times decode = times_of(kLayerContext, kLayerSteps + 1, 1);
        for (auto& [name, seconds] : decode) {
            const auto first = prompt.find(name);  // the step that computed the prompt
            const double of_prompt = first != prompt.end() ? first->second / 3.0 : 0.0;
            seconds = std::max(0.0, seconds - of_prompt) / static_cast<double>(kLayerSteps);
        }
        const auto context = static_cast<double>(kLayerContext) + kLayerSteps / 2.0;
        report_.decode_layers = join(costs, decode, {1.0, 1.0, context}, context);
        probe.measure();
        times_of(kLayerPrompt, 1, 1);
        Times prefill = times_of(kLayerPrompt, 1, 3);
        for (auto& [name, seconds] : prefill) seconds /= 3.0;
        const auto tokens = static_cast<double>(kLayerPrompt);
        report_.prefill_layers =
            join(costs, prefill, {tokens, 1.0, tokens * (tokens + 1.0) / 2.0}, 0.0);
        probe.measure();
        report_.layer_machine = probe.limits();
    }

    using Times = std::map<std::string, double>;

    Times times_of(int64_t prompt, int64_t output, int64_t requests) {
        engines_.front().engine->take_node_times();
        once(0, {prompt, output, 1, 0.0, requests});
        Times times;
        for (const NodeTime& time : engines_.front().engine->take_node_times()) {
            times[time.name] += time.seconds;
        }
        return times;
    }

    // Attention is paged in what runs and not in the file: all of it is one row. It reads the keys
    // and values of `kv_tokens`.
    std::vector<RooflineRow> join(const GraphCosts& costs, Times times, const StepShape& step,
                                  double kv_tokens) const {
        RooflineRow attention{"attention", "PagedAttention", 0, {}, 0.0};
        for (auto it = times.begin(); it != times.end();) {
            if (it->first.rfind("PagedAttention", 0) == 0) {
                ++attention.count;
                attention.seconds += it->second;
                it = times.erase(it);
            } else {
                ++it;
            }
        }
        for (const NodeCost& node : costs.nodes) {
            if (node.operations_a_pair > 0.0) attention.work += step_work(node, step);
        }
        const EngineInfo& info = report_.sides.front().info;
        attention.work.bytes += static_cast<double>(info.kv_bytes_per_token) * kv_tokens;
        std::vector<RooflineRow> rows = join_layers(
            costs, [&](const NodeCost& node) { return std::optional(step_work(node, step)); },
            times);
        if (attention.count > 0) rows.insert(rows.begin(), attention);
        return rows;
    }

    LlmReport& report_;
    const LlmOptions& options_;
    ProgressLine& line_;
    std::vector<std::optional<crypto::Key>> keys_;  // of each side, while they are needed
    std::vector<LoadedEngine> engines_;
    MachineProbe* probe_ = nullptr;
    std::vector<std::vector<int64_t>> file_;
    struct Counters {
        size_t from_file = 0;
        uint64_t built = 0;
    };
    std::vector<Counters> counters_;  // of each engine
    uint64_t arrived_ = 0;
    uint64_t peak_before_ = 0;  // of RSS, before the probe takes its memory
};

/// The files of a report. That they can be written is found out before anything is measured.
class ReportFiles {
public:
    explicit ReportFiles(const LlmOptions& options) {
        add(json_, options.json);
        add(csv_, options.csv);
        add(html_, options.html);
    }
    void write(const LlmReport& report) {
        if (json_) json_->write(dump(llm_json(report)));
        if (csv_) csv_->write(llm_csv(report));
        if (html_) html_->write(llm_html(report));
    }

private:
    static void add(std::optional<OutputFile>& file, const std::string& path) {
        if (!path.empty()) file.emplace(path);
    }
    std::optional<OutputFile> json_, csv_, html_;
};

int measure(LlmReport& report) {
    const InterruptGuard guard;
    ReportFiles files(report.options);
    int code = 0;
    {
        ProgressLine line(report.options.quiet);
        try {
            Benchmark(report, line).run();
        } catch (const std::exception& e) {
            report.error = interrupted() ? "" : e.what();
            code = dynamic_cast<const std::invalid_argument*>(&e) != nullptr ? 2 : 1;
        }
        report.interrupted = interrupted();
    }
    files.write(report);
    if (code == 0 || report.interrupted) {
        std::fputs(llm_text(report).c_str(), stdout);
        std::fflush(stdout);
    }
    if (report.interrupted) return 130;
    if (code != 0) std::fprintf(stderr, "ovfast-bench llm: error: %s\n", report.error.c_str());
    return code;
}

// Where the JSON report goes, also of a command line that cannot be read as a whole.
std::string json_path(int argc, char** argv) {
    const std::string option = "--json";
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (argument == option && i + 1 < argc) return argv[i + 1];
        if (argument.rfind(option + "=", 0) == 0) return argument.substr(option.size() + 1);
    }
    return "";
}

// The report carries what is wrong with the command line, too.
void write_error(const LlmReport& report, const std::string& path) {
    if (path.empty()) return;
    try {
        OutputFile(path).write(dump(llm_json(report)));
    } catch (const std::exception& e) {
        std::fprintf(stderr, "ovfast-bench llm: error: %s\n", e.what());
    }
}

}  // namespace

int llm_main(int argc, char** argv) {
    LlmReport report;
    report.time = now();
    report.command.assign(argv, argv + argc);
    CLI::App app{
        "Measures a language model as it is used: TTFT, TPOT, inter-token latency, tokens/s.\n"
        "Exit codes: 0 done, 1 error, 2 wrong usage, 130 Ctrl+C (what was done is reported).",
        "ovfast-bench llm"};
    app.get_formatter()->column_width(36);
    add_llm_options(app, report.options);
    app.footer(
        "Examples:\n"
        "  ovfast-bench llm -m model-dir --concurrency 1,4,16 --html report.html\n"
        "  ovfast-bench llm -m model-dir --rate 2 --slo-ttft 500 --slo-tpot 50\n"
        "  ovfast-bench llm -m model-dir --ab no-tuned\n"
        "  ovfast-bench llm -m model.enc --key-file model.key --json report.json\n"
        "  ovfast-bench llm -m model.enc --key-file model.key --ab model=model-dir");
    try {
        app.parse(argc, argv);
        report.options.finish();
    } catch (const CLI::CallForHelp& e) {
        return app.exit(e);
    } catch (const std::exception& e) {
        report.error = e.what();
        std::fprintf(stderr, "ovfast-bench llm: error: %s\n", e.what());
        write_error(report, json_path(argc, argv));
        return 2;
    }
    try {
        return measure(report);
    } catch (const std::exception& e) {  // reports that cannot be written
        std::fprintf(stderr, "ovfast-bench llm: error: %s\n", e.what());
        return 1;
    }
}

}  // namespace ovfast::bench
