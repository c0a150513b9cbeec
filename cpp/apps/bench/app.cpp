#include <algorithm>
#include <cctype>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <stdexcept>

#include "apps/bench/app_ab.hpp"
#include "apps/bench/app_checks.hpp"
#include "apps/bench/app_roofline.hpp"
#include "apps/bench/app_run.hpp"
#include "apps/bench/console.hpp"
#include "apps/bench/counters.hpp"
#include "apps/bench/device_config.hpp"
#include "apps/bench/infer_loop.hpp"
#include "apps/bench/infer_requests.hpp"
#include "apps/bench/input_info.hpp"
#include "apps/bench/interrupt.hpp"
#include "apps/bench/model.hpp"
#include "apps/bench/options.hpp"
#include "apps/bench/report.hpp"
#include "apps/bench/results.hpp"
#include "apps/bench/text.hpp"
#include "ovfast/ops.hpp"

namespace ovfast::bench {
namespace {

using Section = Report::Section;
using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point begin) {
    return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

std::string bool_text(bool value) {
    return value ? "True" : "False";
}

/// A run from the second step on. What it learns goes into the report at once, so that an error in
/// a later step leaves a report of the former ones.
class App {
public:
    /// `key` of an encrypted model; it is forgotten once that was read.
    App(const Options& options, std::optional<crypto::Key> key, Steps& steps, Report* report)
        : options_(options),
          key_(std::move(key)),
          encrypted_(key_.has_value()),
          steps_(steps),
          report_(report) {}

    ExitCode run() {
        return without_quoting(encrypted_, options_.model, [&] { return run_steps(); });
    }
    /// For -ab: all but the measuring, and a round of it.
    void prepare() {
        without_quoting(encrypted_, options_.model, [&] { prepare_steps(); });
    }
    Measured measure_part() {
        return without_quoting(encrypted_, options_.model,
                               [&] { return run_loop(*requests_, ab_part(plan_), interrupted); });
    }

private:
    bool compile_only() const { return options_.iterations == uint64_t{0}; }
    bool is_async() const { return options_.api == "async"; }
    bool is_compiled() const { return lower_extension(options_.model) == ".blob"; }

    ExitCode run_steps();
    void prepare_steps();
    void load_runtime();
    void configure();
    void read_model();
    void compile_model();
    void compile_file();
    void check_nothing_is_ignored(const std::string& what) const;
    template <typename Compile>
    void timed_compile(const std::string& kind, const std::string& csv, const std::string& json,
                       const Compile& compile);
    void finish_without_inference();
    void query_parameters();
    void create_requests();
    void set_limits();
    void report_configuration();
    std::string start_text() const;
    void measure();
    void dump();
    void dump_counters();
    void print_roofline();

    void add(Section section, const std::string& csv, const std::string& json,
             const nlohmann::json& value, const std::string& python = "") {
        if (report_) report_->add(section, csv, json, value, python);
    }

    const Options& options_;
    std::optional<crypto::Key> key_;
    const bool encrypted_;
    Steps& steps_;
    Report* report_;
    ov::Core core_;
    DeviceSetup devices_;
    std::string topology_;
    std::shared_ptr<ov::Model> model_;
    InputsInfo info_;
    ov::CompiledModel compiled_;
    std::unique_ptr<InferRequests> requests_;
    LoopPlan plan_;
    bool inference_only_ = true;
    Measured measured_;
    Results results_;
    std::optional<AppRoofline> roofline_;
};

void App::load_runtime() {
    steps_.next();
    register_ops(core_);
    if (!options_.extensions.empty()) {
        for (const std::string& path : split(options_.extensions, ',')) {
            log_info("Loading extension " + path);
            core_.add_extension(path);
        }
    }
    const auto build_line = [](const std::string& version) {
        log_info("Build " + std::string(33, '.') + " " + version);
    };
    log_info("OpenVINO:");
    build_line(ov::get_openvino_version().buildNumber);
    log_info("");
    log_info("Device info:");
    for (const auto& [device, version] : core_.get_versions(options_.device)) {
        log_info(device);
        build_line(version.buildNumber);
    }
    log_info("");
    log_info("");
}

void App::configure() {
    steps_.next();
    devices_ = configure_devices(core_, options_);
    if (encrypted_) refuse_caches(devices_.config);
    std::string kernels = options_.gpu_kernels;
    const auto gpu = devices_.config.find("GPU");
    if (gpu != devices_.config.end() && gpu->second.count("CONFIG_FILE")) {
        if (kernels.empty()) kernels = gpu->second["CONFIG_FILE"].as<std::string>();
        gpu->second["CONFIG_FILE"] = kernels;
    }
    if (!kernels.empty()) {
        if (!contains(options_.device, "GPU")) {
            throw std::runtime_error("-c is for kernels of the GPU, but the device is " +
                                     options_.device);
        }
        core_.set_property("GPU", {{"CONFIG_FILE", kernels}});
        log_info("GPU extensions is loaded " + kernels);
    }
    if (!options_.cache_dir.empty()) core_.set_property(ov::cache_dir(options_.cache_dir));
    if (!options_.batch.empty()) {
        log_warning("Batch size is set. Auto batching will be disabled");
        devices_.properties[ov::hint::allow_auto_batching.name()] = false;
    }
}

void App::read_model() {
    steps_.next();
    log_info("Loading model files");
    auto begin = Clock::now();
    if (encrypted_) {
        model_ = crypto::open_model(core_, options_.model, *key_);
        key_.reset();
        topology_ = std::filesystem::canonical(options_.model).filename().string();
        if (report_) report_->conceal_errors();
    } else {
        model_ = core_.read_model(model_file(options_.model));
        topology_ = model_->get_friendly_name();
    }
    const double read = milliseconds_since(begin);
    log_info("Read model took " + fixed(read) + " ms");
    log_info("Original model I/O parameters:");
    log_inputs_and_outputs(*model_);
    add(Section::results, "read model time (ms)", "read_model_time", read);
    if (!model_->get_variables().empty()) {
        log_warning(
            "The model is stateful: what an inference adds to its state stays for the next one. "
            "Language models are measured with `ovfast-bench llm -m DIR`.");
    }

    steps_.next();
    name_inputs(*model_);
    info_ = make_inputs_info(std::as_const(*model_).inputs(), options_);
    log_info("Model batch size: " + info_.batch().to_string());
    if (info_.reshape) {
        begin = Clock::now();
        reshape(*model_, info_);
        const double took = milliseconds_since(begin);
        log_info("Reshape model took " + fixed(took) + " ms");
        add(Section::results, "reshape model time (ms)", "reshape_model_time", took);
    }

    steps_.next();
    model_ = preprocess(model_, info_, options_);
    log_inputs_and_outputs(*model_);
}

template <typename Compile>
void App::timed_compile(const std::string& kind, const std::string& csv, const std::string& json,
                        const Compile& compile) {
    steps_.next();
    const long before = peak_virtual_kib();
    const auto begin = Clock::now();
    compiled_ = compile();
    const double took = milliseconds_since(begin);
    const long after = peak_virtual_kib();
    const std::string noun = kind == "Compile" ? "compilation" : "import";
    log_info(kind + " model took " + fixed(took) + " ms");
    log_info("Start of " + noun + " memory usage: Peak " + std::to_string(before) + " KB");
    log_info("End of " + noun + " memory usage: Peak " + std::to_string(after) + " KB");
    log_info(kind + " model ram used " + std::to_string(after - before) + " KB");
    add(Section::results, csv, json, took);
}

/// Without a model to change, options that change one cannot be honoured.
void App::check_nothing_is_ignored(const std::string& what) const {
    if (!options_.mean_values.empty() || !options_.scale_values.empty()) {
        throw std::runtime_error(
            "--mean_values and --scale_values aren't supported " + what +
            ". The values can be set via model_optimizer while generating xml");
    }
    if (!options_.shape.empty() || !options_.batch.empty() || !options_.input_precision.empty() ||
        !options_.output_precision.empty() || !options_.input_output_precision.empty()) {
        throw std::runtime_error("-shape, -b, -ip, -op and -iop aren't supported " + what);
    }
}

void App::compile_file() {
    const bool blob = is_compiled();
    check_nothing_is_ignored(blob ? "for compiled model" : "with --load_from_file");
    for (int step = 4; step <= 6; ++step) {
        steps_.next();
        std::cout << "Skipping the step for "
                  << (blob ? "compiled model" : "loading model from file") << std::endl;
    }
    if (blob) {
        timed_compile("Import", "import model time (ms)", "import_model_time", [&] {
            std::ifstream file(options_.model, std::ios::binary);
            if (!file) throw std::runtime_error("Cannot open model file " + options_.model);
            return core_.import_model(file, options_.device, devices_.properties);
        });
    } else {
        timed_compile("Compile", "compile model time (ms)", "load_model_time", [&] {
            return core_.compile_model(model_file(options_.model), options_.device,
                                       devices_.properties);
        });
    }
    log_info("Original model I/O parameters:");
    log_inputs_and_outputs(compiled_);
    info_ = make_inputs_info(compiled_.inputs(), options_);
}

void App::compile_model() {
    if (is_compiled() || options_.load_from_file) return compile_file();
    read_model();
    timed_compile("Compile", "compile model time (ms)", "load_model_time", [&] {
        return core_.compile_model(model_, options_.device, devices_.properties);
    });
}

void App::finish_without_inference() {
    log_info("Model compiled successfully. Skipping inference due to -niter 0.");
    for (int step = 8; step <= 10; ++step) steps_.next("skipped");
    steps_.next();
    if (!options_.dump_config.empty()) {
        dump_config(options_.dump_config, devices_.config);
        log_info("OpenVINO configuration settings were dumped to " + options_.dump_config);
    }
    if (report_) report_->write();
}

void App::query_parameters() {
    steps_.next();
    log_info("Model:");
    for (const std::string& key : compiled_.get_property(ov::supported_properties)) {
        if (key == ov::supported_properties.name()) continue;
        const ov::Any value = compiled_.get_property(key);
        if (key != ov::device::properties.name()) {
            log_info("  " + key + ": " + value.as<std::string>());
            continue;
        }
        for (const auto& [device, properties] : value.as<ov::AnyMap>()) {
            log_info("  " + device + ":");
            for (const auto& [name, of_device] : properties.as<ov::AnyMap>()) {
                if (name == ov::supported_properties.name()) continue;
                log_info("    " + name + ": " + of_device.as<std::string>());
            }
        }
    }
    for (auto& [device, streams] : devices_.streams) {
        streams = compiled_.get_property(ov::num_streams.name()).as<std::string>();
    }
}

void App::create_requests() {
    steps_.next();
    size_t count = 1;
    if (is_async()) {
        count = options_.requests;
        if (count == 0) count = compiled_.get_property(ov::optimal_number_of_infer_requests);
    }
    const bool is_static = info_.is_static();
    InputData data = make_input_data(options_.inputs, info_);
    const bool one_group = info_.groups() <= 1;
    if (!one_group && !is_async()) {
        throw std::runtime_error(
            "Benchmarking of the model with dynamic shapes is available for async API only. Please "
            "use -api async -hint latency -nireq 1 to emulate sync behavior.");
    }
    inference_only_ = options_.inference_only.value_or(is_static);
    if (inference_only_ && !one_group) {
        throw std::runtime_error(
            "Benchmarking dynamic model available with input filling in measurement loop only!");
    }
    requests_ =
        std::make_unique<InferRequests>(compiled_, count, std::move(data), options_.use_device_mem);
    requests_->fill_inputs();
    if (info_.groups() > 1) {
        log_info("Defined " + std::to_string(info_.groups()) + " tensor groups:");
        for (size_t i = 0; i < info_.groups(); ++i) log_info("\t" + info_.group_text(i));
    }
}

/// Decides how long to measure.
void App::set_limits() {
    const size_t requests = requests_->size();
    plan_.async = is_async();
    plan_.set_inputs = !inference_only_;
    plan_.max_rate = options_.max_rate;
    plan_.group_frames = info_.group_batches();
    plan_.keep_groups = options_.sequence && info_.groups() > 1;
    plan_.align = std::max(requests, info_.groups());

    plan_.iterations = options_.iterations.value_or(0);
    if (is_async() && plan_.iterations > 0) {
        const uint64_t given = plan_.iterations;
        plan_.iterations = (given + plan_.align - 1) / plan_.align * plan_.align;
        if (plan_.iterations != given) {
            const bool by_shapes = info_.groups() > requests;
            log_warning(std::string("Number of iterations was aligned by ") +
                        (by_shapes ? "number of input shapes" : "request number") + " from " +
                        std::to_string(given) + " to " + std::to_string(plan_.iterations) +
                        " using number of " + (by_shapes ? "possible input shapes " : "requests ") +
                        std::to_string(plan_.align));
        }
    }

    uint64_t seconds = options_.seconds.value_or(0);
    if (seconds == 0 && plan_.iterations == 0) {
        const bool known = contains(options_.device, "CPU") || contains(options_.device, "GPU") ||
                           contains(options_.device, "NPU");
        seconds = known ? 60 : 120;
        if (!known) {
            log_warning("Default duration " + std::to_string(seconds) +
                        " seconds is used for unknown device " + options_.device);
        }
    }
    plan_.duration = std::chrono::seconds(seconds);
}

void App::report_configuration() {
    const auto duration = std::chrono::duration_cast<std::chrono::milliseconds>(plan_.duration);
    ov::Dimension batch = info_.batch();
    if (batch.is_dynamic() && info_.groups() <= 1) batch = plan_.group_frames[0];
    const auto config = [&](const std::string& csv, const std::string& json,
                            const nlohmann::json& value) {
        add(Section::configuration, csv, json, value);
    };
    config("benchmark mode", "benchmark_mode", inference_only_ ? "inference only" : "full");
    config("topology", "topology", topology_);
    config("target device", "target_device", options_.device);
    config("API", "api", options_.api);
    config("inference_only", "inference_only", bool_text(inference_only_));
    config("precision", "precision", "UNSPECIFIED");
    if (batch.is_static()) {
        config("batch size", "batch_size", batch.get_length());
    } else {
        config("batch size", "batch_size", batch.to_string());
    }
    config("number of iterations", "iterations_num", plan_.iterations);
    config("number of parallel infer requests", "nireq", requests_->size());
    config("duration (ms)", "duration", duration.count());
    for (const auto& [device, streams] : devices_.streams) {
        std::string key = device + "_streams_num";
        std::transform(key.begin(), key.end(), key.begin(), [](unsigned char c) {
            return c == ' ' ? '_' : static_cast<char>(std::tolower(c));
        });
        config("number of " + device + " streams", key, streams);
    }
}

std::string App::start_text() const {
    std::string text = "Start inference " + options_.api + "hronously";
    if (is_async()) {
        text += ", " + std::to_string(requests_->size()) + " inference requests";
        std::vector<std::string> parts;
        for (const auto& [device, streams] : devices_.streams) {
            parts.push_back(streams + " streams for " + device);
        }
        if (!parts.empty()) text += " using " + join(parts, ", ");
    }
    std::vector<std::string> limits;
    const auto duration = std::chrono::duration_cast<std::chrono::milliseconds>(plan_.duration);
    if (duration.count() > 0) limits.push_back(std::to_string(duration.count()) + " ms duration");
    if (plan_.iterations > 0) limits.push_back(std::to_string(plan_.iterations) + " iterations");
    return text + ", limits: " + join(limits, ", ");
}

void App::measure() {
    steps_.next(start_text());
    log_info(inference_only_
                 ? "Benchmarking in inference only mode (inputs filling are not included in "
                   "measurement loop)."
                 : "Benchmarking in full mode (inputs filling are included in measurement loop).");
    if (options_.no_warmup) {
        log_info("Skipping warmup inference due to -no_warmup flag");
    } else {
        const double took = requests_->first_inference(is_async());
        log_info("First inference took " + fixed(took) + " ms");
        add(Section::results, "first inference time (ms)", "first_inference_time", took);
    }
    if (options_.roofline) roofline_.emplace(model_);
    const InterruptGuard guard;
    measured_ = run_loop(*requests_, plan_, interrupted);
    if (measured_.interrupted) log_warning("Interrupted: the figures are of what was done so far");
    results_ = summarize(measured_, info_, options_.latency_percentile);
    // Of several devices at once no latency is shown.
    if (contains(options_.device, "MULTI")) results_.latency.reset();
}

void App::dump_counters() {
    const std::vector<Counters> all = requests_->counters();
    const std::string& order = options_.sort_counters;
    for (size_t i = 0; i < all.size(); ++i) {
        if (!order.empty()) {
            print_sorted_counters(all[i], i, order);
        } else if (options_.counters.value_or(false)) {
            print_counters(all[i], i);
        }
    }
    if (!report_) return;
    if (!order.empty() && !all.empty()) {
        report_->write_sorted_counters(sorted(averaged(all), order));
    }
    report_->write_counters(all);
}

void App::dump() {
    steps_.next();
    if (!options_.dump_config.empty()) {
        dump_config(options_.dump_config, devices_.config);
        log_info("OpenVINO configuration settings were dumped to " + options_.dump_config);
    }
    if (!options_.exec_graph_path.empty()) {
        ov::serialize(compiled_.get_runtime_model(), options_.exec_graph_path);
        log_info("Executable graph is stored to " + options_.exec_graph_path);
    }
    if (devices_.counters) dump_counters();
    if (report_) {
        report_results(*report_, results_);
        report_->write();
    }
}

void App::print_roofline() {
    if (!roofline_) return;
    const bool counted = options_.counters.value_or(false) || !options_.sort_counters.empty();
    int streams = 1;
    try {
        streams = compiled_.get_property(ov::num_streams).num;
    } catch (const ov::Exception&) {
        // A device need not have any.
    }
    roofline_->print(info_, measured_, counted ? averaged(requests_->counters()) : Counters{},
                     streams);
}

void App::prepare_steps() {
    load_runtime();
    configure();
    compile_model();
    query_parameters();
    create_requests();
    set_limits();
    if (!options_.no_warmup) requests_->first_inference(is_async());
}

ExitCode App::run_steps() {
    load_runtime();
    configure();
    compile_model();
    if (compile_only()) {
        finish_without_inference();
        return exit_success;
    }
    query_parameters();
    create_requests();
    set_limits();
    report_configuration();
    measure();
    dump();
    print_results(results_, compiled_);
    print_roofline();
    return results_.interrupted ? exit_interrupted : exit_success;
}

}  // namespace

ExitCode run_app(const Options& options, Steps& steps, Report* report) {
    return App(options, read_keys(options).a, steps, report).run();
}

ExitCode run_ab(const Options& a, const Options& b, Steps& steps) {
    KeyPair keys = read_keys(a, &b);
    App first(a, std::move(keys.a), steps, nullptr);
    first.prepare();
    log_info("B, which differs in " + a.ab);
    Steps again;
    again.next();
    App second(b, std::move(keys.b), again, nullptr);
    second.prepare();
    steps.next("A and B in alternation");
    const InterruptGuard guard;
    AbFigures figures;
    for (size_t round = 0; round < kAbRounds && !interrupted(); ++round) {
        for (size_t turn = 0; turn < 2 && !interrupted(); ++turn) {
            const size_t side = (round + turn) % 2;
            figures.add(side, (side == 0 ? first : second).measure_part());
        }
    }
    if (interrupted()) log_warning("Interrupted: the figures are of what was done so far");
    std::cout << figures.text() << std::flush;
    return interrupted() ? exit_interrupted : exit_success;
}

}  // namespace ovfast::bench
