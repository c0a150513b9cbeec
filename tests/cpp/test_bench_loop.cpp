#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>
#include <numeric>
#include <thread>

#include "apps/bench/infer_loop.hpp"
#include "apps/bench/infer_requests.hpp"
#include "bench_models.hpp"

namespace {

std::atomic<size_t> allocations{0};
thread_local bool counting = false;

void* counted_allocation(size_t size) {
    if (counting) ++allocations;
    void* memory = std::malloc(size);
    if (!memory) throw std::bad_alloc();
    return memory;
}

}  // namespace

void* operator new(size_t size) {
    return counted_allocation(size);
}
void* operator new[](size_t size) {
    return counted_allocation(size);
}
void operator delete(void* memory) noexcept {
    std::free(memory);
}
void operator delete[](void* memory) noexcept {
    std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
    std::free(memory);
}
void operator delete[](void* memory, size_t) noexcept {
    std::free(memory);
}

namespace ovfast::bench {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto never = [] { return false; };

double microseconds(Clock::duration time) {
    return std::chrono::duration<double, std::micro>(time).count();
}

double middle(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
    return values[values.size() / 2];
}

// The CPU plugin's TBB opens a library in a way that AddressSanitizer cannot take; the loop itself
// runs under it with requests that need no plugin.
#ifdef __SANITIZE_ADDRESS__
#define SKIP_WITHOUT_PLUGIN() GTEST_SKIP() << "the CPU plugin does not load under AddressSanitizer"
#else
#define SKIP_WITHOUT_PLUGIN() static_assert(true)
#endif

/// Requests that are done as soon as they are started.
class InstantRequests : public Requests {
public:
    explicit InstantRequests(size_t size) : size_(size) {}

    size_t size() const override { return size_; }
    void set_inputs(size_t, uint64_t turn) override { turns.push_back(turn); }
    void infer(size_t) override {}
    void start(size_t request) override {
        ++started;
        std::exception_ptr error;
        if (started == fail_at) error = std::make_exception_ptr(std::runtime_error("no memory"));
        completed_(request, error);
    }
    void settle(size_t) override {}
    void on_completed(Completed completed) override { completed_ = std::move(completed); }

    std::vector<uint64_t> turns;
    size_t started = 0;
    size_t fail_at = 0;

private:
    size_t size_;
    Completed completed_;
};

/// OpenVINO's requests; what OpenVINO itself does counts neither as our time nor as our memory.
class BracketedRequests : public InferRequests {
public:
    using InferRequests::InferRequests;

    void set_inputs(size_t request, uint64_t turn) override {
        outside([&] { InferRequests::set_inputs(request, turn); });
    }
    void infer(size_t request) override {
        outside([&] { InferRequests::infer(request); });
    }
    void start(size_t request) override {
        outside([&] { InferRequests::start(request); });
    }
    void settle(size_t request) override {
        outside([&] { InferRequests::settle(request); });
    }
    void on_completed(Completed completed) override {
        if (!completed) return outside([&] { InferRequests::on_completed(nullptr); });
        outside([&] {
            InferRequests::on_completed([completed](size_t request, std::exception_ptr error) {
                counting = true;
                completed(request, error);
                counting = false;
            });
        });
    }

