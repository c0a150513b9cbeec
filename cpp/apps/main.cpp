#include <cstring>
#include <initializer_list>

#include "apps/bench/app.hpp"
#include "apps/bench/compare.hpp"
#include "apps/bench/devices.hpp"
#include "apps/bench/llm.hpp"
#include "apps/bench/roofline.hpp"

// The first argument may name a mode of its own; anything else is a command line of benchmark_app.
int main(int argc, char** argv) {
    struct Mode {
        const char* name;
        int (*main)(int argc, char** argv);
    };
    for (const Mode& mode :
         {Mode{"llm", ovfast::bench::llm_main}, Mode{"compare", ovfast::bench::compare_main},
          Mode{"devices", ovfast::bench::devices_main},
          Mode{"roofline", ovfast::bench::roofline_main}}) {
        if (argc > 1 && std::strcmp(argv[1], mode.name) == 0) return mode.main(argc - 1, argv + 1);
    }
    return ovfast::bench::app_main(argc, argv);
}
