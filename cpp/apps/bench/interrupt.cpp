#include "apps/bench/interrupt.hpp"

#include <csignal>

namespace ovfast::bench {
namespace {

std::atomic<bool> interrupted{false};
struct sigaction before;

static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler sets it");

void handle(int) {
    interrupted = true;
}

}  // namespace

InterruptGuard::InterruptGuard() {
    interrupted = false;
    struct sigaction action = {};
    action.sa_handler = handle;
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESETHAND | SA_RESTART;
    sigaction(SIGINT, &action, &before);
}

InterruptGuard::~InterruptGuard() {
    sigaction(SIGINT, &before, nullptr);
}

const std::atomic<bool>& InterruptGuard::requested() const {
    return interrupted;
}

}  // namespace ovfast::bench
