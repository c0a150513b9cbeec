#include "apps/bench/infer_loop.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>

namespace ovfast::bench {
namespace {

using Clock = std::chrono::steady_clock;

/// The requests that do nothing, in the order in which they became idle.
class IdleQueue {
public:
    explicit IdleQueue(size_t requests) : ring_(requests), count_(requests) {
        for (size_t i = 0; i < requests; ++i) ring_[i] = i;
    }

    void put(size_t request) {
        const std::lock_guard lock(mutex_);
        ring_[(first_ + count_) % ring_.size()] = request;
        ++count_;
        // Under the lock: the queue may be gone once the waiting thread has seen the request.
        changed_.notify_one();
    }

    size_t take() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return count_ > 0; });
        const size_t request = ring_[first_];
        first_ = (first_ + 1) % ring_.size();
        --count_;
        return request;
    }

    void wait_for_all() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return count_ == ring_.size(); });
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<size_t> ring_;
    size_t first_ = 0;
    size_t count_;
};

struct Slot {
    Clock::time_point start;
    Clock::time_point end;
    uint32_t group = 0;
    bool used = false;  // holds a latency that was not recorded yet
};

class Loop {
public:
    Loop(Requests& requests, const LoopPlan& plan, const std::function<bool()>& stop,
         std::vector<IterationTrace>* trace)
        : requests_(requests),
          plan_(plan),
          stop_(stop),
          trace_(trace),
          idle_(requests.size()),
          slots_(requests.size()) {
        reserve();
    }

    Measured run();

private:
    void reserve();
    bool wants_more() const;
    void iterate();
    void record(Slot& slot);
    void keep_pace() const;
    void completed(size_t request, std::exception_ptr error);
    void finish();

    Requests& requests_;
    const LoopPlan& plan_;
    const std::function<bool()>& stop_;
    std::vector<IterationTrace>* trace_;
    IdleQueue idle_;
    std::vector<Slot> slots_;
    std::mutex error_mutex_;
    std::exception_ptr error_;
    std::atomic<bool> failed_{false};
    Clock::time_point begin_;
    Clock::duration elapsed_{};
    Measured measured_;
};

/// Room for all latencies, so that the loop need not make any. Memory that is never touched costs
/// nothing.
void Loop::reserve() {
    constexpr uint64_t most_per_second = 1'000'000;
    constexpr uint64_t most = uint64_t{1} << 26;
    const double seconds = std::chrono::duration<double>(plan_.duration).count();
    const uint64_t timed = static_cast<uint64_t>(seconds * most_per_second);
    const uint64_t count =
        std::min(most, std::max(plan_.iterations, timed) + requests_.size() + plan_.align);
    try {
        measured_.latencies_ms.reserve(count);
        if (plan_.keep_groups) measured_.groups.reserve(count);
    } catch (const std::bad_alloc&) {
        // A limit on virtual memory: then they grow as they go.
    }
}

bool Loop::wants_more() const {
    if (stop_() || failed_) return false;
    const uint64_t done = measured_.iterations;
    return (plan_.iterations != 0 && done < plan_.iterations) ||
           (plan_.duration.count() != 0 && elapsed_ < plan_.duration) ||
           (plan_.async && done % plan_.align != 0);
}

void Loop::record(Slot& slot) {
    if (!slot.used) return;
    slot.used = false;
    const std::chrono::duration<double, std::milli> latency = slot.end - slot.start;
    measured_.latencies_ms.push_back(latency.count());
    if (plan_.keep_groups) measured_.groups.push_back(slot.group);
}

void Loop::completed(size_t request, std::exception_ptr error) {
    slots_[request].end = Clock::now();
    if (error) {
        const std::lock_guard lock(error_mutex_);
        if (!error_) error_ = error;
        failed_ = true;
    }
    idle_.put(request);
}

void Loop::iterate() {
    const size_t request = plan_.async ? idle_.take() : 0;
    Slot& slot = slots_[request];
    if (stop_() || failed_) return void(plan_.async ? idle_.put(request) : void());
    const bool traced = trace_ && trace_->size() < trace_->capacity();
    const Clock::time_point ready = slot.end;
    const Clock::time_point taken = traced ? Clock::now() : Clock::time_point{};
    record(slot);
    if (plan_.async) requests_.settle(request);
    if (plan_.set_inputs) requests_.set_inputs(request, measured_.iterations);
    const size_t group = measured_.iterations % plan_.group_frames.size();
    slot.group = static_cast<uint32_t>(group);
    slot.used = true;
    const Clock::time_point start = slot.start = Clock::now();
    if (plan_.async) {
        requests_.start(request);
    } else {
        requests_.infer(request);
        slot.end = Clock::now();
    }
    const Clock::time_point now = Clock::now();
    if (traced) trace_->push_back({request, ready, taken, start, now});
    ++measured_.iterations;
    measured_.frames += plan_.group_frames[group];
    elapsed_ = now - begin_;
    if (plan_.max_rate > 0) keep_pace();
}

/// Sleeps until the frames so far are due. In short turns, for `stop_`.
void Loop::keep_pace() const {
    const std::chrono::duration<double> due(static_cast<double>(measured_.frames) / plan_.max_rate);
    const auto until = begin_ + std::chrono::duration_cast<Clock::duration>(due);
    constexpr std::chrono::milliseconds turn(50);
    for (auto now = Clock::now(); now < until && !stop_() && !failed_; now = Clock::now()) {
        std::this_thread::sleep_until(std::min<Clock::time_point>(until, now + turn));
    }
}

void Loop::finish() {
    if (!plan_.async) return record(slots_[0]);
    idle_.wait_for_all();
    for (size_t i = 0; i < slots_.size(); ++i) {
        // The error is thrown by the caller.
        try {
            requests_.settle(i);
        } catch (...) {
        }
    }
    requests_.on_completed(nullptr);
    for (Slot& slot : slots_) record(slot);
}

Measured Loop::run() {
    if (plan_.async) {
        requests_.on_completed(
            [this](size_t request, std::exception_ptr error) { completed(request, error); });
    }
    begin_ = Clock::now();
    for (Slot& slot : slots_) slot.end = begin_;
    try {
        while (wants_more()) iterate();
    } catch (...) {
        // From start(), settle() or set_inputs(): others still run, and call completed().
        const std::lock_guard lock(error_mutex_);
        if (!error_) error_ = std::current_exception();
    }
    if (error_ && plan_.async) {
        for (size_t i = 0; i < slots_.size(); ++i) {
            try {
                requests_.settle(i);
            } catch (...) {
            }
        }
        requests_.on_completed(nullptr);
    } else {
        finish();
    }
    if (error_) std::rethrow_exception(error_);
    Clock::time_point last = begin_;
    for (const Slot& slot : slots_) last = std::max(last, slot.end);
    measured_.duration_ms = std::chrono::duration<double, std::milli>(last - begin_).count();
    measured_.interrupted = stop_();
    return std::move(measured_);
}

}  // namespace

Measured run_loop(Requests& requests, const LoopPlan& plan, const std::function<bool()>& stop,
                  std::vector<IterationTrace>* trace) {
    return Loop(requests, plan, stop, trace).run();
}

}  // namespace ovfast::bench
