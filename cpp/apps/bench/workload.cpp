#include "apps/bench/workload.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <sstream>
#include <thread>

namespace ovfast::bench {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

double seconds_between(Clock::time_point start, Clock::time_point end) {
    return std::chrono::duration<double>(end - start).count();
}

// One run: threads that submit and wait, and the caller's, which watches.
class Run {
public:
    Run(Engine& engine, const Workload& workload, std::vector<std::vector<int64_t>> prompts,
        bool (*stop)())
        : engine_(engine), stop_(stop), prompts_(std::move(prompts)), slots_(prompts_.size()) {
        params_.max_new_tokens = workload.output_tokens;
        params_.ignore_eos = true;
    }

    RunResult run(int64_t concurrency, const std::vector<double>& arrivals,
                  const std::function<void(const RunProgress&)>& shown) {
        start_ = Clock::now();
        std::vector<std::thread> threads;
        if (concurrency > 0) {
            const auto clients = std::min<size_t>(static_cast<size_t>(concurrency), slots_.size());
            working_ = clients;
            for (size_t i = 0; i < clients; ++i) threads.emplace_back([this] { client(); });
        } else {
            working_ = 1;
            threads.emplace_back([&] { arrive(arrivals); });
        }
        watch(shown);
        for (std::thread& thread : threads) thread.join();
        if (error_) std::rethrow_exception(error_);
        return result();
    }

private:
    struct Slot {
        std::shared_ptr<Request> request;
        Clock::time_point submitted, ended;
    };

    // Submits one request after the other, each when the one before has ended.
    void client() {
        guarded([this] {
            while (!stopping()) {
                const size_t index = next_++;
                if (index >= slots_.size()) return;
                submit(index);
                finish(index);
            }
        });
    }

    // Submits each request at its time, however many are not done yet.
    void arrive(const std::vector<double>& arrivals) {
        guarded([&] {
            size_t count = 0;
            for (; count < slots_.size(); ++count) {
                const auto due = start_ + std::chrono::duration_cast<Clock::duration>(
                                              std::chrono::duration<double>(arrivals.at(count)));
                std::unique_lock lock(mutex_);
                if (changed_.wait_until(lock, due, [this] { return stopped_; })) break;
                lock.unlock();
                submit(count);
                for (size_t i = 0; i < count; ++i) note_end(i);
            }
            for (size_t i = 0; i < count; ++i) finish(i);
        });
    }

    void submit(size_t index) {
        Slot& slot = slots_[index];
        slot.submitted = Clock::now();
        auto request = engine_.submit(std::move(prompts_[index]), params_);
        const std::lock_guard lock(mutex_);
        slot.request = std::move(request);
        if (stopped_) slot.request->cancel();
        ++progress_.submitted;
    }

    void finish(size_t index) {
        Slot& slot = slots_[index];
        while (!slot.request->wait(std::chrono::hours(1))) {
        }
        note_end(index);
    }

    void note_end(size_t index) {
        Slot& slot = slots_[index];
        if (slot.ended != Clock::time_point() || !slot.request->wait(milliseconds(0))) return;
        const double seconds = slot.request->metrics().total_seconds;
        slot.ended = slot.submitted + std::chrono::duration_cast<Clock::duration>(
                                          std::chrono::duration<double>(seconds));
        progress_.generated += slot.request->metrics().generated_tokens;
        ++progress_.ended;
    }

    template <typename Work>
    void guarded(const Work& work) {
        try {
            work();
        } catch (...) {
            const std::lock_guard lock(mutex_);
            if (!error_) error_ = std::current_exception();
            cancel_all();
        }
        const std::lock_guard lock(mutex_);
        --working_;
        changed_.notify_all();
    }

    void watch(const std::function<void(const RunProgress&)>& shown) {
        shown(progress_);
        std::unique_lock lock(mutex_);
        while (!changed_.wait_for(lock, milliseconds(100), [this] { return working_ == 0; })) {
            if (stop_() && !stopped_) cancel_all();
            lock.unlock();
            shown(progress_);
            lock.lock();
        }
    }

    bool stopping() {
        const std::lock_guard lock(mutex_);
        return stopped_ || stop_();
    }

    // Under the lock.
    void cancel_all() {
        stopped_ = true;
        for (const Slot& slot : slots_) {
            if (slot.request) slot.request->cancel();
        }
        changed_.notify_all();
    }

    RunResult result() const {
        RunResult run;
        std::optional<Clock::time_point> first;
        Clock::time_point last = start_;
        for (const Slot& slot : slots_) {
            if (!slot.request) continue;
            RequestResult one;
            one.metrics = slot.request->metrics();
            one.done = slot.request->answers().front().finish_reason == FinishReason::kLength;
            one.submitted = seconds_between(start_, slot.submitted);
            run.requests.push_back(std::move(one));
            if (!first || slot.submitted < *first) first = slot.submitted;
            last = std::max(last, slot.ended);
        }
        if (first) run.seconds = seconds_between(*first, last);
        return run;
    }

    Engine& engine_;
    bool (*stop_)();
    SamplingParams params_;
    std::vector<std::vector<int64_t>> prompts_;
    std::vector<Slot> slots_;
    std::atomic<size_t> next_{0};
    Clock::time_point start_;
    RunProgress progress_;

    std::mutex mutex_;
    std::condition_variable changed_;
    size_t working_ = 0;
    bool stopped_ = false;
    std::exception_ptr error_;
};

}  // namespace

std::string Workload::text() const {
    std::ostringstream text;
    text << "prompt ";
    if (prompt_tokens > 0) {
        text << prompt_tokens;
    } else {
        text << "of the file";
    }
    text << ", output " << output_tokens;
    if (rate > 0.0) {
        text << ", " << rate << " requests/s";
    } else {
        text << ", concurrency " << concurrency;
    }
    return text.str();
}

bool Workload::operator==(const Workload& other) const {
    return prompt_tokens == other.prompt_tokens && output_tokens == other.output_tokens &&
           concurrency == other.concurrency && rate == other.rate;
}

double RequestResult::tpot() const {
    if (metrics.generated_tokens < 2) return 0.0;
    return (metrics.total_seconds - metrics.ttft_seconds) /
           static_cast<double>(metrics.generated_tokens - 1);
}

RunResult run_workload(Engine& engine, const Workload& workload,
                       std::vector<std::vector<int64_t>> prompts,
                       const std::vector<double>& arrivals, bool (*stop)(),
                       const std::function<void(const RunProgress&)>& shown) {
    return Run(engine, workload, std::move(prompts), stop)
        .run(workload.concurrency, arrivals, shown);
}

int64_t peak_kv_tokens(const RunResult& run, int64_t block_tokens) {
    struct Change {
        double time;
        int64_t tokens;
    };
    std::vector<Change> changes;
    for (const RequestResult& request : run.requests) {
        const RequestMetrics& metrics = request.metrics;
        const int64_t tokens = metrics.prompt_tokens + metrics.generated_tokens;
        const int64_t held = (tokens + block_tokens - 1) / block_tokens * block_tokens;
        changes.push_back({request.submitted + metrics.queue_seconds, held});
        changes.push_back({request.submitted + metrics.total_seconds, -held});
    }
    // What ends makes room for what begins at the same time.
    std::sort(changes.begin(), changes.end(), [](const Change& a, const Change& b) {
        return a.time != b.time ? a.time < b.time : a.tokens < b.tokens;
    });
    int64_t held = 0;
    int64_t most = 0;
    for (const Change& change : changes) most = std::max(most, held += change.tokens);
    return most;
}

}  // namespace ovfast::bench
