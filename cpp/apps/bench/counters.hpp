#pragma once

#include <string>
#include <vector>

#include "apps/bench/report.hpp"

namespace ovfast::bench {

/// Sums of the layers' times.
struct CounterTotals {
    std::chrono::microseconds real{};
    std::chrono::microseconds cpu{};
};
CounterTotals totals(const Counters& layers);

/// "EXECUTED", "NOT_RUN" or "OPTIMIZED_OUT".
std::string status_name(ov::ProfilingInfo::Status status);

/// The share of a layer in the total real time, 0 to 1.
double share(const ov::ProfilingInfo& layer, const CounterTotals& all);

/// Layers in the order that -pcsort asks for: "sort", "no_sort" or "simple_sort".
Counters sorted(Counters layers, const std::string& order);

/// The mean over requests of each layer's times.
Counters averaged(const std::vector<Counters>& requests);

/// Prints a line for each layer and the totals, for the request of that number.
void print_counters(const Counters& layers, size_t request);
/// The same in the order of -pcsort, with each layer's share.
void print_sorted_counters(const Counters& layers, size_t request, const std::string& order);

}  // namespace ovfast::bench
