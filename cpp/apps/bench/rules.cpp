#include <iostream>
#include <stdexcept>

#include "apps/bench/options.hpp"
#include "apps/bench/text.hpp"

namespace ovfast::bench {

void check_rules(Options& options) {
    if (options.latency_percentile < 1 || options.latency_percentile > 100) {
        std::cout << usage();
        throw std::runtime_error(
            "The percentile value is incorrect. The applicable values range is [1, 100].");
    }
    constexpr uint64_t most_seconds = 1'000'000'000;  // more does not fit into nanoseconds
    if (options.seconds.value_or(0) > most_seconds) {
        throw std::runtime_error("-t: expected at most " + std::to_string(most_seconds) +
                                 " seconds, got " + std::to_string(*options.seconds));
    }
    if (options.hint != "none" &&
        (!options.streams.empty() || options.threads.value_or(0) != 0 || !options.pin.empty())) {
        throw std::runtime_error(
            "-nstreams, -nthreads and -pin options are fine tune options. To use them you should "
            "explicitely set -hint option to none. This is not OpenVINO limitation (those options "
            "can be used in OpenVINO together), but a benchmark_app UI rule.");
    }
    if (options.report_type == "average_counters" && contains(options.device, "MULTI")) {
        throw std::runtime_error(
            "only detailed_counters report type is supported for MULTI device");
    }
    const bool types_set = !options.input_precision.empty() || !options.output_precision.empty() ||
                           !options.input_output_precision.empty();
    if (lower_extension(options.model) == ".blob" && types_set) {
        throw std::runtime_error(
            "Cannot set precision for a compiled model. Please re-compile your model with required "
            "precision.");
    }
    if (options.roofline && (options.load_from_file || lower_extension(options.model) == ".blob")) {
        throw std::runtime_error(
            "-roofline counts the operations of a model, but -load_from_file and compiled models "
            "have no graph");
    }
    if (options.api.empty()) options.api = options.hint == "latency" ? "sync" : "async";
    if (options.api == "sync" && !options.seconds && options.iterations.value_or(0) != 0 &&
        options.requests > *options.iterations) {
        throw std::runtime_error(
            "Number of infer requests should be less than or equal to number of iterations in sync "
            "mode.");
    }
}

}  // namespace ovfast::bench
