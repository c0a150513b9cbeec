#include "apps/bench/interrupt.hpp"

#include <csignal>

namespace ovfast::bench {
namespace {

volatile std::sig_atomic_t noted = 0;

void note(int number) {
    noted = 1;
    std::signal(number, SIG_DFL);
}

}  // namespace

InterruptGuard::InterruptGuard() {
    std::signal(SIGINT, note);
    std::signal(SIGTERM, note);
}

InterruptGuard::~InterruptGuard() {
    std::signal(SIGINT, SIG_DFL);
    std::signal(SIGTERM, SIG_DFL);
}

bool interrupted() {
    return noted != 0;
}

}  // namespace ovfast::bench
