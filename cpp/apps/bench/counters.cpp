#include "apps/bench/counters.hpp"

#include <algorithm>
#include <array>
#include <iomanip>
#include <iostream>
#include <unordered_map>

#include "apps/bench/console.hpp"

namespace ovfast::bench {
namespace {

using std::chrono::microseconds;

double milliseconds(microseconds time) {
    return time.count() / 1000.0;
}

std::string shortened(const std::string& name) {
    constexpr size_t longest = 20;
    return name.size() >= longest ? name.substr(0, longest - 4) + "..." : name;
}

/// "name  EXECUTED  layerType: ...  execType: ...  realTime (ms): ...  cpuTime (ms): ...".
void print_layer(const ov::ProfilingInfo& layer) {
    std::cout << std::left << std::setw(20) << shortened(layer.node_name) << ' ' << std::setw(20)
              << status_name(layer.status) << " layerType: " << std::setw(20)
              << shortened(layer.node_type) << " execType: " << std::setw(20) << layer.exec_type
              << " realTime (ms): " << std::setw(10) << fixed(milliseconds(layer.real_time), 3)
              << " cpuTime (ms): " << std::setw(10) << fixed(milliseconds(layer.cpu_time), 3);
}

}  // namespace

CounterTotals totals(const Counters& layers) {
    CounterTotals sum;
    for (const ov::ProfilingInfo& layer : layers) {
        sum.real += layer.real_time;
        sum.cpu += layer.cpu_time;
    }
    return sum;
}

std::string status_name(ov::ProfilingInfo::Status status) {
    switch (status) {
        case ov::ProfilingInfo::Status::NOT_RUN:
            return "NOT_RUN";
        case ov::ProfilingInfo::Status::OPTIMIZED_OUT:
            return "OPTIMIZED_OUT";
        case ov::ProfilingInfo::Status::EXECUTED:
            return "EXECUTED";
    }
    return "INVALID_STATUS";
}

double share(const ov::ProfilingInfo& layer, const CounterTotals& all) {
    const double total = milliseconds(all.real);
    return total > 0 ? milliseconds(layer.real_time) / total : 0;
}

Counters sorted(Counters layers, const std::string& order) {
    if (order == "simple_sort") {
        layers.erase(std::remove_if(layers.begin(), layers.end(),
                                    [](const ov::ProfilingInfo& layer) {
                                        return layer.status == ov::ProfilingInfo::Status::NOT_RUN;
                                    }),
                     layers.end());
    }
    if (order != "no_sort") {
        std::stable_sort(layers.begin(), layers.end(),
                         [](const ov::ProfilingInfo& a, const ov::ProfilingInfo& b) {
                             return a.real_time > b.real_time;
                         });
    }
    return layers;
}

Counters averaged(const std::vector<Counters>& requests) {
    Counters mean;
    std::unordered_map<std::string, size_t> places;
    for (const Counters& layers : requests) {
        for (const ov::ProfilingInfo& layer : layers) {
            const auto [place, is_new] = places.emplace(layer.node_name, mean.size());
            if (is_new) {
                mean.push_back(layer);
            } else {
                mean[place->second].real_time += layer.real_time;
                mean[place->second].cpu_time += layer.cpu_time;
            }
        }
    }
    const auto count = static_cast<microseconds::rep>(std::max<size_t>(requests.size(), 1));
    for (ov::ProfilingInfo& layer : mean) {
        layer.real_time /= count;
        layer.cpu_time /= count;
    }
    return mean;
}

void print_counters(const Counters& layers, size_t request) {
    log_info("Performance counts for " + std::to_string(request) + "-th infer request");
    for (const ov::ProfilingInfo& layer : layers) {
        print_layer(layer);
        std::cout << '\n';
    }
    const CounterTotals all = totals(layers);
    std::cout << "Total time:     " << fixed(milliseconds(all.real), 3) << " milliseconds\n"
              << "Total CPU time: " << fixed(milliseconds(all.cpu), 3) << " milliseconds\n"
              << std::endl;
}

void print_sorted_counters(const Counters& layers, size_t request, const std::string& order) {
    log_info("Performance counts sorted for " + std::to_string(request) + "-th infer request");
    const CounterTotals all = totals(layers);
    double printed = 0;
    for (const ov::ProfilingInfo& layer : sorted(layers, order)) {
        const double part = share(layer, all);
        const std::string percent = fixed(100 * part);
        printed += part;
        print_layer(layer);
        std::cout << "proportion: " << std::setw(8) << (percent == "0.00" ? "N/A" : percent) + "%"
                  << '\n';
    }
    std::cout << "Total time:       " << fixed(milliseconds(all.real), 3) << " milliseconds\n"
              << "Total CPU time:   " << fixed(milliseconds(all.cpu), 3) << " milliseconds\n"
              << "Total proportion: " << fixed(100 * printed) << " % \n"
              << std::endl;
}

}  // namespace ovfast::bench
