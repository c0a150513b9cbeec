#pragma once

#include <string>

#include "apps/bench/llm_report.hpp"

namespace ovfast::bench {

/// The report as one HTML page that needs nothing else: tables, and plots as inline SVG. Light or
/// dark as the reader's system is.
std::string llm_html(const LlmReport& report);

}  // namespace ovfast::bench
