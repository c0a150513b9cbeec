#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/bench/options.hpp"
#include "apps/bench/shape_text.hpp"

namespace ovfast::bench {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::ThrowsMessage;

Options parse(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "ovfast-bench");
    return parse_options(static_cast<int>(arguments.size()), arguments.data());
}

TEST(BenchOptions, Defaults) {
    const Options options = parse({"-m", "model.xml"});
    EXPECT_EQ(options.model, "model.xml");
    EXPECT_EQ(options.device, "CPU");
    EXPECT_EQ(options.latency_percentile, 50);
    EXPECT_FALSE(options.iterations || options.seconds || options.threads || options.counters);
    EXPECT_FALSE(options.inference_only.has_value());
    EXPECT_FALSE(options.no_warmup || options.json_stats || options.load_from_file);
    EXPECT_EQ(options.requests, 0U);
}

TEST(BenchOptions, OneDashOrTwoShortOrLongApartOrWithEquals) {
    const std::vector<std::vector<const char*>> ways = {
        {"-m", "a", "-d", "GPU", "-t", "5"},
        {"--m", "a", "--d=GPU", "--time", "5"},
        {"--path_to_model=a", "-target_device", "GPU", "-time=5"}};
    for (const auto& arguments : ways) {
        const Options options = parse(arguments);
        EXPECT_EQ(options.model, "a");
        EXPECT_EQ(options.device, "GPU");
        EXPECT_EQ(options.seconds, 5U);
    }
}

TEST(BenchOptions, Flags) {
    EXPECT_EQ(parse({"-m", "a", "-pc"}).counters, true);
    EXPECT_EQ(parse({"-m", "a", "-pc=false"}).counters, false);
    EXPECT_EQ(parse({"-m", "a", "-pc", "No"}).counters, false);
    EXPECT_EQ(parse({"-m", "a", "-nopc"}).counters, false);
    EXPECT_EQ(parse({"-inference_only", "-m", "a"}).inference_only, true);
    EXPECT_EQ(parse({"-m", "a", "--inference_only=0"}).inference_only, false);
    EXPECT_TRUE(parse({"-m", "a", "-no_warmup"}).no_warmup);
    EXPECT_TRUE(parse({"-m", "a", "-lfile"}).load_from_file);
    EXPECT_TRUE(parse({"-h"}).help);
}

TEST(BenchOptions, ValuesStayAsTheyAre) {
    const Options options = parse({"-m", "a", "-shape", "[1,3,8,8]", "-data_shape",
                                   "x[1,2][3,4],y[5]", "-i", "x:1.bin", "y:2.bin", "-i", "3.npy"});
    EXPECT_EQ(options.shape, "[1,3,8,8]");
    EXPECT_EQ(options.data_shape, "x[1,2][3,4],y[5]");
    EXPECT_THAT(options.inputs, ElementsAre("x:1.bin", "y:2.bin", "3.npy"));
    // The last one counts.
    EXPECT_EQ(parse({"-m", "a", "-m", "b"}).model, "b");
}

TEST(BenchOptions, ListsTheCommandLineAsWritten) {
    EXPECT_THAT(
        parse({"-m", "a", "--niter=3", "-pc", "-i", "x", "y"}).command_line,
        ElementsAre(Pair("-m", "a"), Pair("--niter", "3"), Pair("-pc", ""), Pair("-i", "x y")));
}

TEST(BenchOptions, WrongCommandLines) {
    const std::vector<std::pair<std::vector<const char*>, const char*>> wrong = {
        {{}, "the following arguments are required: -m/--path_to_model"},
        {{"-m"}, "argument -m/--path_to_model: expected one argument"},
        {{"-m", "a", "-t"}, "argument -t/--time: expected one argument"},
        {{"-m", "a", "-t", "0"}, "argument -t/--time: 0 is an invalid positive int value"},
        {{"-m", "a", "-t", "x"}, "argument -t/--time: invalid int value: 'x'"},
        {{"-m", "a", "-niter", "-1"},
         "argument -niter/--number_iterations: -1 is an invalid non-negative int value"},
        {{"-m", "a", "-nireq", "0"},
         "argument -nireq/--number_infer_requests: 0 is an invalid positive int value"},
        {{"-m", "a", "-nthreads", "2.5"},
         "argument -nthreads/--number_threads: invalid int value: '2.5'"},
        {{"-m", "a", "-max_irate", "fast"},
         "argument -max_irate/--maximum_inference_rate: invalid float value: 'fast'"},
        {{"-m", "a", "-max_irate", "-1"},
         "argument -max_irate/--maximum_inference_rate: -1 is an invalid non-negative float value"},
        {{"-m", "a", "-api", "both"},
         "argument -api/--api_type: invalid choice: 'both' (choose from 'sync', 'async')"},
        {{"-m", "a", "-pc", "perhaps"}, "argument -pc/--perf_counts: Boolean value expected."},
        {{"-m", "a", "-speed", "9"}, "unrecognized arguments: -speed"},
        {{"-m", "a", "b"}, "unrecognized arguments: b"},
    };
    for (const auto& [arguments, message] : wrong) {
        EXPECT_THAT(([&, &given = arguments] { parse(given); }),
                    ThrowsMessage<UsageError>(message));
    }
}

