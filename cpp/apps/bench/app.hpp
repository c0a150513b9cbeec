#pragma once

namespace ovfast::bench {

/// Exit codes. benchmark_app in C++ ends with 3 on errors, a shell sees 130 after Ctrl+C.
enum ExitCode { exit_success = 0, exit_usage = 2, exit_failure = 3, exit_interrupted = 130 };

/// The benchmark_app mode: the whole program but main().
int app_main(int argc, char** argv);

}  // namespace ovfast::bench
