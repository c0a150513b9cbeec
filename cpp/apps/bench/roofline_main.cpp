#include <CLI/CLI.hpp>
#include <cstdio>

#include "apps/bench/key_source.hpp"
#include "apps/bench/roofline.hpp"
#include "ovfast/error.hpp"
#include "ovfast/host.hpp"
#include "ovfast/version.hpp"

namespace ovfast::bench {
namespace {

using nlohmann::ordered_json;

struct RooflineOptions {
    std::string model;
    KeySource key;
    int threads = 0;
    int probes = 7;
    int64_t context = 128;
    int64_t prompt = 128;
    bool as_json = false;
};

// Stateful models that take token ids are counted by tokens, all others by inferences.
bool is_language_model(const ov::Model& model) {
    for (const auto& input : model.inputs()) {
        if (input.get_names().count("input_ids") != 0) return !model.get_variables().empty();
    }
    return false;
}

std::vector<RooflineRow> count(const RooflineOptions& options, GraphCosts& costs,
                               std::string& note) {
    const auto model = read_for_counting(options.model, options.key.read(options.model, "--"));
    costs = count_graph(model);
    if (is_language_model(*model)) {
        note =
            "Keys and values that attention reads are not counted here; `ovfast-bench llm "
            "--roofline` does.";
        const auto context = static_cast<double>(options.context);
        const auto prompt = static_cast<double>(options.prompt);
        return {{"decode, 1 token, context " + std::to_string(options.context), "step", 1,
                 step_work(costs, {1.0, 1.0, context}), 0.0},
                {"prefill, " + std::to_string(options.prompt) + " tokens", "step", 1,
                 step_work(costs, {prompt, 1.0, prompt * (prompt + 1.0) / 2.0}), 0.0}};
    }
    bool incomplete = false;
    const Work work = inference_work(costs, incomplete);
    if (incomplete) {
        note =
            "Some operations are not counted (dynamic shapes, or of another kind): the limit is "
            "too low.";
    }
    return {{"inference", "", static_cast<int>(costs.nodes.size()), work, 0.0}};
}

int show(const RooflineOptions& options) {
    const HostLimits host = read_host_limits();
    GraphCosts costs;
    std::vector<RooflineRow> rows;
    std::string note;
    if (!options.model.empty()) rows = count(options, costs, note);
    MachineProbe probe(options.threads != 0 ? options.threads : host.threads);
    BusyMeter busy;
    for (int i = 0; i < options.probes; ++i) probe.measure();
    const MachineLimits machine = probe.limits();
    const std::vector<std::string> warnings = noise_warnings(busy.activity(), machine);
    if (options.as_json) {
        ordered_json report{{"tool", "ovfast-bench"},
                            {"mode", "roofline"},
                            {"cpu", host.cpu_name},
                            {"machine", to_json(machine)},
                            {"warnings", warnings}};
        if (!rows.empty()) {
            report["model"] = options.model;
            report.update(to_json(costs));
            report["note"] = note.empty() ? ordered_json() : ordered_json(note);
            for (const RooflineRow& row : rows) report["rows"].push_back(to_json(row, machine));
        }
        std::printf("%s\n",
                    report.dump(2, ' ', false, ordered_json::error_handler_t::replace).c_str());
        return 0;
    }
    std::printf("%s: %s\n", host.cpu_name.c_str(), describe(machine).c_str());
    if (!rows.empty()) {
        std::printf("%s\n%s", describe(costs).c_str(), table(rows, machine).c_str());
        if (!note.empty()) std::printf("Note: %s\n", note.c_str());
        const std::string cache = cache_note(rows.front().work.bytes);
        if (!cache.empty()) std::printf("Note: %s.\n", cache.c_str());
    }
    for (const std::string& warning : warnings) std::printf("Warning: %s.\n", warning.c_str());
    return 0;
}

}  // namespace

int roofline_main(int argc, char** argv) {
    CLI::App app{
        "Measures how fast memory is read and how fast the processor multiplies, and what that "
        "means for a model.",
        "ovfast-bench roofline"};
    RooflineOptions options;
    app.add_option("-m,--model", options.model,
                   "Model file or directory, encrypted or not; default: only the machine");
    app.add_option("--threads", options.threads, "0: what affinity and cgroup quota allow")
        ->check(CLI::Range(0, 4096));
    app.add_option("--probes", options.probes, "Measurements, of which the median counts")
        ->check(CLI::Range(1, 10000));
    app.add_option("--context", options.context, "Tokens before the one that is decoded")
        ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
    app.add_option("--prompt-tokens", options.prompt, "Tokens of the prompt")
        ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
    app.add_flag("--json", options.as_json, "Print one JSON object");
    add_key_options(app, options.key);
    app.footer(
        "Examples:\n"
        "  ovfast-bench roofline\n"
        "  ovfast-bench roofline -m model-dir --context 1000 --json\n"
        "  ovfast-bench roofline -m model.enc --key-file model.key");
    try {
        app.parse(argc, argv);
        options.key.check("--");
        if (options.key.given() && options.model.empty()) {
            throw CLI::ValidationError("a key was given, but no model (-m)");
        }
    } catch (const CLI::CallForHelp& e) {
        return app.exit(e);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "ovfast-bench roofline: error: %s\n", e.what());
        return 2;
    }
    try {
        return show(options);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "ovfast-bench roofline: error: %s\n", e.what());
        return dynamic_cast<const std::invalid_argument*>(&e) != nullptr ? 2 : 1;
    }
}

}  // namespace ovfast::bench