TEST(BenchOptions, RulesBetweenOptions) {
    const auto check = [](const std::vector<const char*>& arguments) {
        Options options = parse(arguments);
        check_rules(options);
        return options.api;
    };
    EXPECT_EQ(check({"-m", "a"}), "async");
    EXPECT_EQ(check({"-m", "a", "-hint", "latency"}), "sync");
    EXPECT_EQ(check({"-m", "a", "-hint", "latency", "-api", "async"}), "async");
    EXPECT_EQ(check({"-m", "a", "-hint", "none", "-nstreams", "2", "-nthreads", "1"}), "async");
    EXPECT_EQ(check({"-m", "a", "-api", "sync", "-nireq", "2", "-niter", "2"}), "sync");

    const std::vector<std::pair<std::vector<const char*>, const char*>> wrong = {
        {{"-m", "a", "-latency_percentile", "101"}, "The percentile value is incorrect"},
        {{"-m", "a", "-latency_percentile", "0"}, "The percentile value is incorrect"},
        {{"-m", "a", "-t", "9000000000000000000"}, "expected at most 1000000000 seconds"},
        {{"-m", "a", "-nstreams", "2"}, "-nstreams, -nthreads and -pin options are fine tune"},
        {{"-m", "a", "-hint", "latency", "-pin", "YES"}, "are fine tune options"},
        {{"-m", "a", "-d", "MULTI:CPU", "-report_type", "average_counters"},
         "only detailed_counters report type is supported for MULTI"},
        {{"-m", "a.blob", "-ip", "u8"}, "Cannot set precision for a compiled model"},
        {{"-m", "a", "-api", "sync", "-nireq", "3", "-niter", "2"},
         "less than or equal to number of iterations in sync mode"},
    };
    for (const auto& [arguments, message] : wrong) {
        EXPECT_THAT(([&, &given = arguments] { check(given); }),
                    ThrowsMessage<std::runtime_error>(HasSubstr(message)));
    }
}

TEST(ShapeText, NamesAndBrackets) {
    const auto entries = parse_named_texts("a:0[1,2][3,4], b[5]");
    ASSERT_EQ(entries.size(), 2U);
    EXPECT_EQ(entries[0].name, "a:0");
    EXPECT_THAT(entries[0].texts, ElementsAre("1,2", "3,4"));
    EXPECT_EQ(entries[1].name, "b");
    EXPECT_EQ(parse_named_texts("[1]").at(0).name, "");
    EXPECT_TRUE(parse_named_texts("").empty());
    for (const char* text : {"1,2", "a[1", "a[1]b", "a"}) {
        EXPECT_THAT([&] { parse_named_texts(text); },
                    ThrowsMessage<std::runtime_error>(HasSubstr("Can't parse input parameter")))
            << text;
    }
}

TEST(BenchOptions, KeysHaveTheNamesOfOvfastRun) {
    const Options options = parse({"-m", "a", "--key-file", "k", "-key-env=N", "-key-stdin"});
    EXPECT_EQ(options.key_file, "k");
    EXPECT_EQ(options.key_env, "N");
    EXPECT_TRUE(options.key_stdin);
    EXPECT_FALSE(options.passphrase);
    EXPECT_TRUE(parse({"-m", "a", "--passphrase"}).passphrase);
}

TEST(BenchOptions, TheReportOfARefusedCommandLineIsKnown) {
    const std::vector<const char*> line{"ovfast-bench", "-what",       "--report_type=no_counters",
                                        "-t",           "0",           "-report_folder",
                                        "out",          "-json_stats", "-m"};
    const Options options = report_options(static_cast<int>(line.size()), line.data());
    EXPECT_EQ(options.report_type, "no_counters");
    EXPECT_EQ(options.report_folder, "out");
    EXPECT_TRUE(options.json_stats);
    EXPECT_EQ(options.command_line.size(), 6U);
    const std::vector<const char*> none{"ovfast-bench", "-report_type", "all"};
    EXPECT_EQ(report_options(3, none.data()).report_type, "");
}

}  // namespace
}  // namespace ovfast::bench
