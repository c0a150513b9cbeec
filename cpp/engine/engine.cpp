#include "ovfast/engine.hpp"

#include <malloc.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "engine/decoder_model.hpp"
#include "engine/request.hpp"
#include "engine/scheduler.hpp"
#include "engine/sequence.hpp"
#include "ovfast/error.hpp"

namespace ovfast {
namespace {

using Clock = std::chrono::steady_clock;

EngineOptions to_keep(EngineOptions options, const Tokenizer& tokenizer) {
    if (options.eos_token_ids.empty() && tokenizer.eos_token_id()) {
        options.eos_token_ids = {*tokenizer.eos_token_id()};
    }
    options.progress = nullptr;  // the caller's, for the time of loading
    return options;
}

// The handle that callers hold. The engine holds the state only: when the last handle goes, nobody
// can read the answer any more, so the request is cancelled.
class RequestHandle final : public Request {
public:
    explicit RequestHandle(std::shared_ptr<RequestState> state) : state_(std::move(state)) {}
    ~RequestHandle() override {
        if (!state_->ended()) state_->cancel();
    }

    std::vector<Delta> next(std::chrono::milliseconds timeout) override {
        return state_->next(timeout);
    }
    bool wait(std::chrono::milliseconds timeout) override { return state_->wait(timeout); }
    bool done() const override { return state_->done(); }
    void cancel() override { state_->cancel(); }
    const std::vector<Answer>& answers() const override { return state_->answers(); }
    const RequestMetrics& metrics() const override { return state_->metrics(); }

private:
    std::shared_ptr<RequestState> state_;
};

}  // namespace

struct Engine::Impl {
    /// A sequence of this step and what comes of its logits.
    struct Sample {
        Sequence* sequence;
        const float* logits;
        Delta delta;
        std::exception_ptr error;
    };

    Impl(const ModelFiles& files, std::shared_ptr<const Tokenizer> text,
         const EngineOptions& engine_options)
        : tokenizer(std::move(text)),
          options(to_keep(engine_options, *tokenizer)),
          encrypted(files.encrypted()),
          model(load_decoder(files, engine_options)),
          vocabulary(
              std::min(model->info().vocab_size, static_cast<int64_t>(tokenizer->vocab_size()))),
          scheduler({options.max_batch_tokens, options.max_sequences, model->info().kv_block_tokens,
                     options.prefix_caching && model->info().prefix_caching
                         ? model->info().max_context / model->info().kv_block_tokens
                         : 0},
                    static_cast<int32_t>(model->info().kv_blocks),
                    {[this](int32_t from, int32_t to) { model->copy_block(from, to); },
                     [this](uint64_t from, uint64_t to) { model->fork(from, to); },
                     [this](uint64_t sequence) { model->release(sequence); }}),
          arena(model->info().threads),
          thread([this] { work(); }) {}

    ~Impl() {
        {
            const std::lock_guard lock(mutex);
            stopping = true;
        }
        wake.notify_one();
        thread.join();
    }

    void check(const std::vector<int64_t>& prompt_ids, const SamplingParams& params) const;
    std::unique_ptr<Sequence> make_sequence(const std::shared_ptr<RequestState>& request) const;
    void work();
    bool accept();
    void step();
    void ask_for_logits(const std::vector<Sequence*>& sampled);
    void write_answers();
    bool extend(Sample& sample);
    void cancel(Sequence& sequence);
    void fail_running(const std::exception_ptr& error);

    std::shared_ptr<const Tokenizer> tokenizer;
    const EngineOptions options;
    const bool encrypted;
    const std::unique_ptr<DecoderModel> model;
    const int64_t vocabulary;  // ids that both the model and the tokenizer know

    // Shared with the submitting threads.
    std::mutex mutex;
    std::condition_variable wake;
    std::deque<std::shared_ptr<RequestState>> submitted;
    bool stopping = false;
    const std::shared_ptr<std::atomic<bool>> any_cancelled =
        std::make_shared<std::atomic<bool>>(false);

