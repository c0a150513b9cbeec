#include "apps/bench/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <charconv>
#include <functional>
#include <initializer_list>
#include <sstream>
#include <string_view>

namespace ovfast::bench {
namespace {

using Words = std::vector<std::string>;

const Words precisions = {"bool", "f16", "f32", "f64", "i8",  "i16",
                          "i32",  "i64", "u8",  "u16", "u32", "u64"};

/// How an option is written and what becomes of its value.
struct Option {
    Words names;  // without dashes, the first is how errors call it
    enum class Kind { value, flag, files } kind;
    std::function<void(const std::string&)> set;
    std::string help;
    std::string group;

    /// "-d/--target_device", as argparse calls it.
    std::string display() const {
        std::string text;
        for (size_t i = 0; i < names.size() && i < 2; ++i) {
            text += (i == 0 ? "-" : "/--") + names[i];
        }
        return text;
    }
};

[[noreturn]] void wrong(const Option& option, const std::string& message) {
    throw UsageError("argument " + option.display() + ": " + message);
}

/// The options with the variables that they set, in the order in which the help shows them.
class Table {
public:
    explicit Table(Options& options) : options_(options) { fill(); }

    const std::vector<Option>& all() const { return table_; }

    /// The option of that name, without dashes; null when there is none.
    const Option* find(std::string_view name) const {
        for (const Option& option : table_) {
            if (std::find(option.names.begin(), option.names.end(), name) != option.names.end()) {
                return &option;
            }
        }
        return nullptr;
    }

private:
    void fill();

    void add(Words names, Option::Kind kind, std::string help,
             std::function<void(const Option&, const std::string&)> set) {
        const size_t index = table_.size();
        table_.push_back({std::move(names), kind, {}, std::move(help), group_});
        table_.back().set = [this, index, set = std::move(set)](const std::string& value) {
            set(table_[index], value);
        };
    }

    void text(Words names, std::string Options::* member, std::string help, Words choices = {}) {
        add(std::move(names), Option::Kind::value, std::move(help),
            [this, member, choices](const Option& option, const std::string& value) {
                if (!choices.empty() &&
                    std::find(choices.begin(), choices.end(), value) == choices.end()) {
                    std::string list;
                    for (const std::string& choice : choices) {
                        list += (list.empty() ? "'" : ", '") + choice + "'";
                    }
                    wrong(option, "invalid choice: '" + value + "' (choose from " + list + ")");
                }
                options_.*member = value;
            });
    }

    /// A whole number of at least `least`.
    template <typename Member>
    void count(Words names, Member Options::* member, uint64_t least, std::string help) {
        add(std::move(names), Option::Kind::value, std::move(help),
            [this, member, least](const Option& option, const std::string& value) {
                int64_t number = 0;
                const char* end = value.data() + value.size();
                const auto parsed = std::from_chars(value.data(), end, number);
                if (parsed.ec != std::errc{} || parsed.ptr != end) {
                    wrong(option, "invalid int value: '" + value + "'");
                }
                if (number < static_cast<int64_t>(least)) {
                    wrong(option, value + " is an invalid " +
                                      (least == 0 ? "non-negative" : "positive") + " int value");
                }
                options_.*member = number;
            });
    }

    template <typename Member>
    void boolean(Words names, Member Options::* member, std::string help) {
        add(std::move(names), Option::Kind::flag, std::move(help),
            [this, member](const Option& option, const std::string& value) {
                std::string lower = value;
                std::transform(lower.begin(), lower.end(), lower.begin(),
                               [](unsigned char c) { return std::tolower(c); });
                for (const char* word : {"yes", "true", "t", "y", "1", ""}) {
                    if (lower == word) return void(options_.*member = true);
                }
                for (const char* word : {"no", "false", "f", "n", "0"}) {
                    if (lower == word) return void(options_.*member = false);
                }
                wrong(option, "Boolean value expected.");
            });
    }

