#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <openvino/runtime/profiling_info.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/bench/graph_costs.hpp"
#include "apps/bench/machine.hpp"
#include "ovfast/crypto.hpp"

namespace ovfast::bench {

/// The time that the machine needs for some work at least: its bytes at the rate of memory, or its
/// operations at the peak rates, whichever takes longer.
struct Limit {
    double memory_seconds = 0.0;
    double compute_seconds = 0.0;

    double seconds() const { return std::max(memory_seconds, compute_seconds); }
    const char* bound() const { return memory_seconds >= compute_seconds ? "memory" : "compute"; }
};
Limit limit_of(const Work& work, const MachineLimits& machine);

/// A piece of work that was measured: a step, an inference, a layer.
struct RooflineRow {
    std::string name, type;
    int count = 1;  ///< operations in it
    Work work;
    double seconds = 0.0;  ///< measured; 0: not
};
/// Limit over measured time: the share of what is possible that was reached; 0 without either.
double share(const RooflineRow& row, const MachineLimits& machine);

/// Times of operations, joined with their work by name, the slowest first. What has no counted work
/// comes as one row "other operations". `times` are seconds by name.
std::vector<RooflineRow> join_layers(
    const GraphCosts& costs, const std::function<std::optional<Work>(const NodeCost&)>& work,
    const std::map<std::string, double>& times);
/// Rows of layers of the same name but for the number of their block ("layers.3.", "blk.3.")
/// become one, with sums.
std::vector<RooflineRow> by_kind(const std::vector<RooflineRow>& rows);

/// "memory reads at 23.1 GB/s, int8 502 GOPS (vpdpbusd zmm), f32 120 GFLOPS (...)".
std::string describe(const MachineLimits& machine);
/// A table for people: name, count, ms, MB, GOP, limit ms, bound, share.
std::string table(const std::vector<RooflineRow>& rows, const MachineLimits& machine);
nlohmann::ordered_json to_json(const MachineLimits& machine);
nlohmann::ordered_json to_json(const RooflineRow& row, const MachineLimits& machine);
/// Bytes of weights by element type, sum and what was not counted.
nlohmann::ordered_json to_json(const GraphCosts& costs);
std::string describe(const GraphCosts& costs);

/// Whether all that the work reads lies in the caches, where memory is no limit: a sentence to say
/// so, else empty.
std::string cache_note(double bytes);

/// Reads a model with ovfast's operations known: a file, or openvino_model.xml of a directory, with
/// the key of an encrypted one. Throws ModelError, DecryptionError.
std::shared_ptr<ov::Model> read_for_counting(const std::string& model,
                                             const std::optional<crypto::Key>& key = {});

/// The table of an inference of which one ends every `seconds`, and of its layers when `layers` has
/// their counters (empty: not measured). A layer runs on one of `streams`, which share the machine.
std::string inference_roofline(const std::shared_ptr<const ov::Model>& model, double seconds,
                               const std::vector<ov::ProfilingInfo>& layers,
                               const MachineLimits& machine, int streams);

/// `ovfast-bench roofline`: the limits of this machine, and of a model on it.
int roofline_main(int argc, char** argv);

}  // namespace ovfast::bench