    // Of the engine's thread.
    Scheduler scheduler;
    StepBatch batch;
    uint64_t steps = 0;
    std::vector<Sample> samples;
    std::vector<int64_t> lowered;
    tbb::task_arena arena;
    std::thread thread;  // last: it starts when all else is there
};

void Engine::Impl::check(const std::vector<int64_t>& prompt_ids,
                         const SamplingParams& params) const {
    params.validate();
    if (prompt_ids.empty()) {
        throw std::invalid_argument("the prompt is empty: expected at least one token");
    }
    for (size_t i = 0; i < prompt_ids.size(); ++i) {
        if (prompt_ids[i] < 0 || prompt_ids[i] >= vocabulary) {
            throw std::invalid_argument("prompt token " + std::to_string(i) + " is " +
                                        std::to_string(prompt_ids[i]) + ", expected an id in [0, " +
                                        std::to_string(vocabulary) + ")");
        }
    }
    for (const int64_t id : params.stop_token_ids) {
        if (id >= model->info().vocab_size) {
            throw std::invalid_argument("stop_token_ids has " + std::to_string(id) +
                                        ", expected ids in [0, " +
                                        std::to_string(model->info().vocab_size) + ")");
        }
    }
    if (params.n > options.max_sequences) {
        throw CapacityError("n is " + std::to_string(params.n) + ", but the engine runs at most " +
                            std::to_string(options.max_sequences) +
                            " sequences at once (max_sequences)");
    }
    const auto length = static_cast<int64_t>(prompt_ids.size());
    const EngineInfo& info = model->info();
    if (length >= info.max_context) {
        const bool by_cache = info.max_context == info.kv_blocks * info.kv_block_tokens;
        throw CapacityError("the prompt has " + std::to_string(length) + " tokens, but " +
                            (by_cache ? "the KV cache" : "the model's context") + " holds " +
                            std::to_string(info.max_context) + ", one of them for the answer" +
                            (by_cache ? "; raise kv_cache_gb" : ""));
    }
    if (params.max_length && length >= *params.max_length) {
        throw std::invalid_argument("max_length is " + std::to_string(*params.max_length) +
                                    ", but the prompt alone has " + std::to_string(length) +
                                    " tokens");
    }
}

std::unique_ptr<Sequence> Engine::Impl::make_sequence(
    const std::shared_ptr<RequestState>& request) const {
    const SamplingParams& params = request->params;
    const auto prompt = static_cast<int64_t>(request->prompt_ids.size());
    int64_t max_tokens = model->info().max_context;
    if (params.max_new_tokens && *params.max_new_tokens < max_tokens - prompt) {
        max_tokens = prompt + *params.max_new_tokens;
    }
    if (params.max_length) max_tokens = std::min(max_tokens, *params.max_length);

    std::vector<int64_t> ends = params.stop_token_ids;
    if (!params.ignore_eos) {
        ends.insert(ends.end(), options.eos_token_ids.begin(), options.eos_token_ids.end());
    }
    const auto make = [&](int64_t answer) {
        auto sequence = std::make_unique<Sequence>();
        sequence->request = request;
        sequence->writer =
            std::make_unique<AnswerWriter>(*tokenizer, params, request->prompt_ids, ends,
                                           max_tokens - prompt, static_cast<size_t>(answer));
        return sequence;
    };
    std::unique_ptr<Sequence> first = make(0);
    first->tokens = request->prompt_ids;
    for (int64_t i = 1; i < params.n; ++i) first->siblings.push_back(make(i));
    return first;
}

void Engine::Impl::work() {
    while (accept()) {
        try {
            step();
        } catch (...) {
            fail_running(std::current_exception());
        }
    }
    scheduler.for_each([this](Sequence& sequence) { cancel(sequence); });
    scheduler.remove_if([](const RequestState&) { return true; });
}

// Takes in new requests and cancellations, waiting for some when there is nothing to do. False when
// the engine stops.
bool Engine::Impl::accept() {
    std::deque<std::shared_ptr<RequestState>> arrived;
    {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return stopping || !submitted.empty() || !scheduler.idle(); });
        arrived.swap(submitted);
        if (stopping) {
            for (const auto& request : arrived) request->end(FinishReason::kCancelled);
            return false;
        }
    }
    for (const auto& request : arrived) {
        try {
            scheduler.add(make_sequence(request));
        } catch (...) {
            request->end(FinishReason::kError, std::current_exception());
        }
    }
    if (any_cancelled->exchange(false)) {
        // Asked once for each request: one that is cancelled while we look must lose all of its
        // answers now or all of them next time.
        std::map<const RequestState*, bool> cancelled;
        scheduler.for_each([&](Sequence& sequence) {
            const auto [it, first] = cancelled.try_emplace(sequence.request.get(), false);
            if (first) it->second = sequence.request->cancelled();
            if (it->second) cancel(sequence);
        });
        scheduler.remove_if([](const RequestState& request) { return request.ended(); });
    }
    return true;
}

void Engine::Impl::step() {
    // Copied: starting siblings changes what the scheduler holds.
    const std::vector<Sequence*> sampled = scheduler.plan(batch);
    if (batch.token_ids.empty()) return;

    ask_for_logits(sampled);

    ++steps;
    const auto start = Clock::now();
    const float* logits = model->run(batch);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();

    for (const auto& [sequence, tokens] : scheduler.planned()) {
        sequence->request->stepped(steps, seconds);
    }
    scheduler.computed();
    samples.clear();
    for (Sequence* sequence : sampled) {
        samples.push_back({sequence, logits, {}, nullptr});
        for (Sequence* sibling : scheduler.fork(*sequence)) {
            samples.push_back({sibling, logits, {}, nullptr});
        }
        logits += model->info().vocab_size;
    }
    write_answers();
    bool failed = false;
    for (Sample& sample : samples) failed |= !extend(sample);
    if (failed) {
        scheduler.remove_if([](const RequestState& request) { return request.ended(); });
    }
}

