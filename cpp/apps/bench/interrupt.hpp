#pragma once

namespace ovfast::bench {

/// While it lives, Ctrl+C (SIGINT, SIGTERM) is noted instead of ending the process; a second one
/// ends it at once.
class InterruptGuard {
public:
    InterruptGuard();
    ~InterruptGuard();
    InterruptGuard(const InterruptGuard&) = delete;
    InterruptGuard& operator=(const InterruptGuard&) = delete;
};

/// Whether one came since the first guard.
bool interrupted();

}  // namespace ovfast::bench
