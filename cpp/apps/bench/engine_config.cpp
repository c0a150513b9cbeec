#include "apps/bench/engine_config.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <openvino/core/version.hpp>
#include <sstream>
#include <stdexcept>

#include "ovfast/error.hpp"

namespace ovfast::bench {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using nlohmann::json;

// The wheels lie side by side: openvino/libs and openvino_tokenizers/lib.
std::string tokenizers_library(const std::string& given) {
    if (!given.empty()) return given;
    Dl_info info{};
    if (dladdr(reinterpret_cast<const void*>(&ov::get_openvino_version), &info) != 0) {
        const fs::path libraries = fs::weakly_canonical(info.dli_fname).parent_path();
        const fs::path found =
            libraries / "../../openvino_tokenizers/lib/libopenvino_tokenizers.so";
        if (fs::exists(found)) return fs::weakly_canonical(found).string();
    }
    throw Error(
        "the library of openvino-tokenizers is not beside OpenVINO; install that package or give "
        "--tokenizers FILE");
}

json read_json(const fs::path& path) {
    std::ifstream file(path);
    if (!file) throw Error("cannot read '" + path.string() + "'");
    try {
        return json::parse(file);
    } catch (const json::exception& e) {
        throw Error("'" + path.string() + "' is no JSON: " + e.what());
    }
}

json read_config(const ModelFiles& files) {
    const FileBytes bytes = files.read("config.json");
    try {
        return json::parse(bytes.text());
    } catch (const json::exception& e) {
        // What is wrong with it would quote it.
        throw ModelError("'" + (files.path() / "config.json").string() + "' is no JSON" +
                         (files.encrypted() ? "" : std::string(": ") + e.what()));
    }
}

// Tokens that the model was made for; 0 when it does not say.
int64_t context_length(const ModelFiles& files) {
    if (!files.has("config.json")) return 0;
    const json config = read_config(files);
    const json sections = {config, config.is_object() && config.contains("text_config")
                                       ? config["text_config"]
                                       : json::object()};
    for (const json& section : sections) {
        for (const char* key :
             {"max_position_embeddings", "n_positions", "max_seq_len", "seq_length"}) {
            if (section.is_object() && section.contains(key) && section[key].is_number_integer() &&
                section[key] > 0) {
                return section[key];
            }
        }
    }
    return 0;
}

void require_model_dir(const std::string& model) {
    const fs::path path = model;
    if (!fs::exists(path)) throw ModelError("'" + model + "' does not exist");
    if (!fs::is_directory(path)) {
        throw ModelError("'" + model + "' is no directory; " +
                         (path.extension() == ".gguf"
                              ? "export it first: ovfast export '" + model +
                                    "' -o DIR (of -m, the ovfast-bench that pip installs does "
                                    "that by itself)"
                              : "expected one of a language model"));
    }
}

std::vector<std::string> as_arguments(const std::string& key, const json& value) {
    const auto text = [&](const json& one) {
        return one.is_string() ? one.get<std::string>() : one.dump();
    };
    if (value.is_boolean()) {
        if (value.get<bool>()) return {"--" + key};
        throw std::invalid_argument("'" + key + "' is false: leave it out instead");
    }
    if (value.is_object()) {
        std::vector<std::string> arguments;
        for (const auto& [name, one] : value.items()) {
            arguments.push_back("--" + key);
            arguments.push_back(name + "=" + text(one));
        }
        return arguments;
    }
    return {"--" + key, text(value)};
}

std::vector<std::string> as_arguments(const std::string& change) {
    std::vector<std::string> arguments;
    const auto add = [&](const std::vector<std::string>& more) {
        arguments.insert(arguments.end(), more.begin(), more.end());
    };
    if (fs::path(change).extension() == ".json") {
        const json object = read_json(change);
        if (!object.is_object()) throw Error("'" + change + "' holds no JSON object");
        for (const auto& [key, value] : object.items()) add(as_arguments(key, value));
        return arguments;
    }
    std::istringstream stream(change);
    for (std::string part; std::getline(stream, part, ',');) {
        const size_t equals = part.find('=');
        if (equals == 0 || part.empty()) {
            throw std::invalid_argument("--ab wants KEY=VALUE or a .json file, got '" + part + "'");
        }
        arguments.push_back("--" + part.substr(0, equals));
        if (equals != std::string::npos) arguments.push_back(part.substr(equals + 1));
    }
    if (arguments.empty()) {
        throw std::invalid_argument("--ab wants KEY=VALUE or a .json file, got nothing");
    }
    return arguments;
}

}  // namespace

void EngineConfig::finish() {
    options.prefix_caching = !no_prefix_caching;
    if (options.device != "CPU") options.packed = "never";
    key_source.check("--");
    for (const std::string& property : properties) {
        const size_t equals = property.find('=');
        if (equals == std::string::npos || equals == 0) {
            throw std::invalid_argument("--property wants KEY=VALUE, got '" + property + "'");
        }
        options.properties[property.substr(0, equals)] = property.substr(equals + 1);
    }
    options.validate();
}

std::string EngineConfig::text() const {
    const EngineOptions plain;
    std::ostringstream text;
    const auto add = [&](const char* name, const auto& value, const auto& otherwise) {
        if (value != otherwise) text << ' ' << name << '=' << value;
    };
    add("device", options.device, plain.device);
    add("threads", options.num_threads, plain.num_threads);
    add("kv-cache-gb", options.kv_cache_gb, plain.kv_cache_gb);
    add("max-context", options.max_context, plain.max_context);
    add("max-batch-tokens", options.max_batch_tokens, plain.max_batch_tokens);
    add("max-sequences", options.max_sequences, plain.max_sequences);
    add("packed", options.packed, plain.packed);
    add("activation-precision", options.activation_precision, plain.activation_precision);
    add("attention", options.attention, plain.attention);
    add("tile-kb", options.tile_kb, plain.tile_kb);
    add("tile-columns", options.tile_columns, plain.tile_columns);
    add("gpu-operations", options.gpu_operations, plain.gpu_operations);
    if (!tuned) text << " no-tuned";
    if (no_prefix_caching) text << " no-prefix-caching";
    for (const std::string& property : properties) text << ' ' << property;
    const std::string result = text.str();
    return result.empty() ? result : result.substr(1);
}

