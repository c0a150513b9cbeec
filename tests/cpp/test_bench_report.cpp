#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "apps/bench/html.hpp"
#include "apps/bench/html_report.hpp"
#include "apps/bench/key_source.hpp"
#include "apps/bench/llm_report.hpp"
#include "apps/bench/machine.hpp"
#include "apps/bench/svg_plot.hpp"
#include "apps/bench/text_table.hpp"
#include "apps/bench/tuning.hpp"

namespace ovfast::bench {
namespace {

using testing::DoubleEq;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::Pointwise;

RequestResult request(double submitted, double ttft, double total, int64_t generated,
                      bool done = true) {
    RequestResult result;
    result.done = done;
    result.submitted = submitted;
    result.metrics.prompt_tokens = 10;
    result.metrics.generated_tokens = generated;
    result.metrics.ttft_seconds = ttft;
    result.metrics.total_seconds = total;
    for (int64_t i = 1; i < generated; ++i) {
        result.metrics.inter_token_seconds.push_back(
            static_cast<float>((total - ttft) / static_cast<double>(generated - 1)));
    }
    return result;
}

RunResult two_requests() {
    RunResult run;
    run.requests = {request(0.0, 0.5, 2.5, 5), request(1.0, 1.0, 3.0, 5)};
    run.seconds = 4.0;
    return run;
}

TEST(Figures, OfARun) {
    const RunFigures figures = figures_of(two_requests(), {}, 16);
    EXPECT_EQ(figures.completed, 2);
    EXPECT_EQ(figures.prompt_tokens, 20);
    EXPECT_EQ(figures.generated_tokens, 10);
    EXPECT_DOUBLE_EQ(figures.tokens_out, 10.0 / 4.0);
    EXPECT_DOUBLE_EQ(figures.tokens_in, 20.0 / 4.0);
    EXPECT_DOUBLE_EQ(figures.requests, 2.0 / 4.0);
    EXPECT_FALSE(figures.goodput);
    EXPECT_THAT(figures.tpot, ElementsAre(DoubleEq(0.5), DoubleEq(0.5)));
    EXPECT_EQ(figures.inter_token.size(), 8U);
}

TEST(Figures, GoodputCountsRequestsThatKeepEveryBound) {
    EXPECT_DOUBLE_EQ(*figures_of(two_requests(), {0.6, std::nullopt}, 16).goodput, 1.0 / 4.0);
    EXPECT_DOUBLE_EQ(*figures_of(two_requests(), {1.0, 0.5}, 16).goodput, 2.0 / 4.0);
    EXPECT_DOUBLE_EQ(*figures_of(two_requests(), {1.0, 0.4}, 16).goodput, 0.0);
    EXPECT_DOUBLE_EQ(*figures_of(two_requests(), {std::nullopt, 0.5}, 16).goodput, 2.0 / 4.0);
}

TEST(Figures, CancelledRequestsCountNowhere) {
    RunResult run = two_requests();
    run.requests.push_back(request(2.0, 1.0, 8.0, 3, false));
    run.seconds = 10.0;
    const RunFigures figures = figures_of(run, {}, 16);
    EXPECT_EQ(figures.completed, 2);
    EXPECT_EQ(figures.cancelled, 1);
    EXPECT_EQ(figures.ttft.size(), 2U);
    EXPECT_DOUBLE_EQ(figures.seconds, 4.0);  // to the end of the last that counts
    EXPECT_DOUBLE_EQ(figures.tokens_out, 10.0 / 4.0);
}

TEST(Figures, KvMemoryIsOfWhatIsThereAtOnce) {
    RunResult run;
    run.requests = {request(0.0, 0.1, 1.0, 7), request(0.5, 0.1, 1.0, 6),
                    request(1.0, 0.1, 1.0, 6)};
    // 17 and 16 tokens, in blocks of 16: 32 and 16. The third begins when the first ends.
    EXPECT_EQ(peak_kv_tokens(run, 16), 48);
    EXPECT_EQ(peak_kv_tokens(run, 1), 33);
    EXPECT_EQ(peak_kv_tokens({}, 16), 0);
}

LlmReport report() {
    LlmReport report;
    report.workloads = {{32, 5, 2, 0.0, 2}};
    Side side;
    side.config.model = "models/<script>alert('x')</script>";
    side.info.kv_bytes_per_token = 100;
    side.info.kv_block_tokens = 16;
    for (int i = 0; i < 3; ++i) {
        side.runs.resize(1);
        side.runs[0].push_back(figures_of(two_requests(), {}, 16));
    }
    report.sides = {side};
    report.command = {"ovfast-bench", "llm", "\"&<"};
    return report;
}

TEST(Html, EveryTextIsEscaped) {
    EXPECT_EQ(escape_html("a<b> & \"c\" 'd'\n"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;\n");
    EXPECT_EQ(escape_html(std::string("\x01\x1f", 2)), "\xEF\xBF\xBD\xEF\xBF\xBD");
    EXPECT_EQ(escape_html("\xC3\xA9 \xE4\xBD\xA0"), "\xC3\xA9 \xE4\xBD\xA0");
    LlmReport bad = report();
    bad.error = "no <b>";
    bad.warnings = {"<i>"};
    const std::string page = llm_html(bad);
    EXPECT_THAT(page, Not(HasSubstr("<script")));
    EXPECT_THAT(page, Not(HasSubstr("<b>")));
    EXPECT_THAT(page, Not(HasSubstr("<i>")));
    EXPECT_THAT(page, HasSubstr("&lt;script&gt;"));
    EXPECT_THAT(page, HasSubstr("&quot;&amp;&lt;"));
    EXPECT_THAT(page, HasSubstr("<svg"));
    EXPECT_THAT(page, Not(HasSubstr("http")));  // needs nothing else
}

TEST(Json, CarriesFiguresErrorAndInterruption) {
    LlmReport bad = report();
    bad.error = "it failed";
    bad.interrupted = true;
    const auto json = llm_json(bad);
    EXPECT_EQ(json["error"], "it failed");
    EXPECT_EQ(json["interrupted"], true);
    const auto& workload = json["configurations"][0]["workloads"][0];
    EXPECT_EQ(workload["runs"].size(), 3U);
    EXPECT_EQ(workload["runs"][0]["kv_bytes"], 3200);  // two requests of 15 tokens in blocks of 16
    EXPECT_EQ(workload["figures"]["ttft_ms"]["p99"], 1000.0);
    EXPECT_EQ(workload["figures"]["tokens_out_per_second"]["median"], 2.5);
    EXPECT_TRUE(workload["figures"]["goodput_per_second"].is_null());
    EXPECT_TRUE(workload["rate"].is_null());
}

TEST(Csv, ALineForEachRun) {
    LlmReport with_comma = report();
    with_comma.sides[0].config.model = "a,\"b\"";
    const std::string csv = llm_csv(with_comma);
    EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 4);
    EXPECT_THAT(csv, HasSubstr("\nA,\"a,\"\"b\"\"\","));
}

TEST(Comparisons, PairRuns) {
    LlmReport ab = report();
    ab.sides.push_back(ab.sides[0]);
    for (RunFigures& run : ab.sides[1].runs[0]) {
        run.tokens_out *= 2.0;
        for (double& value : run.ttft) value /= 2.0;
    }
    const std::vector<Comparison> compared = comparisons(ab);
    ASSERT_FALSE(compared.empty());
    EXPECT_EQ(compared[0].figure, "TTFT ms");
    EXPECT_DOUBLE_EQ(compared[0].ratio.estimate, 0.5);
    EXPECT_EQ(judge(compared[0].ratio, true), Verdict::kTooFewRuns);  // three pairs
    for (Side& side : ab.sides) {
        const std::vector<RunFigures> again = side.runs[0];
        side.runs[0].insert(side.runs[0].end(), again.begin(), again.end());
    }
    const auto six = comparisons(ab);
    EXPECT_EQ(judge(six[0].ratio, six[0].smaller_is_better), Verdict::kFaster);
    EXPECT_EQ(comparisons(report()).size(), 0U);
}

TEST(Plot, TicksAreRound) {
    EXPECT_THAT(round_ticks(0, 100, 5), ElementsAre(0, 20, 40, 60, 80, 100));
    EXPECT_THAT(round_ticks(0, 0.7, 5),
                Pointwise(testing::DoubleNear(1e-12), {0.0, 0.2, 0.4, 0.6, 0.8}));
    EXPECT_THAT(log_ticks(0.9, 60), ElementsAre(1, 2, 5, 10, 20, 50));
    EXPECT_THAT(log_ticks(1, 10000), ElementsAre(1, 10, 100, 1000, 10000));
}

TEST(Plot, DistributionEndsAtAll) {
    const PlotSeries few = distribution("x", {1, 2, 2, 4});
    ASSERT_EQ(few.points.size(), 5U);
    EXPECT_EQ(few.points[2].x, 2);
    EXPECT_EQ(few.points[2].y, 0.5);
    std::vector<double> many(10000);
    for (size_t i = 0; i < many.size(); ++i) many[i] = static_cast<double>(i);
    const PlotSeries thinned = distribution("x", many);
    EXPECT_EQ(thinned.points.size(), 401U);
    EXPECT_EQ(thinned.points.back().x, 9999);
    EXPECT_EQ(thinned.points.back().y, 1.0);
}

TEST(Plot, DrawsEqualValues) {
    Plot plot{"t", "x", "y", {{"s", {{3, 5, 5, 5, ""}}}}};
    EXPECT_THAT(draw(plot), Not(HasSubstr("nan")));
    plot.log_x = true;
    EXPECT_THAT(draw(plot), Not(HasSubstr("nan")));
    plot.series.resize(kPlotColors + 1);
    EXPECT_THROW(draw(plot), std::invalid_argument);
}

TEST(Text, Numbers) {
    EXPECT_EQ(significant(0.012345), "0.0123");
    EXPECT_EQ(significant(12.345), "12.3");
    EXPECT_EQ(significant(1234.5), "1234");
    EXPECT_EQ(significant(0.0), "0");
    EXPECT_EQ(significant(99.96), "100.0");
    EXPECT_EQ(format_table({{"a", "1"}, {"bb", "10"}}), "a    1\nbb  10\n");
}

/// Made-up /proc and /sys.
class FakeRoot : public testing::Test {
protected:
    void SetUp() override {
        std::string pattern =
            (std::filesystem::temp_directory_path() / "ovfast-bench-XXXXXX").string();
        ASSERT_NE(mkdtemp(pattern.data()), nullptr);
        root_ = pattern;
    }
    void TearDown() override { std::filesystem::remove_all(root_); }
    void write(const std::string& path, const std::string& text) const {
        std::filesystem::create_directories((root_ / path).parent_path());
        std::ofstream(root_ / path) << text;
    }
    std::filesystem::path root_;
};

TEST_F(FakeRoot, Caches) {
    const std::string dir = "sys/devices/system/cpu/cpu0/cache/index0/";
    write(dir + "level", "3\n");
    write(dir + "type", "Unified\n");
    write(dir + "size", "32768K\n");
    write(dir + "shared_cpu_list", "0-3,8\n");
    const auto caches = read_caches(root_.string());
    ASSERT_EQ(caches.size(), 1U);
    EXPECT_EQ(caches[0].bytes, 32U << 20);
    EXPECT_EQ(caches[0].shared_by, 5);
    EXPECT_EQ(read_caches("/nowhere").size(), 0U);
}

TEST_F(FakeRoot, CpuTimes) {
    write("proc/stat", "cpu  100 0 50 800 20 0 0 30 0 0\ncpu0 1 1 1 1\n");
    const auto times = read_cpu_times(root_.string());
    ASSERT_TRUE(times);
    const double tick = 1.0 / static_cast<double>(sysconf(_SC_CLK_TCK));
    EXPECT_DOUBLE_EQ(times->all, 1000 * tick);
    EXPECT_DOUBLE_EQ(times->idle, 820 * tick);
    EXPECT_DOUBLE_EQ(times->steal, 30 * tick);
    write("proc/stat", "cpu 1 2 3\n");
    EXPECT_FALSE(read_cpu_times(root_.string()));
}

TEST(Noise, IsNamed) {
    MachineLimits limits;
    limits.probes = 3;
    EXPECT_EQ(noise_warnings(Activity{0.01, 0.0, 0.0}, limits).size(), 0U);
    EXPECT_THAT(noise_warnings(Activity{0.5, 0.0, 0.0}, limits),
                ElementsAre(HasSubstr("other processes used 50 %")));
    EXPECT_THAT(noise_warnings(Activity{0.0, 0.2, 0.0}, limits), ElementsAre(HasSubstr("steal")));
    limits.int8_spread = 0.6;
    EXPECT_THAT(noise_warnings(std::nullopt, limits), ElementsAre(HasSubstr("60 %")));
}

TEST(Probe, MeasuresWhatThereIs) {
    MachineProbe probe(1, 8);
    probe.measure();
    probe.measure();
    const MachineLimits limits = probe.limits();
    EXPECT_EQ(limits.probes, 2U);
    EXPECT_GT(limits.rates.read, 1e7);
    EXPECT_EQ(limits.rates.int8 > 0.0, !limits.int8_instruction.empty());
    EXPECT_EQ(limits.rates.f32 > 0.0, !limits.f32_instruction.empty());
    if (limits.rates.f32 > 0.0) EXPECT_GT(limits.rates.int8, limits.rates.f32);
    EXPECT_EQ(probe.held_bytes(), 8U << 20);
    EXPECT_THROW(MachineProbe(0, 8), std::invalid_argument);
    EXPECT_THROW(MachineProbe(1, 0), std::invalid_argument);
}

TEST(Tuning, JsonAsPythonWritesIt) {
    const auto json = nlohmann::json::parse(
        R"({"b": [1, -2, true, null], "a": {"\u00b5\u007f\n": "\ud83d\ude00\""}, "c": []})");
    EXPECT_EQ(python_json(json),
              R"({"a": {"\u00b5\u007f\n": "\ud83d\ude00\""}, "b": [1, -2, true, null], "c": []})");
    const std::vector<std::pair<double, std::string>> numbers{
        {0.0, "0.0"},       {-0.0, "-0.0"},
        {2.0, "2.0"},       {0.1, "0.1"},
        {1e-4, "0.0001"},   {1.5e-5, "1.5e-05"},
        {1e16, "1e+16"},    {9999999999999998.0, "9999999999999998.0"},
        {5e-324, "5e-324"}, {1e100, "1e+100"}};
    for (const auto& [number, text] : numbers) EXPECT_EQ(python_json(number), text);
}

TEST(KeySource, OneAtMost) {
    KeySource source;
    EXPECT_FALSE(source.given());
    source.check("--");
    source.env = "NAME";
    source.check("--");
    EXPECT_TRUE(source.given());
    source.passphrase = true;
    EXPECT_THAT([&] { source.check("-"); },
                testing::ThrowsMessage<std::invalid_argument>(
                    "-key-env and -passphrase both say what the key is: give one"));
}

TEST(KeySource, OnlyForEncryptedDirectories) {
    const auto folder = std::filesystem::temp_directory_path();
    EXPECT_FALSE(KeySource{}.read(folder, "-").has_value());
    EXPECT_THROW(KeySource({"model.key", "", false, false}).read(folder, "-"),
                 std::invalid_argument);
    // Of what does not exist, loading tells.
    EXPECT_FALSE(KeySource({"model.key", "", false, false}).read("no/model", "-").has_value());
}

}  // namespace
}  // namespace ovfast::bench
