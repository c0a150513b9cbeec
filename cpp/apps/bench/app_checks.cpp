#include "apps/bench/app_checks.hpp"

#include <filesystem>
#include <stdexcept>

#include "apps/bench/output_file.hpp"

namespace ovfast::bench {
namespace {

void refuse(bool given, const std::string& option, const std::string& why) {
    if (given) throw std::runtime_error("the model is encrypted: " + option + " " + why);
}

void check(const Options& options) {
    const std::string clear = "is refused, since it would write ";
    refuse(!options.exec_graph_path.empty(), "-exec_graph_path", clear + "its graph in clear");
    refuse(!options.cache_dir.empty(), "-cache_dir", clear + "its weights in clear");
    const std::string layers = clear + "the names of its layers in clear; -pc prints them";
    refuse(!options.report_type.empty() && options.report_type != "no_counters",
           "-report_type " + options.report_type, layers);
    refuse(!options.report_type.empty() && !options.sort_counters.empty(),
           "-pcsort with -report_type", layers);
    refuse(options.load_from_file, "-load_from_file",
           "is refused, since OpenVINO cannot read its files");
}

KeySource key_source(const Options& options) {
    return {options.key_file, options.key_env, options.key_stdin, options.passphrase};
}

}  // namespace

void check_outputs(const Options& options) {
    if (!options.report_type.empty()) {
        OutputFile(std::filesystem::path(options.report_folder) / "benchmark_report.csv");
    }
    for (const std::string& file : {options.dump_config, options.exec_graph_path}) {
        if (!file.empty()) const OutputFile check(file);
    }
}

void check_keys(const Options& options) {
    try {
        key_source(options).check("-");
    } catch (const std::invalid_argument& error) {
        throw UsageError(error.what());
    }
}

KeyPair read_keys(const Options& a, const Options* b) {
    for (const Options* options : {&a, b}) {
        if (options != nullptr && crypto::is_encrypted(options->model)) check(*options);
    }
    if (b == nullptr) return {key_source(a).read(a.model, "-"), std::nullopt};
    return KeyPair::read(key_source(a), a.model, key_source(*b), b->model, "-");
}

void refuse_caches(const Config& config) {
    for (const auto& [device, properties] : config) {
        for (const auto& [name, value] : properties) {
            refuse(name.rfind("CACHE_", 0) == 0 && name != ov::cache_mode.name(),
                   "property " + name,
                   "is refused, since OpenVINO's cache holds the weights in "
                   "clear");
        }
    }
}

}  // namespace ovfast::bench