void add_engine_options(CLI::App& app, EngineConfig& config) {
    EngineOptions& options = config.options;
    const auto add = [&](const char* name, auto& value, const char* text) {
        return app.add_option(name, value, text)->group("Engine");
    };
    // What is given is not for a tuning to decide; `tuned_as` is its name there.
    const auto add_tuned = [&](const char* name, auto& value, const char* text,
                               const char* tuned_as) {
        add(name, value, text)->each([&config, tuned_as](const std::string&) {
            config.given.insert(tuned_as);
        });
    };
    add("-m,--model", config.model,
        "Model directory of `ovfast export` or Optimum Intel, encrypted or not")
        ->type_name("DIR");
    add("--device", options.device, "OpenVINO device");
    add_tuned("--threads", options.num_threads,
              "Compute threads; 0: what affinity and cgroup quota allow", "num_threads");
    add("--kv-cache-gb", options.kv_cache_gb, "Bound of the KV cache, GiB; 0: from free memory");
    add("--max-context", options.max_context, "Tokens of context; 0: the model's");
    add_tuned("--max-batch-tokens", options.max_batch_tokens,
              "Tokens that one step computes at most", "max_batch_tokens");
    add("--max-sequences", options.max_sequences, "Sequences that run at once");
    add("--packed", options.packed, "Run on packed weights: auto, never");
    add_tuned("--activation-precision", options.activation_precision,
              "Of activations in linear layers: int8, int8_g128, exact", "activation_precision");
    add_tuned("--attention", options.attention, "auto, ovfast, openvino", "attention");
    add_tuned("--tile-kb", options.tile_kb,
              "KiB of weights that a thread takes at a time while answering; 0: 64", "tile_kb");
    add_tuned("--tile-columns", options.tile_columns,
              "Output columns that a thread takes at a time of a prompt; 0: 512", "tile_columns");
    add("--gpu-operations", options.gpu_operations,
        "On a GPU: openvino, or ovfast for our OpenCL kernels where they fit");
    app.add_flag("--tuned,!--no-tuned", config.tuned,
                 "Apply what `ovfast tune` chose for options that are not given, or not")
        ->group("Engine");
    app.add_flag("--no-prefix-caching", config.no_prefix_caching,
                 "Compute every prompt from its beginning")
        ->group("Engine");
    add("--property", config.properties, "Further OpenVINO property, repeatable")
        ->type_name("KEY=VALUE")
        ->allow_extra_args(false);
    add("--tokenizers", config.tokenizers,
        "Library of openvino_tokenizers; default: the one beside OpenVINO")
        ->type_name("FILE");
    add_key_options(app, config.key_source);
}

EngineConfig changed(const EngineConfig& config, const std::vector<std::string>& changes) {
    std::vector<std::string> arguments;
    for (const std::string& change : changes) {
        const std::vector<std::string> more = as_arguments(change);
        arguments.insert(arguments.end(), more.begin(), more.end());
    }
    EngineConfig other = config;
    other.properties.clear();
    other.key_source = {};
    CLI::App app;
    app.set_help_flag();
    add_engine_options(app, other);
    try {
        std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
        app.parse(arguments);
    } catch (const CLI::ParseError& e) {
        throw std::invalid_argument(std::string("--ab: ") + e.what());
    }
    other.properties.insert(other.properties.begin(), config.properties.begin(),
                            config.properties.end());
    if (!other.key_source.given()) other.key_source = config.key_source;
    other.finish();
    return other;
}

LoadedEngine load_engine(const EngineConfig& config, const std::optional<crypto::Key>& key,
                         const Progress& progress) {
    require_model_dir(config.model);
    const std::shared_ptr<ModelFiles> files = open_files(config.model, key);
    files->prefetch("openvino_model.bin");  // decrypted meanwhile
    LoadedEngine loaded;
    loaded.packed_files = files->has("openvino_model.packed");
    loaded.options = config.options;
    EngineOptions& options = loaded.options;
    if (const int64_t context = context_length(*files); context != 0) {
        if (options.max_context > context) {
            throw std::invalid_argument("max_context is " + std::to_string(options.max_context) +
                                        ", but the model was made for " + std::to_string(context) +
                                        " tokens");
        }
        if (options.max_context == 0) options.max_context = context;
    }
    if (config.tuned) {
        std::string warning;
        loaded.tuning = apply_tuning(*files, options, config.given, warning);
        if (!warning.empty()) loaded.warnings.push_back(warning);
    }
    EngineOptions with_progress = options;
    with_progress.progress = progress;
    const auto start = Clock::now();
    loaded.tokenizer = std::make_shared<Tokenizer>(*files, tokenizers_library(config.tokenizers));
    const auto between = Clock::now();
    loaded.engine = std::make_unique<Engine>(files, loaded.tokenizer, with_progress);
    loaded.tokenizer_seconds = std::chrono::duration<double>(between - start).count();
    loaded.engine_seconds = std::chrono::duration<double>(Clock::now() - between).count();
    files->close();
    return loaded;
}

}  // namespace ovfast::bench
