#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/cpu_features.hpp"

namespace ovfast::kernels {
namespace {

using testing::AllOf;
using testing::ExitedWithCode;
using testing::HasSubstr;

constexpr Isa kIsas[] = {Isa::Scalar, Isa::Avx2, Isa::AvxVnni, Isa::Avx512Vnni, Isa::Amx};

std::string error_of(const std::optional<Isa>& isa) {
    try {
        force_isa(isa);
        return "";
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
}

/// Flags of the first processor, as the operating system reports them.
std::vector<std::string> flags_of_the_system() {
    std::ifstream info("/proc/cpuinfo");
    std::vector<std::string> flags;
    for (std::string line; std::getline(info, line);) {
        if (line.rfind("flags", 0) != 0) continue;
        std::istringstream words(line.substr(line.find(':') + 1));
        for (std::string word; words >> word;) flags.push_back(word);
        break;
    }
    return flags;
}

/// forced_isa() reads the environment once a process: asked in a child, which exits with 0 when
/// `expected` is what it found, or when it threw a message with all of `words`.
int forced_from_environment(const char* value, std::optional<Isa> expected,
                            const std::vector<std::string>& words = {}) {
    setenv("OVFAST_FORCE_ISA", value, 1);
    try {
        const std::optional<Isa> found = forced_isa();
        return words.empty() && found == expected ? 0 : 1;
    } catch (const std::invalid_argument& error) {
        if (words.empty()) return 2;
        for (const std::string& word : words) {
            if (std::string(error.what()).find(word) == std::string::npos) return 3;
        }
        return 0;
    }
}

TEST(CpuFeatures, AreWhatTheSystemReports) {
    const std::vector<std::string> flags = flags_of_the_system();
    if (flags.empty()) GTEST_SKIP() << "no list of flags";
    const auto has_all = [&](const std::vector<std::string>& names) {
        for (const std::string& flag : names) {
            if (std::find(flags.begin(), flags.end(), flag) == flags.end()) return false;
        }
        return true;
    };
    const bool avx2 = has_all({"avx2", "fma", "f16c"});
    const bool avx512 = avx2 && has_all({"avx512f", "avx512bw", "avx512dq", "avx512vl",
                                         "avx512vbmi", "avx512_vnni"});
    EXPECT_EQ(supported(Isa::Avx2), avx2);
    EXPECT_EQ(supported(Isa::AvxVnni), avx2 && has_all({"avx_vnni"}));
    EXPECT_EQ(supported(Isa::Avx512Vnni), avx512);
    // The system may still refuse the tile registers to this process.
    if (supported(Isa::Amx)) {
        EXPECT_TRUE(avx512 && has_all({"avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"}));
    }
}

TEST(CpuFeatures, ScalarIsAlwaysThere) {
    EXPECT_TRUE(supported(Isa::Scalar));
    EXPECT_EQ(supported_isas().front(), Isa::Scalar);
    for (const Isa isa : supported_isas()) EXPECT_TRUE(supported(isa));
}

TEST(CpuFeatures, HaveNames) {
    EXPECT_STREQ(name(Isa::Scalar), "scalar");
    EXPECT_STREQ(name(Isa::Avx2), "avx2");
    EXPECT_STREQ(name(Isa::AvxVnni), "avx_vnni");
    EXPECT_STREQ(name(Isa::Avx512Vnni), "avx512_vnni");
    EXPECT_STREQ(name(Isa::Amx), "amx");
}

TEST(ForceIsa, AllowsThatOneAndScalar) {
    for (const Isa forced : supported_isas()) {
        force_isa(forced);
        EXPECT_EQ(forced_isa(), forced);
        for (const Isa isa : kIsas) {
            const bool companion = forced == Isa::Amx && isa == Isa::Avx512Vnni;
            EXPECT_EQ(allowed(isa), isa == forced || isa == Isa::Scalar || companion)
                << name(isa) << ", forced " << name(forced);
        }
    }
    force_isa(std::nullopt);
    EXPECT_EQ(forced_isa(), std::nullopt);
    for (const Isa isa : kIsas) EXPECT_EQ(allowed(isa), supported(isa));
}

TEST(ForceIsa, RefusesWhatIsNotSupported) {
    for (const Isa isa : kIsas) {
        if (supported(isa)) continue;
        EXPECT_THAT(error_of(isa), AllOf(HasSubstr(name(isa)), HasSubstr("scalar")));
        EXPECT_EQ(forced_isa(), std::nullopt);
    }
}

/// The environment is read once a process: children must begin anew instead of being forked.
class ForceIsaByEnvironment : public testing::Test {
protected:
    void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(ForceIsaByEnvironment, TakesSupportedNames) {
    for (const Isa isa : supported_isas()) {
        EXPECT_EXIT(std::exit(forced_from_environment(name(isa), isa)), ExitedWithCode(0), "")
            << name(isa);
    }
    EXPECT_EXIT(std::exit(forced_from_environment("", std::nullopt)), ExitedWithCode(0), "");
}

TEST_F(ForceIsaByEnvironment, ThrowsForUnknownAndUnsupportedNames) {
    const std::vector<std::string> words = {"OVFAST_FORCE_ISA", "supported", "scalar"};
    for (const char* unknown : {"sse9", "AVX2", "avx2 ", "avx512"}) {
        EXPECT_EXIT(std::exit(forced_from_environment(unknown, std::nullopt, words)),
                    ExitedWithCode(0), "")
            << unknown;
    }
    for (const Isa isa : kIsas) {
        if (supported(isa)) continue;
        EXPECT_EXIT(std::exit(forced_from_environment(name(isa), std::nullopt, words)),
                    ExitedWithCode(0), "")
            << name(isa);
    }
}

}  // namespace
}  // namespace ovfast::kernels
