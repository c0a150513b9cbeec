#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <vector>

namespace ovfast::bench {

/// The infer requests that a loop drives, numbered from 0.
class Requests {
public:
    using Completed = std::function<void(size_t request, std::exception_ptr error)>;

    virtual ~Requests() = default;
    virtual size_t size() const = 0;
    /// Gives the request the inputs of that turn.
    virtual void set_inputs(size_t request, uint64_t turn) = 0;
    /// Runs the request and returns when it is done.
    virtual void infer(size_t request) = 0;
    /// Starts the request; `completed` is called from any thread when it is done.
    virtual void start(size_t request) = 0;
    /// Returns when the call of `completed` for the request has returned too. Called before the
    /// request is used again.
    virtual void settle(size_t request) = 0;
    /// Sets what start() calls; null for nothing. No request may be running.
    virtual void on_completed(Completed completed) = 0;
};

/// How long a loop goes on and what it does. With several limits all must be reached.
struct LoopPlan {
    bool async = true;
    bool set_inputs = false;              // set the inputs for each inference
    uint64_t iterations = 0;              // 0: no limit
    std::chrono::nanoseconds duration{};  // 0: no limit
    size_t align = 1;                     // asynchronous: the iterations end at a multiple of this
    double max_rate = 0;                  // frames a second; 0: no limit
    std::vector<size_t> group_frames = {1};  // frames of an inference, by group of shapes
    bool keep_groups = false;                // note the group of each latency
};

/// One iteration, for those who look into the loop.
struct IterationTrace {
    using Time = std::chrono::steady_clock::time_point;
    size_t request;
    Time ready;     // the request was put back among the idle ones
    Time taken;     // the loop took it
    Time started;   // just before start()
    Time returned;  // just after
};

struct Measured {
    std::vector<double> latencies_ms;  // from start to completion, which includes queueing
    std::vector<uint32_t> groups;      // of each latency, when keep_groups
    double duration_ms = 0;            // from taking the first request to the end of the last
    uint64_t iterations = 0;
    uint64_t frames = 0;
    bool interrupted = false;

    double frames_per_second() const {
        return duration_ms > 0 ? 1000.0 * static_cast<double>(frames) / duration_ms : 0;
    }
};

/// Measures until the limits are reached or `stop` returns true, then waits for what is running.
/// Nothing is allocated in the loop; `trace` takes as many iterations as it has capacity for.
/// Throws the first error of a request.
Measured run_loop(Requests& requests, const LoopPlan& plan, const std::function<bool()>& stop,
                  std::vector<IterationTrace>* trace = nullptr);

}  // namespace ovfast::bench