    Options& options_;
    std::string group_;
    std::vector<Option> table_;
};

void Table::fill() {
    group_ = "Options";
    boolean({"h", "help"}, &Options::help, "Show this help message and exit");
    add({"i", "paths_to_input"}, Option::Kind::files,
        "Files and folders for the inputs: images (bmp, png, jpg, ...), .bin, .npy. "
        "Or for each input: input1:a.bin,b.bin input2:c.npy. "
        "Words instead of files: random, image_info",
        [this](const Option&, const std::string& value) { options_.inputs.push_back(value); });
    text({"m", "path_to_model"}, &Options::model,
         "Required. Model file (.xml, .onnx, .pb, .tflite, .pdmodel, ...), compiled model (.blob) "
         "or model directory (with openvino_model.xml), encrypted or not");
    text({"d", "target_device"}, &Options::device,
         "Device: CPU (default), GPU, AUTO:..., MULTI:...");
    text({"hint", "perf_hint"}, &Options::hint, "What the device is to be configured for",
         {"throughput", "tput", "cumulative_throughput", "ctput", "latency", "none"});
    count({"niter", "number_iterations"}, &Options::iterations, 0,
          "Number of iterations; 0 compiles the model and ends");
    add({"max_irate", "maximum_inference_rate"}, Option::Kind::value,
        "Highest rate, inferences a second; 0 (default) is without limit",
        [this](const Option& option, const std::string& value) {
            std::istringstream in(value);
            if (!(in >> options_.max_rate) || !in.eof()) {
                wrong(option, "invalid float value: '" + value + "'");
            }
            if (!(options_.max_rate >= 0)) {
                wrong(option, value + " is an invalid non-negative float value");
            }
        });
    count({"t", "time"}, &Options::seconds, 1, "Time to measure, seconds");
    text({"api", "api_type"}, &Options::api, "sync or async (default; sync with -hint latency)",
         {"sync", "async"});
    boolean({"json_stats"}, &Options::json_stats, "Reports are JSON, not CSV");

    group_ = "Input shapes";
    text({"b", "batch_size"}, &Options::batch, "Batch size");
    text({"shape"}, &Options::shape,
         "Shapes of the model: \"input1[1,3,224,224],input2[1,4]\" or \"[1,3,224,224]\" for all; "
         "?, -1 or low..up for what is dynamic");
    text({"data_shape"}, &Options::data_shape,
         "Shapes of the tensors for dynamic inputs, one or several for each: "
         "\"input1[1,64][1,128],input2[1,64][1,128]\"");
    text({"layout"}, &Options::layout,
         "Layouts: \"input1[NCHW],input2[NC]\" or \"[NCHW]\" for all");

    group_ = "Advanced options";
    text({"extensions"}, &Options::extensions, "Libraries of operations, separated by commas");
    text({"c", "path_to_cldnn_config"}, &Options::gpu_kernels, "XML file of GPU kernels");
    text({"cdir", "cache_dir"}, &Options::cache_dir, "Folder for compiled models");
    boolean({"lfile", "load_from_file"}, &Options::load_from_file,
            "Compile the file without reading it into a model first");
    count({"nireq", "number_infer_requests"}, &Options::requests, 1,
          "Number of infer requests; the device chooses by default");
    text({"nstreams", "number_streams"}, &Options::streams,
         "Number of streams, or <device>:<number>,<device>:<number>");
    boolean({"inference_only"}, &Options::inference_only,
            "Set the inputs once, before the measuring (default for static models), not for each "
            "inference");
    boolean({"no_warmup"}, &Options::no_warmup, "No inference before the measuring");
    text({"infer_precision"}, &Options::infer_precision,
         "Precision of the computation: bf16, or CPU:bf16,GPU:f32");
    boolean({"use_device_mem"}, &Options::use_device_mem,
            "Inputs and outputs in the device's own memory");
    text({"exec_graph_path"}, &Options::exec_graph_path, "File for the executed graph (.xml)");

    group_ = "Preprocessing options";
    text({"ip", "input_precision"}, &Options::input_precision, "Type of all inputs", precisions);
    text({"op", "output_precision"}, &Options::output_precision, "Type of all outputs", precisions);
    text({"iop", "input_output_precision"}, &Options::input_output_precision,
         "Types by name: \"input:f16, output:f16\"");
    text({"mean_values"}, &Options::mean_values,
         "Means to subtract from images, by channel: \"[123,117,104]\" or \"data[123,117,104]\"");
    text({"scale_values"}, &Options::scale_values,
         "Scales to divide images by, by channel: \"[58,57,57]\" or \"data[58,57,57]\"");

    group_ = "Device-specific performance options";
    count({"nthreads", "number_threads"}, &Options::threads, 0, "Number of threads of the CPU");
    text({"pin", "infer_threads_pinning"}, &Options::pin, "Pin the CPU's threads to cores",
         {"YES", "NO"});

    group_ = "Statistics dumping options";
    count({"latency_percentile"}, &Options::latency_percentile, 0,
          "Percentile of the latency to report, 1 to 100; 50 (default) is the median");
    text({"report_type"}, &Options::report_type,
         "Write a report: no_counters, average_counters (mean time of each layer), "
         "detailed_counters (of each request), sort_detailed_counters",
         {"no_counters", "average_counters", "detailed_counters", "sort_detailed_counters"});
    text({"report_folder"}, &Options::report_folder, "Folder of the reports");
    text({"ab"}, &Options::ab,
         "Measure a second configuration in alternation with the first: what differs, as "
         "NAME=VALUE,... of these options or a JSON file");
    boolean({"roofline"}, &Options::roofline,
            "Print the share of what the machine's memory and arithmetic allow; with -pc of each "
            "layer, too");
    boolean({"pc", "perf_counts"}, &Options::counters, "Print the time of each layer");
    text({"pcsort", "perf_counts_sort"}, &Options::sort_counters,
         "Print the time of each layer: no_sort in graph order, sort by time, simple_sort by time "
         "without layers that did not run",
         {"no_sort", "sort", "simple_sort"});
    boolean({"pcseq"}, &Options::sequence, "Report latencies for each group of -data_shape");
    text({"dump_config"}, &Options::dump_config, "JSON file to write the device properties to");
    text({"load_config"}, &Options::load_config,
         "JSON file to read device properties from; the command line comes first. "
         "{\"CPU\": {\"NUM_STREAMS\": \"3\"}}");

    group_ = "Key of an encrypted model directory";
    text({"key-file"}, &Options::key_file, "The file that holds it");
    text({"key-env"}, &Options::key_env, "The environment variable that holds it");
    boolean({"key-stdin"}, &Options::key_stdin, "Read it from stdin");
    boolean({"passphrase"}, &Options::passphrase,
            "Ask for the passphrase; without a terminal it is a line of stdin");
}

/// "-hint=latency" as CLI11 reads it, "--hint=latency" with the option's first name. CLI11 takes
/// names of several letters with two dashes only, benchmark_app with either.
std::string with_two_dashes(const Table& table, const std::string& argument) {
    const size_t dashes = std::min<size_t>(argument.find_first_not_of('-'), 2);
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(dashes, equals - dashes);
    const std::string rest = equals == std::string::npos ? "" : argument.substr(equals);
    if (const Option* option = table.find(name)) return "--" + option->names[0] + rest;
    // gflags' way to write -pc=false.
    if (name.rfind("no", 0) == 0 && rest.empty()) {
        const Option* option = table.find(name.substr(2));
        if (option && option->kind == Option::Kind::flag) {
            return "--" + option->names[0] + "=false";
        }
    }
    throw UsageError("unrecognized arguments: " + argument);
}

bool is_option(const std::string& argument) {
    return argument.size() > 1 && argument[0] == '-' && !std::isdigit(argument[1]) &&
           argument[1] != '.';
}

std::vector<std::pair<std::string, std::string>> pairs(int argc, const char* const* argv) {
    std::vector<std::pair<std::string, std::string>> found;
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (is_option(argument)) {
            const size_t equals = argument.find('=');
            found.emplace_back(argument.substr(0, equals),
                               equals == std::string::npos ? "" : argument.substr(equals + 1));
        } else if (!found.empty()) {
            std::string& value = found.back().second;
            value += (value.empty() ? "" : " ") + argument;
        }
    }
    return found;
}

}  // namespace

