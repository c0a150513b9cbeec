#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include "ovfast/engine.hpp"

namespace ovfast {

/// What the engine and the holders of a request share. The engine's thread writes, others read.
class RequestState {
public:
    using Clock = std::chrono::steady_clock;

    /// `any_cancelled` tells the engine that one of its requests was cancelled, so that it need not
    /// ask each of thousands at every step.
    RequestState(std::vector<int64_t> prompt, SamplingParams sampling,
                 std::shared_ptr<std::atomic<bool>> any_cancelled);

    const std::vector<int64_t> prompt_ids;
    const SamplingParams params;
    const Clock::time_point submitted = Clock::now();

    // Side of the holders.
    std::vector<Delta> next(std::chrono::milliseconds timeout);
    bool wait(std::chrono::milliseconds timeout);
    bool done() const;
    bool ended() const;
    void cancel();
    const std::vector<Answer>& answers() const;
    const RequestMetrics& metrics() const;

    // Side of the engine's thread.
    bool cancelled() const { return cancelled_; }
    /// The request starts to run; the keys and values of `cached_tokens` are there already.
    void scheduled(int64_t cached_tokens);
    void stepped(uint64_t step, double infer_seconds);
    void preempted();
    /// Adds a piece to its answer and to what next() hands out. A piece with a finish reason ends
    /// its answer, and the last answer ends the request.
    void add(Delta delta, const std::string& stop_string = {});
    /// Ends every answer that still runs. `error` is rethrown to the holders.
    void end(FinishReason reason, std::exception_ptr error = nullptr);

private:
    void require_ended() const;
    void rethrow() const;

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<Delta> pending_;
    std::vector<Answer> answers_;
    std::vector<Clock::time_point> last_token_;    ///< of each answer
    std::vector<std::vector<float>> inter_token_;  ///< of each answer
    RequestMetrics metrics_;
    std::exception_ptr error_;
    bool error_told_ = false;  ///< next() threw error_
    bool scheduled_ = false;
    uint64_t last_step_ = 0;
    size_t running_ = 0;  ///< answers that have not ended
    int readers_ = 0;     ///< threads inside next(): only they are woken for each token
    std::atomic<bool> cancelled_{false};
    const std::shared_ptr<std::atomic<bool>> any_cancelled_;
};

}  // namespace ovfast
