#include "apps/bench/app.hpp"

#include <iostream>

#include "apps/bench/console.hpp"
#include "apps/bench/options.hpp"

namespace ovfast::bench {

int app_main(int argc, char** argv) {
    Steps steps;
    steps.next();
    log_info("Parsing input parameters");
    try {
        const Options options = parse_options(argc, argv);
        if (options.help) std::cout << usage();
    } catch (const UsageError& error) {
        std::cerr << "ovfast-bench: error: " << error.what() << std::endl;
        return exit_usage;
    }
    return exit_success;
}

}  // namespace ovfast::bench