Options parse_options(int argc, const char* const* argv) {
    Options options;
    Table table(options);
    CLI::App app;
    app.set_help_flag();
    std::vector<Words> values(table.all().size());
    for (size_t i = 0; i < table.all().size(); ++i) {
        const Option& option = table.all()[i];
        CLI::Option* added = app.add_option("--" + option.names[0], values[i]);
        using Kind = Option::Kind;
        // Without extra arguments, or else CLI11 reads [1,3,8,8] as a list.
        if (option.kind == Kind::value) added->expected(1)->take_last()->allow_extra_args(false);
        if (option.kind == Kind::flag) added->expected(0, 1)->take_last()->allow_extra_args(false);
        if (option.kind == Kind::files) added->expected(1, CLI::detail::expected_max_vector_size);
    }

    Words arguments;
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        arguments.push_back(is_option(argument) ? with_two_dashes(table, argument) : argument);
    }
    std::reverse(arguments.begin(), arguments.end());  // the order that CLI11 pops them in
    try {
        app.parse(arguments);
    } catch (const CLI::ArgumentMismatch& error) {
        const std::string message = error.what();
        const std::string name = message.substr(2, message.find_first_of(": ") - 2);
        if (const Option* option = table.find(name)) wrong(*option, "expected one argument");
        throw UsageError(message);
    } catch (const CLI::ExtrasError&) {
        std::string list;
        for (const std::string& argument : app.remaining()) list += " " + argument;
        throw UsageError("unrecognized arguments:" + list);
    } catch (const CLI::ParseError& error) {
        throw UsageError(error.what());
    }

    for (size_t i = 0; i < table.all().size(); ++i) {
        const Option& option = table.all()[i];
        for (const std::string& value : values[i]) option.set(value);
    }
    if (options.model.empty() && !options.help) {
        throw UsageError("the following arguments are required: -m/--path_to_model");
    }
    options.command_line = pairs(argc, argv);
    return options;
}

