#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/bench/llm_report.hpp"

namespace ovfast::bench {

/// Compares reports: of `ovfast-bench llm --json` (each run of a workload that both have is a
/// value), or of benchmark_app's JSON (each file is a value). Several reports of a side add up.
/// Throws ovfast::Error naming the file: no report, one with an error, another mode than the first,
/// one with two configurations, or nothing in common.
std::vector<Comparison> compare_reports(const std::vector<std::string>& a,
                                        const std::vector<std::string>& b);

/// `ovfast-bench compare A.json B.json`. Exit codes: 0 done, 1 error, 2 wrong usage.
int compare_main(int argc, char** argv);

}  // namespace ovfast::bench
