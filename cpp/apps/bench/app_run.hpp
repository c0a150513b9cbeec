#pragma once

#include "apps/bench/app.hpp"
#include "apps/bench/console.hpp"
#include "apps/bench/options.hpp"
#include "apps/bench/report.hpp"

namespace ovfast::bench {

/// The steps after the first, of options that were checked. Throws what goes wrong; `report`, which
/// may be null, then has what was learnt before.
ExitCode run_app(const Options& options, Steps& steps, Report* report);

/// -ab: two configurations in alternation.
ExitCode run_ab(const Options& a, const Options& b, Steps& steps);

}  // namespace ovfast::bench
