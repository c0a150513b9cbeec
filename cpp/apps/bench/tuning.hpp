#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>

#include "ovfast/engine.hpp"

namespace ovfast::bench {

/// What `ovfast tune` stored for a model on this machine, and what of it was applied: as
/// python/ovfast/tuning.py reads and applies it.
struct Tuning {
    std::string made;          ///< when it was measured, ISO 8601
    nlohmann::json applied;    ///< option -> value, what the caller did not decide; may be empty
    std::string text() const;  ///< "tile_kb=128 attention=openvino", or "the defaults"
};

/// Sets the options that were chosen for a model and are not among `given`, names of options that
/// the caller decided. Nothing when nothing is stored or it was measured with other operations.
/// What is stored and cannot be used is nothing, too, with a `warning`.
std::optional<Tuning> apply_tuning(const ModelFiles& files, EngineOptions& options,
                                   const std::set<std::string>& given, std::string& warning);

/// The file that holds the choice for a model on this machine, whether it is there or not; empty
/// where there is no cache.
std::filesystem::path tuning_path(const ModelFiles& files);

/// JSON as Python's json.dumps(value, sort_keys=True) writes it, of which the file's sums are.
std::string python_json(const nlohmann::json& value);

}  // namespace ovfast::bench
