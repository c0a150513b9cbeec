#pragma once

#include <openvino/core/except.hpp>
#include <optional>
#include <string>

#include "apps/bench/device_config.hpp"
#include "apps/bench/key_source.hpp"
#include "apps/bench/options.hpp"
#include "ovfast/error.hpp"

// What benchmark_app's mode finds out before anything is loaded, and encrypted models in it.
namespace ovfast::bench {

/// Finds out now, not after the measuring, that a file cannot be written. Throws
/// std::runtime_error, Error.
void check_outputs(const Options& options);

/// Throws UsageError when several options say what the key is.
void check_keys(const Options& options);

/// Reads the key of -m, if that is encrypted, and of B's, when there is one. Throws as KeySource,
/// and std::runtime_error for an option that would write of an encrypted model in clear or cannot
/// read it.
KeyPair read_keys(const Options& a, const Options* b = nullptr);

/// Throws std::runtime_error when a property, of -load_config, asks for OpenVINO's cache.
void refuse_caches(const Config& config);

/// Calls a function. What OpenVINO says went wrong may quote the graph, and is left out when that
/// is of an encrypted model.
template <typename Function>
auto without_quoting(bool encrypted, const std::string& model, const Function& function) {
    try {
        return function();
    } catch (const ov::Exception&) {
        if (!encrypted) throw;
    }
    throw ModelError("OpenVINO failed on '" + model +
                     "': the reason is not shown, since the model is encrypted");
}

}  // namespace ovfast::bench
