#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace ovfast::bench {

/// A command line that cannot be understood; the message says which argument is wrong and why.
class UsageError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// The options of benchmark_app, as they were given. Empty or absent means: not given.
struct Options {
    bool help = false;
    std::string model;                   // -m
    std::vector<std::string> inputs;     // -i, each as it was written
    std::string device = "CPU";          // -d
    std::string hint;                    // throughput, tput, ..., latency, none
    std::optional<uint64_t> iterations;  // -niter; 0: compile only
    std::optional<uint64_t> seconds;     // -t
    double max_rate = 0;                 // -max_irate, inferences a second; 0: no limit
    std::string batch;                   // -b, a dimension
    std::string shape;                   // -shape, shapes of the model
    std::string data_shape;              // -data_shape, shapes of the tensors
    std::string layout;                  // -layout
    std::string extensions;              // -extensions, separated by commas
    std::string gpu_kernels;             // -c, an XML file
    std::string cache_dir;               // -cache_dir
    bool load_from_file = false;         // -load_from_file
    std::string api;                     // sync, async
    uint64_t requests = 0;               // -nireq; 0: what the device finds best
    std::string streams;                 // -nstreams, may be one for each device
    std::optional<uint64_t> threads;     // -nthreads
    std::string pin;                     // YES, NO
    std::optional<bool> inference_only;  // -inference_only
    std::string infer_precision;         // -infer_precision, may be one for each device
    std::string input_precision;         // -ip
    std::string output_precision;        // -op
    std::string input_output_precision;  // -iop
    std::string mean_values;             // -mean_values
    std::string scale_values;            // -scale_values
    bool no_warmup = false;              // -no_warmup
    bool use_device_mem = false;         // -use_device_mem
    int latency_percentile = 50;         // -latency_percentile, 1 to 100
    std::string report_type;             // no_counters, average_counters, ...
    std::string report_folder;           // -report_folder
    bool json_stats = false;             // -json_stats
    std::optional<bool> counters;        // -pc
    std::string sort_counters;           // -pcsort
    bool sequence = false;               // -pcseq
    std::string exec_graph_path;         // -exec_graph_path
    bool roofline = false;               // -roofline, not one of benchmark_app's
    std::string ab;                      // -ab, what differs in B; not one of benchmark_app's
    std::string dump_config;             // -dump_config
    std::string load_config;             // -load_config
    std::string key_file;                // -key-file, these four not of benchmark_app
    std::string key_env;                 // -key-env
    bool key_stdin = false;              // -key-stdin
    bool passphrase = false;             // -passphrase

    /// The arguments as written, ("-m", "model.xml"); what the report lists.
    std::vector<std::pair<std::string, std::string>> command_line;
};

/// Reads the command line. Options take one dash or two, the short or the long name, "name value"
/// or "name=value". Throws UsageError.
Options parse_options(int argc, const char* const* argv);

/// What a command line that parse_options() refuses says of the report, so that it carries the
/// error: -report_type, -report_folder, -json_stats, as far as they can be read.
Options report_options(int argc, const char* const* argv);

/// The rules between options, checked before anything is loaded; sets `api` when it was not given.
/// Throws std::runtime_error.
void check_rules(Options& options);

/// What -h prints, without the devices.
std::string usage();

}  // namespace ovfast::bench
