#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "apps/bench/key_source.hpp"
#include "apps/bench/tuning.hpp"
#include "ovfast/engine.hpp"
#include "ovfast/text.hpp"

namespace ovfast::bench {

/// A model and how it is loaded.
struct EngineConfig {
    std::string model;
    EngineOptions options;
    std::string tokenizers;               ///< library of openvino_tokenizers; empty: the wheel's
    std::vector<std::string> properties;  ///< KEY=VALUE
    bool no_prefix_caching = false;
    bool tuned = true;            ///< apply what `ovfast tune` stored
    std::set<std::string> given;  ///< options that were given and that a tuning may decide
    KeySource key_source;

    /// Fills options.properties and prefix_caching; only the CPU runs packed weights. Throws
    /// std::invalid_argument.
    void finish();
    /// What differs from the defaults, "threads=1 attention=openvino"; empty when nothing does.
    std::string text() const;
};

/// Adds the options of EngineConfig to a command, with the names of `ovfast run`.
void add_engine_options(CLI::App& app, EngineConfig& config);

/// B of an A/B measurement: A's configuration with some of it changed. Each text is a list of
/// KEY=VALUE, separated by commas, or the name of a JSON file with an object; keys are long names
/// of the options above without dashes, "model" and "property" ({"KEY": "VALUE"} in JSON) included.
/// Throws std::invalid_argument naming the key, Error for a file that cannot be read.
EngineConfig changed(const EngineConfig& config, const std::vector<std::string>& changes);

struct LoadedEngine {
    std::shared_ptr<const Tokenizer> tokenizer;
    std::unique_ptr<Engine> engine;
    EngineOptions options;         ///< as the engine got them
    std::optional<Tuning> tuning;  ///< what was applied of `ovfast tune`
    std::vector<std::string> warnings;
    bool packed_files = false;  ///< the directory holds packed weights
    double tokenizer_seconds = 0.0;
    double engine_seconds = 0.0;  ///< packing, reading, rewriting, compiling
};

/// Loads a model with the key of an encrypted one. Its own context, as config.json names it, bounds
/// max_context. Throws ModelError, DecryptionError, CapacityError, std::invalid_argument.
LoadedEngine load_engine(const EngineConfig& config, const std::optional<crypto::Key>& key,
                         const Progress& progress);

}  // namespace ovfast::bench
