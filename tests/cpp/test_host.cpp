#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "ovfast/error.hpp"
#include "ovfast/host.hpp"

namespace ovfast {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;

const char* const kUnlimitedV1 = "9223372036854771712";

/// A file system root with made-up /proc and /sys. The machine: 8 GiB, of which 6 GiB available.
class FakeRoot : public testing::Test {
protected:
    void SetUp() override {
        std::string pattern = (fs::temp_directory_path() / "ovfast-host-XXXXXX").string();
        ASSERT_NE(mkdtemp(pattern.data()), nullptr);
        root_ = pattern;
        write(
            "proc/meminfo",
            "MemTotal:        8388608 kB\nMemFree:          100 kB\nMemAvailable:    6291456 kB\n");
    }
    void TearDown() override { fs::remove_all(root_); }

    void write(const std::string& path, const std::string& text) const {
        fs::create_directories((root_ / path).parent_path());
        std::ofstream(root_ / path) << text;
    }
    HostLimits read() const { return read_host_limits(root_.string()); }
    std::string error() const {
        try {
            read();
        } catch (const Error& e) {
            return e.what();
        }
        return "no error";
    }

    void mount_v2() const {
        write("proc/self/mountinfo",
              "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
              "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
    }
    /// `visible` is the group that the container sees as the root of each hierarchy.
    void mount_v1(const std::string& visible = "/") const {
        write("proc/self/mountinfo",
              "31 22 0:27 " + visible + " /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup " +
                  "rw,cpu,cpuacct\n32 22 0:28 " + visible +
                  " /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n");
    }
    void write_v1_memory(const std::string& group, const std::string& limit,
                         const std::string& usage, const std::string& stat = "") const {
        const std::string base = "sys/fs/cgroup/memory" + group;
        write(base + "/memory.limit_in_bytes", limit + "\n");
        write(base + "/memory.usage_in_bytes", usage + "\n");
        write(base + "/memory.stat", stat);
    }

    fs::path root_;
};

TEST_F(FakeRoot, WithoutControlGroupsTheMachineIsTheLimit) {
    const HostLimits limits = read();
    EXPECT_EQ(limits.memory_total, 8192 * kMiB);
    EXPECT_EQ(limits.memory_available, 6144 * kMiB);
    EXPECT_EQ(limits.memory_limit, 0U);
    EXPECT_EQ(limits.cpu_quota, 0.0);
    EXPECT_EQ(limits.threads, limits.affinity);
}

TEST_F(FakeRoot, V2Limits) {
    mount_v2();
    write("proc/self/cgroup", "0::/user.slice/job\n");
    const std::string group = "sys/fs/cgroup/user.slice/job/";
    write(group + "cpu.max", "50000 100000\n");
    write(group + "memory.max", "1073741824\n");
    write(group + "memory.current", "943718400\n");  // 900 MiB
    // shmem and anonymous memory do not come back by themselves; the page cache does.
    write(group + "memory.stat",
          "anon 419430400\nshmem 104857600\ninactive_anon 5\ninactive_file 209715200\n"
          "active_file 104857600\n");
    const HostLimits limits = read();
    EXPECT_DOUBLE_EQ(limits.cpu_quota, 0.5);
    EXPECT_EQ(limits.threads, 1);
    EXPECT_EQ(limits.memory_limit, 1024 * kMiB);
    EXPECT_EQ(limits.memory_available, (1024 - 900 + 300) * kMiB);
}

TEST_F(FakeRoot, V2Max) {
    mount_v2();
    write("proc/self/cgroup", "0::/job\n");
    write("sys/fs/cgroup/job/cpu.max", "max 100000\n");
    write("sys/fs/cgroup/job/memory.max", "max\n");
    write("sys/fs/cgroup/job/memory.current", "943718400\n");
    const HostLimits limits = read();
    EXPECT_EQ(limits.cpu_quota, 0.0);
    EXPECT_EQ(limits.memory_limit, 0U);
    EXPECT_EQ(limits.memory_available, 6144 * kMiB);
}

TEST_F(FakeRoot, V2NestedGroupsTheTightestOfEachKind) {
    mount_v2();
    write("proc/self/cgroup", "0::/a/b/c\n");
    write("sys/fs/cgroup/a/cpu.max", "1500000 1000000\n");
    write("sys/fs/cgroup/a/b/cpu.max", "400000 100000\n");
    write("sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n");
    // The middle group has the smallest limit, the outer one leaves the least.
    write("sys/fs/cgroup/a/memory.max", "4294967296\n");
    write("sys/fs/cgroup/a/memory.current", "4189061120\n");  // 101 MiB are left
    write("sys/fs/cgroup/a/b/memory.max", "2147483648\n");
    write("sys/fs/cgroup/a/b/memory.current", "1073741824\n");
    write("sys/fs/cgroup/a/b/c/memory.max", "3221225472\n");
    write("sys/fs/cgroup/a/b/c/memory.current", "0\n");
    const HostLimits limits = read();
    EXPECT_DOUBLE_EQ(limits.cpu_quota, 1.5);
    EXPECT_EQ(limits.threads, std::min(limits.affinity, 2));
    EXPECT_EQ(limits.memory_limit, 2048 * kMiB);
    EXPECT_EQ(limits.memory_available, 101 * kMiB);
    write("sys/fs/cgroup/a/b/c/memory.current", "3220176896\n");
    EXPECT_EQ(read().memory_available, kMiB);
}

TEST_F(FakeRoot, AvailableIsNeverBelowZeroOrAboveTheLimit) {
    mount_v2();
    write("proc/self/cgroup", "0::/job\n");
    write("sys/fs/cgroup/job/memory.max", "1048576\n");
    write("sys/fs/cgroup/job/memory.current", "2097152\n");
    EXPECT_EQ(read().memory_available, 0U);
    write("sys/fs/cgroup/job/memory.stat", "inactive_file 9000000\n");
    EXPECT_EQ(read().memory_available, kMiB);
}

TEST_F(FakeRoot, V2NamespaceFallsBackToTheRootOfTheMount) {
    mount_v2();
    write("sys/fs/cgroup/memory.max", "1073741824\n");
    write("sys/fs/cgroup/memory.current", "0\n");
    // Where "/../../outside" would lead, were it taken for a path.
    write("sys/outside/memory.max", "4096\n");
    write("sys/outside/memory.current", "0\n");
    for (const char* path :
         {"0::/\n", "0::/not/visible/here\n", "0::/../../outside\n", "0::/..\n"}) {
        write("proc/self/cgroup", path);
        EXPECT_EQ(read().memory_limit, 1024 * kMiB) << path;
    }
}

TEST_F(FakeRoot, V1Limits) {
    mount_v1();
    write("proc/self/cgroup", "5:memory:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/other\n");
    write("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "50000\n");
    write("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "200000\n");
    write_v1_memory("", kUnlimitedV1, "5000000000");
    // Only the totals count the groups below.
    write_v1_memory("/job", "2147483648", "1073741824",
                    "inactive_file 1\nactive_file 2\ntotal_inactive_file 104857600\n"
                    "total_active_file 104857600\n");
    const HostLimits limits = read();
    EXPECT_DOUBLE_EQ(limits.cpu_quota, 0.25);
    EXPECT_EQ(limits.threads, 1);
    EXPECT_EQ(limits.memory_limit, 2048 * kMiB);
    EXPECT_EQ(limits.memory_available, (1024 + 200) * kMiB);
}

TEST_F(FakeRoot, V1Unlimited) {
    mount_v1();
    write("proc/self/cgroup", "5:memory:/job\n4:cpu,cpuacct:/job\n");
    write("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
    write("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    write_v1_memory("/job", kUnlimitedV1, "100");
    const HostLimits limits = read();
    EXPECT_EQ(limits.cpu_quota, 0.0);
    EXPECT_EQ(limits.memory_limit, 0U);
    EXPECT_EQ(limits.memory_available, 6144 * kMiB);
}

TEST_F(FakeRoot, V1ContainerSeesItsGroupAsTheRoot) {
    write_v1_memory("", "1073741824", "0");
    write_v1_memory("/inner", "536870912", "0");
    // The group's own path, the path below what is mounted, and one that lies elsewhere.
    mount_v1("/docker/0123");
    write("proc/self/cgroup", "5:memory:/docker/0123\n");
    EXPECT_EQ(read().memory_limit, 1024 * kMiB);
    write("proc/self/cgroup", "5:memory:/docker/0123/inner\n");
    EXPECT_EQ(read().memory_limit, 512 * kMiB);
    write("proc/self/cgroup", "5:memory:/docker/01234/inner\n");
    EXPECT_EQ(read().memory_limit, 1024 * kMiB);
}

TEST_F(FakeRoot, HybridTakesEachControllerWhereItIs) {
    write("proc/self/mountinfo",
          "31 22 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
          "33 22 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    write("proc/self/cgroup", "5:memory:/job\n1:name=systemd:/job\n0::/job\n");
    write_v1_memory("/job", "1073741824", "0");
    write("sys/fs/cgroup/unified/job/cpu.max", "75000 100000\n");
    const HostLimits limits = read();
    EXPECT_EQ(limits.memory_limit, 1024 * kMiB);
    EXPECT_DOUBLE_EQ(limits.cpu_quota, 0.75);
}

TEST_F(FakeRoot, MountPointsMayHoldBlanksAndColons) {
    write("proc/self/mountinfo", "30 22 0:26 / /my\\040groups rw - cgroup2 cgroup2 rw\n");
    write("proc/self/cgroup", "0::/a:b c\n");
    write("my groups/a:b c/memory.max", "1073741824\n");
    write("my groups/a:b c/memory.current", "0\n");
    EXPECT_EQ(read().memory_limit, 1024 * kMiB);
}

TEST_F(FakeRoot, MalformedFilesAreNamed) {
    EXPECT_EQ(error(), "no error");
    mount_v2();
    const std::string group = "sys/fs/cgroup/job/";
    const auto check = [&](const std::string& path, const std::string& good,
                           const std::vector<std::string>& malformed) {
        for (const std::string& text : malformed) {
            write(path, text);
            EXPECT_THAT(error(), HasSubstr(path)) << text;
        }
        write(path, good);
        EXPECT_EQ(error(), "no error");
    };
    check("proc/self/cgroup", "0::/job\n", {"nonsense\n", "0:job\n", "0::job\n", "0::\n"});
    write(group + "memory.current", "5\n");
    check(group + "memory.max", "1073741824\n", {"", "lots\n", "12x\n", "-5\n", "1 2\n"});
    check(group + "memory.current", "5\n", {"", "max\n", "five\n", "-1\n"});
    check(group + "memory.stat", "inactive_file 5\n", {"inactive_file\n", "active_file x\n"});
    check(group + "cpu.max", "max 100000\n",
          {"", "100000\n", "x 100000\n", "100000 y\n", "nan 100000\n", "0 100000\n", "100000 0\n",
           "-1 100000\n"});
    check("proc/meminfo", "MemTotal: 5 kB\nMemAvailable: 5 kB\n",
          {"", "MemTotal: 5 kB\n", "MemAvailable: 5 kB\n", "MemTotal: x kB\n"});
    fs::remove(root_ / (group + "memory.current"));
    EXPECT_THAT(error(), HasSubstr("memory.current"));
}

TEST_F(FakeRoot, OddLinesOfMountinfoAreSkipped) {
    write("proc/self/mountinfo",
          "\n30\n30 22 0:26 / - cgroup2 cgroup2 rw\n30 22 0:26 / /x rw - cgroup2\n"
          "30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    write("proc/self/cgroup", "0::/\n");
    write("sys/fs/cgroup/cpu.max", "50000 100000\n");
    EXPECT_DOUBLE_EQ(read().cpu_quota, 0.5);
}

// ---- The machine that runs the tests -----------------------------------------------------------

TEST(Host, ReadsThisMachine) {
    const HostLimits limits = read_host_limits();
    EXPECT_GE(limits.processors, 1);
    EXPECT_GE(limits.threads, 1);
    EXPECT_LE(limits.threads, limits.affinity);
    EXPECT_GT(limits.memory_total, 64 * kMiB);
    EXPECT_LE(limits.memory_available, limits.memory_total);
    EXPECT_FALSE(limits.cpu_name.empty());
}

TEST(Host, FollowsTheAffinityMask) {
    // In a thread of its own, so that the other tests keep their processors.
    std::thread([] {
        cpu_set_t all;
        ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
        EXPECT_EQ(read_host_limits().affinity, CPU_COUNT(&all));
        int first = 0;
        while (!CPU_ISSET(first, &all)) ++first;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(first, &one);
        ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
        EXPECT_EQ(read_host_limits().affinity, 1);
        EXPECT_EQ(read_host_limits().threads, 1);
    }).join();
}

TEST(Host, InstructionSetsAreThoseThatTheKernelShows) {
    std::ifstream cpuinfo("/proc/cpuinfo");
    std::string flags;
    for (std::string line; std::getline(cpuinfo, line);) {
        if (line.rfind("flags", 0) == 0) {
            flags = line + " ";
            break;
        }
    }
    if (flags.empty()) GTEST_SKIP() << "/proc/cpuinfo shows no flags";
    const auto isa = read_host_limits().isa;
    EXPECT_TRUE(std::is_sorted(isa.begin(), isa.end()));
    // AMX may be shown and still not be granted to this process; the others are both or neither.
    for (const char* name :
         {"sse4_2", "avx", "avx2", "fma", "f16c", "bmi2", "avx_vnni", "avx512f", "avx512bw",
          "avx512vl", "avx512dq", "avx512_vnni", "avx512_bf16", "avx512_fp16"}) {
        const bool shown = flags.find(" " + std::string(name) + " ") != std::string::npos;
        EXPECT_EQ(std::count(isa.begin(), isa.end(), name), shown ? 1 : 0) << name;
    }
    for (const std::string& name : isa) EXPECT_THAT(flags, HasSubstr(" " + name + " "));
}

}  // namespace
}  // namespace ovfast
