#pragma once

#include <atomic>

namespace ovfast::bench {

/// While it lives, the first Ctrl+C (SIGINT) asks to stop; the second ends the process as usual.
/// There may be one at a time.
class InterruptGuard {
public:
    InterruptGuard();
    ~InterruptGuard();
    InterruptGuard(const InterruptGuard&) = delete;
    InterruptGuard& operator=(const InterruptGuard&) = delete;

    const std::atomic<bool>& requested() const;
};

}  // namespace ovfast::bench