    Clock::duration in_openvino{};

private:
    template <typename Call>
    void outside(const Call& call) {
        const bool before = counting;
        counting = false;
        const auto begin = Clock::now();
        call();
        in_openvino += Clock::now() - begin;
        counting = before;
    }
};

ov::CompiledModel compile(const std::shared_ptr<ov::Model>& model, int streams) {
    static ov::Core core;
    return core.compile_model(model, "CPU", ov::num_streams(streams));
}

InputData one_tensor() {
    ov::Tensor tensor(ov::element::f32, {1, 4});
    std::fill_n(tensor.data<float>(), 4, 1.0F);
    return InputData({{tensor}});
}

LoopPlan plan_of(bool async, uint64_t iterations, size_t align = 1) {
    LoopPlan plan;
    plan.async = async;
    plan.iterations = iterations;
    plan.align = align;
    return plan;
}

size_t allocations_of(Requests& requests, const LoopPlan& plan) {
    allocations = 0;
    counting = true;
    const Measured measured = run_loop(requests, plan, never);
    counting = false;
    EXPECT_EQ(measured.latencies_ms.size(), plan.iterations);
    return allocations;
}

TEST(InferLoop, AllocatesNothingPerIteration) {
    SKIP_WITHOUT_PLUGIN();
    auto model = compile(sleeping_model(0), 2);
    for (const bool async : {false, true}) {
        for (const bool set_inputs : {false, true}) {
            BracketedRequests requests(model, async ? 4 : 1, one_tensor(), false);
            requests.fill_inputs();
            LoopPlan few = plan_of(async, 8, 4);
            few.set_inputs = set_inputs;
            few.keep_groups = true;
            LoopPlan many = few;
            many.iterations = 4000;
            const size_t once = allocations_of(requests, few);
            EXPECT_GT(once, 0U) << "the hook does not see the set-up";
            EXPECT_EQ(allocations_of(requests, many), once) << async << set_inputs;
        }
    }
}

TEST(InferLoop, CostsUnderFiveMicrosecondsAnIterationOnAModelThatDoesNothing) {
    SKIP_WITHOUT_PLUGIN();
    auto model = compile(sleeping_model(0), 1);
    BracketedRequests requests(model, 1, one_tensor(), false);
    requests.fill_inputs();
    // The least of many short runs: others use these cores too.
    double sync = 1e9;
    double async = 1e9;
    for (int run = 0; run < 20; ++run) {
        requests.in_openvino = {};
        const Measured measured = run_loop(requests, plan_of(false, 500), never);
        const double all = 1000 * measured.duration_ms;
        sync = std::min(sync, (all - microseconds(requests.in_openvino)) / 500);

        InstantRequests instant(4);
        async =
            std::min(async, 1000 * run_loop(instant, plan_of(true, 500), never).duration_ms / 500);
    }
    RecordProperty("sync_us", std::to_string(sync));
    RecordProperty("async_us", std::to_string(async));
    std::cout << "sync " << sync << " us, async " << async << " us an iteration" << std::endl;
    EXPECT_LT(sync, 5);
    EXPECT_LT(async, 5);
}

TEST(InferLoop, MeasuresAnOperationThatTakesAKnownTime) {
    SKIP_WITHOUT_PLUGIN();
    constexpr int64_t time = 3000;
    auto model = compile(sleeping_model(time), 1);
    InferRequests requests(model, 1, one_tensor(), false);
    requests.fill_inputs();
    const Measured sync = run_loop(requests, plan_of(false, 40), never);
    for (const double latency : sync.latencies_ms) EXPECT_GE(latency, time / 1000.0);
    EXPECT_LT(middle(sync.latencies_ms), 1.2 * time / 1000.0);
    EXPECT_GE(sync.duration_ms, 40 * time / 1000.0);
    const double sum = std::accumulate(sync.latencies_ms.begin(), sync.latencies_ms.end(), 0.0);
    EXPECT_NEAR(sync.duration_ms, sum, 0.05 * sum);
    EXPECT_NEAR(sync.frames_per_second(), 40 * 1000.0 / sync.duration_ms, 1e-9);
    EXPECT_EQ(requests.size(), 1U);
}

TEST(InferLoop, AsynchronousLatencyIncludesQueueing) {
    SKIP_WITHOUT_PLUGIN();
    constexpr int64_t time = 3000;
    auto model = compile(sleeping_model(time), 1);
    InferRequests requests(model, 3, one_tensor(), false);
    requests.fill_inputs();
    const Measured measured = run_loop(requests, plan_of(true, 30, 3), never);
    EXPECT_EQ(measured.iterations, 30U);
    ASSERT_EQ(measured.latencies_ms.size(), 30U);
    // One stream, three requests: each waits for two others.
    EXPECT_NEAR(middle(measured.latencies_ms), 3 * time / 1000.0, 0.3 * 3 * time / 1000.0);
    EXPECT_GE(measured.duration_ms, 30 * time / 1000.0);
}

TEST(InferLoop, NeverIdlesWithRequestsReady) {
    SKIP_WITHOUT_PLUGIN();
    constexpr int64_t time = 2000;
    constexpr size_t count = 120;
    auto model = compile(sleeping_model(time), 2);
    InferRequests requests(model, 4, one_tensor(), false);
    requests.fill_inputs();
    std::vector<IterationTrace> trace;
    trace.reserve(count);
    const Measured measured = run_loop(requests, plan_of(true, count, 4), never, &trace);
    ASSERT_EQ(trace.size(), count);
    std::vector<double> waits;
    for (size_t i = 1; i < trace.size(); ++i) {
        EXPECT_LE(trace[i].ready, trace[i].taken);
        EXPECT_LE(trace[i].taken, trace[i].started);
        EXPECT_LE(trace[i].started, trace[i].returned);
        // From the moment when there was a request and the loop was free, to the start.
        const auto possible = std::max(trace[i].ready, trace[i - 1].returned);
        waits.push_back(microseconds(trace[i].started - possible));
    }
    std::sort(waits.begin(), waits.end());
    EXPECT_LT(waits[waits.size() / 2], 300);
    EXPECT_LT(waits[waits.size() * 9 / 10], 1000);
    // Both streams work all the time.
    EXPECT_LT(measured.duration_ms, 1.2 * count * time / 1000.0 / 2);
}

TEST(InferLoop, GoesOnUntilAllLimitsAreReached) {
    SKIP_WITHOUT_PLUGIN();
    auto model = compile(sleeping_model(1000), 1);
    InferRequests requests(model, 1, one_tensor(), false);
    requests.fill_inputs();
    LoopPlan plan = plan_of(false, 5);
    plan.duration = 60ms;
    const Measured by_time = run_loop(requests, plan, never);
    EXPECT_GT(by_time.iterations, 5U);
    EXPECT_GE(by_time.duration_ms, 60);
    plan.iterations = 50;
    plan.duration = 2ms;
    EXPECT_EQ(run_loop(requests, plan, never).iterations, 50U);
}

TEST(InferLoop, AsynchronousIterationsEndAtAMultiple) {
    InstantRequests requests(3);
    LoopPlan plan = plan_of(true, 0, 7);
    plan.duration = 3ms;
    const Measured measured = run_loop(requests, plan, never);
    EXPECT_GT(measured.iterations, 0U);
    EXPECT_EQ(measured.iterations % 7, 0U);
    EXPECT_EQ(measured.latencies_ms.size(), measured.iterations);
}

TEST(InferLoop, KeepsToTheRate) {
    InstantRequests requests(2);
    LoopPlan plan = plan_of(true, 20, 2);
    plan.max_rate = 200;
    plan.group_frames = {2};  // frames, not inferences, count
    const auto begin = Clock::now();
    const Measured measured = run_loop(requests, plan, never);
    EXPECT_EQ(measured.frames, 40U);
    EXPECT_GE(Clock::now() - begin, 195ms);
    EXPECT_LT(Clock::now() - begin, 400ms);
}

TEST(InferLoop, NotesGroupsAndFrames) {
    InstantRequests requests(1);
    LoopPlan plan = plan_of(true, 7);
    plan.set_inputs = true;
    plan.group_frames = {1, 4};
    plan.keep_groups = true;
    const Measured measured = run_loop(requests, plan, never);
    EXPECT_EQ(measured.frames, 4U * 1 + 3U * 4);
    EXPECT_THAT(measured.groups, testing::ElementsAre(0, 1, 0, 1, 0, 1, 0));
    EXPECT_THAT(requests.turns, testing::ElementsAre(0, 1, 2, 3, 4, 5, 6));
}

TEST(InferLoop, StopsWhenAsked) {
    for (const bool async : {false, true}) {
        InstantRequests requests(async ? 4 : 1);
        const auto stop = [&] { return requests.started >= 10 || !requests.turns.empty(); };
        LoopPlan plan = plan_of(async, 1000, 4);
        plan.set_inputs = !async;
        const Measured measured = run_loop(requests, plan, stop);
        EXPECT_TRUE(measured.interrupted);
        EXPECT_EQ(measured.iterations, async ? 10U : 1U);
        EXPECT_EQ(measured.latencies_ms.size(), measured.iterations);
    }
}

TEST(InferLoop, PassesErrorsOn) {
    InstantRequests requests(2);
    requests.fail_at = 5;
    EXPECT_THROW(run_loop(requests, plan_of(true, 100, 2), never), std::runtime_error);
    EXPECT_EQ(requests.started, 5U);
}

TEST(InferRequests, ErrorsOfAnOperationEndTheMeasuring) {
    SKIP_WITHOUT_PLUGIN();
    for (const bool async : {false, true}) {
        auto model = compile(sleeping_model(-1), 1);
        InferRequests failing(model, async ? 2 : 1, one_tensor(), false);
        failing.fill_inputs();
        EXPECT_ANY_THROW(run_loop(failing, plan_of(async, 10, 2), never));
    }
}

TEST(InferRequests, RefusesDeviceMemoryWhereThereIsNone) {
    SKIP_WITHOUT_PLUGIN();
    auto model = compile(sleeping_model(0), 1);
    EXPECT_THAT([&] { InferRequests(model, 1, one_tensor(), true); },
                testing::ThrowsMessage<std::runtime_error>(
                    "Requested device doesn't support `use_device_mem` option."));
}

}  // namespace
}  // namespace ovfast::bench