Options report_options(int argc, const char* const* argv) {
    Options options;
    Table table(options);
    options.command_line = pairs(argc, argv);
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (!is_option(argument)) continue;
        const size_t equals = argument.find('=');
        const size_t dashes = std::min<size_t>(argument.find_first_not_of('-'), 2);
        const Option* option = table.find(argument.substr(dashes, equals - dashes));
        if (option == nullptr) continue;
        const std::string& name = option->names[0];
        if (name != "report_type" && name != "report_folder" && name != "json_stats") continue;
        std::string value;
        if (equals != std::string::npos) {
            value = argument.substr(equals + 1);
        } else if (i + 1 < argc && !is_option(argv[i + 1])) {
            value = argv[i + 1];
        }
        try {
            option->set(value);
        } catch (const UsageError&) {
            // That may be what was refused; without a kind there is no report.
        }
    }
    return options;
}

std::string usage() {
    Options unused;
    const Table table(unused);
    std::ostringstream out;
    out << "usage: ovfast-bench [options] -m PATH_TO_MODEL\n"
           "       ovfast-bench llm|compare|roofline|devices [options]   (-h lists theirs)\n"
           "Measures a model as OpenVINO's benchmark_app does; language models, what two reports\n"
           "differ in, the limits of the machine, its devices.\n\n"
           "Examples:\n"
           "  ovfast-bench -m model.xml\n"
           "  ovfast-bench -m model.onnx -hint latency -t 10\n"
           "  ovfast-bench -m model.xml -ab nstreams=2,hint=none\n"
           "  ovfast-bench -m model.enc -key-file model.key -report_type no_counters -json_stats\n";
    std::string group;
    for (const Option& option : table.all()) {
        if (option.group != group) out << '\n' << option.group << ":\n";
        group = option.group;
        out << "  " << option.display() << "\n      " << option.help << '\n';
    }
    return out.str();
}

}  // namespace ovfast::bench
