#include "engine/request.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace ovfast {
namespace {

double seconds(RequestState::Clock::duration duration) {
    return std::chrono::duration<double>(duration).count();
}

// The clock overflows when milliseconds::max() is added to it.
std::chrono::milliseconds bounded(std::chrono::milliseconds timeout) {
    return std::min(timeout, std::chrono::milliseconds(std::chrono::hours(24 * 365)));
}

template <typename T>
void append(std::vector<T>& to, const std::vector<T>& from) {
    to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

RequestState::RequestState(std::vector<int64_t> prompt, SamplingParams sampling,
                           std::shared_ptr<std::atomic<bool>> any_cancelled)
    : prompt_ids(std::move(prompt)),
      params(std::move(sampling)),
      answers_(static_cast<size_t>(params.n)),
      last_token_(static_cast<size_t>(params.n)),
      inter_token_(static_cast<size_t>(params.n)),
      running_(static_cast<size_t>(params.n)),
      any_cancelled_(std::move(any_cancelled)) {
    metrics_.prompt_tokens = static_cast<int64_t>(prompt_ids.size());
}

std::vector<Delta> RequestState::next(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    ++readers_;
    changed_.wait_for(lock, bounded(timeout), [&] { return !pending_.empty() || running_ == 0; });
    --readers_;
    // Pieces that came before a failure are still handed out.
    if (pending_.empty() && error_) {
        error_told_ = true;
        rethrow();
    }
    return std::exchange(pending_, {});
}

bool RequestState::wait(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    const bool ended = changed_.wait_for(lock, bounded(timeout), [&] { return running_ == 0; });
    if (ended) rethrow();
    return ended;
}

bool RequestState::done() const {
    const std::lock_guard lock(mutex_);
    return running_ == 0 && pending_.empty() && (!error_ || error_told_);
}

bool RequestState::ended() const {
    const std::lock_guard lock(mutex_);
    return running_ == 0;
}

void RequestState::cancel() {
    cancelled_ = true;
    *any_cancelled_ = true;
}

const std::vector<Answer>& RequestState::answers() const {
    require_ended();
    return answers_;
}

const RequestMetrics& RequestState::metrics() const {
    require_ended();
    return metrics_;
}

void RequestState::require_ended() const {
    const std::lock_guard lock(mutex_);
    if (running_ != 0) throw std::logic_error("the request has not ended; wait() for it first");
}

void RequestState::rethrow() const {
    if (error_) std::rethrow_exception(error_);
}

void RequestState::scheduled(int64_t cached_tokens) {
    const std::lock_guard lock(mutex_);
    if (scheduled_) return;  // it was preempted and comes back
    scheduled_ = true;
    metrics_.queue_seconds = seconds(Clock::now() - submitted);
    metrics_.cached_tokens = cached_tokens;
}

void RequestState::stepped(uint64_t step, double infer_seconds) {
    const std::lock_guard lock(mutex_);
    if (step == last_step_) return;  // another of its answers took part in the same step
    last_step_ = step;
    metrics_.infer_seconds += infer_seconds;
    ++metrics_.steps;
}

void RequestState::preempted() {
    const std::lock_guard lock(mutex_);
    ++metrics_.preemptions;
}

void RequestState::add(Delta delta, const std::string& stop_string) {
    const std::lock_guard lock(mutex_);
    const auto now = Clock::now();
    Answer& answer = answers_[delta.answer];
    if (!delta.token_ids.empty()) {
        if (metrics_.generated_tokens == 0) metrics_.ttft_seconds = seconds(now - submitted);
        if (!answer.token_ids.empty()) {
            inter_token_[delta.answer].push_back(
                static_cast<float>(seconds(now - last_token_[delta.answer])));
        }
        last_token_[delta.answer] = now;
        metrics_.generated_tokens += static_cast<int64_t>(delta.token_ids.size());
    }
    answer.text += delta.text;
    append(answer.token_ids, delta.token_ids);
    append(answer.logprobs, delta.logprobs);
    if (delta.finish_reason != FinishReason::kRunning) {
        answer.finish_reason = delta.finish_reason;
        answer.stop_string = stop_string;
        if (--running_ == 0) {
            metrics_.total_seconds = seconds(now - submitted);
            for (const auto& times : inter_token_) append(metrics_.inter_token_seconds, times);
        }
    }

    // Pieces nobody fetched yet grow together, so a request that is only waited for keeps one for
    // each answer.
    const auto last = std::find_if(pending_.rbegin(), pending_.rend(), [&](const Delta& piece) {
        return piece.answer == delta.answer;
    });
    if (last != pending_.rend() && last->finish_reason == FinishReason::kRunning) {
        last->text += delta.text;
        append(last->token_ids, delta.token_ids);
        append(last->logprobs, delta.logprobs);
        last->finish_reason = delta.finish_reason;
    } else {
        pending_.push_back(std::move(delta));
    }
    // A thread woken for nothing takes a core from the next step.
    if (running_ == 0 || readers_ > 0) changed_.notify_all();
}

void RequestState::end(FinishReason reason, std::exception_ptr error) {
    {
        const std::lock_guard lock(mutex_);
        if (running_ == 0) return;
        error_ = std::move(error);
    }
    for (size_t i = 0; i < answers_.size(); ++i) {
        if (answers_[i].finish_reason != FinishReason::kRunning) continue;
        Delta last;
        last.answer = i;
        last.finish_reason = reason;
        add(std::move(last));
    }
}

}  // namespace ovfast