// Says which logits the samplers will look at: of a large vocabulary, few of them come cheaper.
void Engine::Impl::ask_for_logits(const std::vector<Sequence*>& sampled) {
    size_t most = 0;
    for (size_t row = 0; row < sampled.size(); ++row) {
        lowered.clear();
        const size_t needed = sampled[row]->writer->largest_needed(lowered);
        if (needed == 0) {
            batch.not_counted.clear();
            return;
        }
        most = std::max(most, needed);
        for (const int64_t id : lowered) {
            if (id >= model->info().vocab_size) continue;
            batch.not_counted.push_back(static_cast<int64_t>(row) * model->info().vocab_size + id);
        }
    }
    batch.top_k = {static_cast<int64_t>(most), vocabulary};
}

// Chooses the next token of each sample. Reading 150,000 logits takes tens of microseconds, so many
// sequences share the work.
void Engine::Impl::write_answers() {
    const auto write = [this](Sample& sample) {
        try {
            sample.delta =
                sample.sequence->writer->write(sample.logits, static_cast<size_t>(vocabulary));
        } catch (...) {
            sample.error = std::current_exception();
        }
    };
    if (samples.size() == 1) {
        write(samples.front());
        return;
    }
    arena.execute([&] {
        tbb::parallel_for(size_t{0}, samples.size(), [&](size_t i) { write(samples[i]); });
    });
}

// False when sampling failed, which ends the whole request.
bool Engine::Impl::extend(Sample& sample) {
    Sequence& sequence = *sample.sequence;
    if (sample.error) {
        sequence.request->end(FinishReason::kError, sample.error);
        return false;
    }
    if (sequence.request->ended()) return true;  // another of its answers failed just now
    sequence.tokens.push_back(sample.delta.token_ids.front());
    const bool finished = sample.delta.finish_reason != FinishReason::kRunning;
    sequence.request->add(std::move(sample.delta), sequence.writer->stop_string());
    if (finished) scheduler.remove(sequence);
    return true;
}

void Engine::Impl::cancel(Sequence& sequence) {
    sequence.request->add(sequence.writer->cancel());
    for (const auto& sibling : sequence.siblings) cancel(*sibling);
}

// A step that throws takes with it all that ran in it; what waits is tried again.
void Engine::Impl::fail_running(const std::exception_ptr& error) {
    std::vector<const RequestState*> failed;
    const auto fail = [&](const Sequence& sequence) {
        sequence.request->end(FinishReason::kError, error);
        failed.push_back(sequence.request.get());
    };
    for (const auto& [sequence, tokens] : scheduler.planned()) fail(*sequence);
    if (failed.empty()) scheduler.for_each(fail);  // not even a plan could be made
    scheduler.remove_if([&](const RequestState& request) {
        return std::find(failed.begin(), failed.end(), &request) != failed.end();
    });
}

Engine::Engine(const std::filesystem::path& model_dir, std::shared_ptr<const Tokenizer> tokenizer,
               const EngineOptions& options)
    : Engine(ModelFiles::folder(model_dir), std::move(tokenizer), options) {}

Engine::Engine(const std::shared_ptr<const ModelFiles>& files,
               std::shared_ptr<const Tokenizer> tokenizer, const EngineOptions& options) {
    if (!files) throw std::invalid_argument("the engine needs the files of a model, got none");
    if (!tokenizer) throw std::invalid_argument("the engine needs a tokenizer, got none");
    impl_ = std::make_unique<Impl>(*files, std::move(tokenizer), options);
}

Engine::~Engine() {
    if (!impl_->encrypted) return;
    impl_.reset();  // wiped as it is freed, since its graph was read: crypto/secret.hpp
    ::malloc_trim(0);
}

std::shared_ptr<Request> Engine::submit(std::vector<int64_t> prompt_ids,
                                        const SamplingParams& params) {
    impl_->check(prompt_ids, params);
    auto state =
        std::make_shared<RequestState>(std::move(prompt_ids), params, impl_->any_cancelled);
    {
        const std::lock_guard lock(impl_->mutex);
        impl_->submitted.push_back(state);
    }
    impl_->wake.notify_one();
    return std::make_shared<RequestHandle>(std::move(state));
}

std::vector<NodeTime> Engine::take_node_times() {
    return impl_->model->take_node_times();
}

const EngineInfo& Engine::info() const {
    return impl_->model->info();
}

}  // namespace ovfast
