#pragma once

#include <string>
#include <string_view>

namespace ovfast::bench {

/// Lines as benchmark_app writes them, to stdout: "[ INFO ] text".
void log_info(std::string_view text);
void log_warning(std::string_view text);
void log_error(std::string_view text);

/// The eleven steps of a run, numbered as they are announced: "[Step 1/11] Parsing and ...".
class Steps {
public:
    /// Announces the next step; `info` follows its name in parentheses.
    void next(std::string_view info = {});

private:
    int step_ = 0;
};

/// A number with `digits` decimals, "1.50".
std::string fixed(double value, int digits = 2);

/// The highest virtual memory of this process so far, KiB (VmPeak).
long peak_virtual_kib();

}  // namespace ovfast::bench
