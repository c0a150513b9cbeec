#include "apps/bench/app.hpp"

// The first argument may name a mode of its own; anything else is a command line of benchmark_app.
int main(int argc, char** argv) {
    return ovfast::bench::app_main(argc, argv);
}
