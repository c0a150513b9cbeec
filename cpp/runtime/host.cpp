#include "ovfast/host.hpp"

#include <cpuid.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <new>
#include <optional>
#include <sstream>
#include <system_error>

#include "ovfast/error.hpp"

namespace ovfast {
namespace {

namespace fs = std::filesystem;

// ---- Small files of the kernel ----------------------------------------------------------------

/// The words of a file; nothing when it does not exist or may not be read.
std::optional<std::vector<std::string>> read_words(const fs::path& file) {
    std::ifstream in(file);
    if (!in) return std::nullopt;
    std::vector<std::string> words;
    for (std::string word; in >> word;) words.push_back(word);
    return words;
}

[[noreturn]] void throw_not_understood(const fs::path& file, const std::string& expected,
                                       const std::string& got) {
    throw Error(file.string() + ": expected " + expected + ", got " + got);
}

template <typename Number>
Number parse_number(const fs::path& file, const std::string& word) {
    Number number{};
    const char* end = word.data() + word.size();
    const auto parsed = std::from_chars(word.data(), end, number);
    if (parsed.ec != std::errc{} || parsed.ptr != end) {
        throw_not_understood(file, "a number", "'" + word + "'");
    }
    return number;
}

/// A file of one number, e.g. memory.current; nothing when there is no such file or it says "max".
template <typename Number>
std::optional<Number> read_number(const fs::path& file) {
    const auto words = read_words(file);
    if (!words) return std::nullopt;
    if (words->size() != 1) {
        throw_not_understood(file, "one word", std::to_string(words->size()) + " of them");
    }
    if (words->front() == "max") return std::nullopt;
    return parse_number<Number>(file, words->front());
}

/// Values of "name value" lines such as those of memory.stat and meminfo.
uint64_t sum_of_lines(const fs::path& file, std::initializer_list<const char*> names, bool& found) {
    std::ifstream in(file);
    uint64_t sum = 0;
    found = false;
    for (std::string line; std::getline(in, line);) {
        std::istringstream words(line);
        std::string name;
        std::string value;
        words >> name >> value;
        if (std::find(names.begin(), names.end(), name) == names.end()) continue;
        found = true;
        sum += parse_number<uint64_t>(file, value);
    }
    return sum;
}

// ---- Processors -------------------------------------------------------------------------------

int count_affinity() {
    // Kernels built for more processors than the set holds answer EINVAL.
    for (int processors = CPU_SETSIZE; processors <= 1 << 20; processors *= 2) {
        const size_t bytes = CPU_ALLOC_SIZE(processors);
        cpu_set_t* set = CPU_ALLOC(processors);
        if (set == nullptr) throw std::bad_alloc();
        const int result = sched_getaffinity(0, bytes, set);
        const int error = errno;
        const int count = result == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (result == 0) return count;
        if (error != EINVAL) throw std::system_error(error, std::generic_category(), "affinity");
    }
    throw Error("the kernel's affinity mask is larger than 2^20 processors");
}

uint64_t read_xcr0() {
    uint32_t low;
    uint32_t high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<uint64_t>(high) << 32U) | low;
}

/// Whether Linux grants AMX tiles to processes that ask (arch_prctl ARCH_GET_XCOMP_SUPP). XCR0
/// alone may show them where a sandbox between the kernel and us does not pass the request on.
bool kernel_grants_tiles() {
    constexpr int kGetSupportedComponents = 0x1021;
    constexpr uint64_t kTileData = uint64_t{1} << 18U;
    uint64_t components = 0;
    return syscall(SYS_arch_prctl, kGetSupportedComponents, &components) == 0 &&
           (components & kTileData) != 0;
}

using Registers = std::array<uint32_t, 4>;  // eax, ebx, ecx, edx

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
    Registers r{};
    __get_cpuid_count(leaf, subleaf, &r[0], &r[1], &r[2], &r[3]);  // zeros for an unknown leaf
    return r;
}

/// A feature bit, and the register state that the operating system must save for it.
struct Feature {
    const char* name;
    enum Leaf { kLeaf1, kLeaf7, kLeaf7Sub1 } leaf;
    enum Register { kEax, kEbx, kEcx, kEdx } reg;
    uint32_t bit;
    enum State { kNone, kAvx, kAvx512, kTiles } state;
};

// Names as in /proc/cpuinfo.
constexpr std::array<Feature, 24> kFeatures{{
    {"sse4_2", Feature::kLeaf1, Feature::kEcx, 20, Feature::kNone},
    {"fma", Feature::kLeaf1, Feature::kEcx, 12, Feature::kAvx},
    {"avx", Feature::kLeaf1, Feature::kEcx, 28, Feature::kAvx},
    {"f16c", Feature::kLeaf1, Feature::kEcx, 29, Feature::kAvx},
    {"bmi1", Feature::kLeaf7, Feature::kEbx, 3, Feature::kNone},
    {"avx2", Feature::kLeaf7, Feature::kEbx, 5, Feature::kAvx},
    {"bmi2", Feature::kLeaf7, Feature::kEbx, 8, Feature::kNone},
    {"avx512f", Feature::kLeaf7, Feature::kEbx, 16, Feature::kAvx512},
    {"avx512dq", Feature::kLeaf7, Feature::kEbx, 17, Feature::kAvx512},
    {"avx512ifma", Feature::kLeaf7, Feature::kEbx, 21, Feature::kAvx512},
    {"avx512cd", Feature::kLeaf7, Feature::kEbx, 28, Feature::kAvx512},
    {"avx512bw", Feature::kLeaf7, Feature::kEbx, 30, Feature::kAvx512},
    {"avx512vl", Feature::kLeaf7, Feature::kEbx, 31, Feature::kAvx512},
    {"avx512vbmi", Feature::kLeaf7, Feature::kEcx, 1, Feature::kAvx512},
    {"avx512_vbmi2", Feature::kLeaf7, Feature::kEcx, 6, Feature::kAvx512},
    {"avx512_vnni", Feature::kLeaf7, Feature::kEcx, 11, Feature::kAvx512},
    {"amx_bf16", Feature::kLeaf7, Feature::kEdx, 22, Feature::kTiles},
    {"avx512_fp16", Feature::kLeaf7, Feature::kEdx, 23, Feature::kAvx512},
    {"amx_tile", Feature::kLeaf7, Feature::kEdx, 24, Feature::kTiles},
    {"amx_int8", Feature::kLeaf7, Feature::kEdx, 25, Feature::kTiles},
    {"avx_vnni", Feature::kLeaf7Sub1, Feature::kEax, 4, Feature::kAvx},
    {"avx512_bf16", Feature::kLeaf7Sub1, Feature::kEax, 5, Feature::kAvx512},
    {"amx_fp16", Feature::kLeaf7Sub1, Feature::kEax, 21, Feature::kTiles},
    {"avx_vnni_int8", Feature::kLeaf7Sub1, Feature::kEdx, 4, Feature::kAvx},
}};

std::vector<std::string> read_isa() {
    constexpr uint32_t kOsxsave = 1U << 27U;
    constexpr uint64_t kAvxState = 0x6;       // XMM and upper halves of YMM
    constexpr uint64_t kAvx512State = 0xE6;   // and masks, upper ZMM, ZMM16-31
    constexpr uint64_t kTileState = 0x60000;  // XTILECFG, XTILEDATA
    // Read once each: in a virtual machine every cpuid is a trip to the hypervisor.
    std::array<Registers, 3> leaves{cpuid(1, 0), cpuid(7, 0), {}};
    const uint32_t last_subleaf = leaves[Feature::kLeaf7][Feature::kEax];
    if (last_subleaf >= 1) leaves[Feature::kLeaf7Sub1] = cpuid(7, 1);
    const bool has_xgetbv = (leaves[Feature::kLeaf1][Feature::kEcx] & kOsxsave) != 0;
    const uint64_t xcr0 = has_xgetbv ? read_xcr0() : 0;
    const auto saves = [xcr0](uint64_t state) { return (xcr0 & state) == state; };

    std::array<bool, 4> usable{};
    usable[Feature::kNone] = true;
    usable[Feature::kAvx] = saves(kAvxState);
    usable[Feature::kAvx512] = saves(kAvx512State);
    usable[Feature::kTiles] = saves(kTileState) && kernel_grants_tiles();

    std::vector<std::string> isa;
    for (const Feature& f : kFeatures) {
        const bool present = ((leaves[f.leaf][f.reg] >> f.bit) & 1U) != 0;
        if (present && usable[f.state]) isa.emplace_back(f.name);
    }
    std::sort(isa.begin(), isa.end());
    return isa;
}

std::string read_cpu_name() {
    constexpr uint32_t kFirst = 0x80000002;
    std::array<char, 3 * sizeof(Registers) + 1> text{};
    for (uint32_t i = 0; i < 3; ++i) {
        const Registers part = cpuid(kFirst + i, 0);
        std::memcpy(text.data() + i * sizeof part, part.data(), sizeof part);
    }
    std::string name(text.data());
    const size_t begin = name.find_first_not_of(' ');
    if (begin == std::string::npos) return "unknown";
    return name.substr(begin, name.find_last_not_of(' ') - begin + 1);
}

// ---- Control groups ---------------------------------------------------------------------------

/// A mounted cgroup hierarchy.
struct Mount {
    bool v2 = false;
    std::vector<std::string> controllers;  ///< v1: those that the mount carries
    std::string root;                      ///< the group that is visible at `point`
    fs::path point;                        ///< with the root of the file system in front
};

/// Our group in a hierarchy: a line of /proc/self/cgroup.
struct Membership {
    bool v2 = false;
    std::vector<std::string> controllers;
    std::string path;
};

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
    return parts;
}

bool contains(const std::vector<std::string>& words, const std::string& word) {
    return std::find(words.begin(), words.end(), word) != words.end();
}

/// mountinfo writes blanks and backslashes as three octal digits.
std::string unescape(const std::string& text) {
    const auto octal = [](char c) { return c >= '0' && c <= '7'; };
    std::string result;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\' && i + 3 < text.size() && octal(text[i + 1]) && octal(text[i + 2]) &&
            octal(text[i + 3])) {
            result += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                        (text[i + 3] - '0'));
            i += 3;
        } else {
            result += text[i];
        }
    }
    return result;
}

/// Lines read "id parent major:minor root point options [tags] - type source super-options".
std::vector<Mount> read_mounts(const std::string& root) {
    std::vector<Mount> mounts;
    std::ifstream in(root + "/proc/self/mountinfo");
    for (std::string line; std::getline(in, line);) {
        const size_t dash = line.find(" - ");
        if (dash == std::string::npos) continue;
        const auto left = split(line.substr(0, dash), ' ');
        const auto right = split(line.substr(dash + 3), ' ');
        if (left.size() < 5 || right.size() < 3) continue;
        if (right[0] != "cgroup" && right[0] != "cgroup2") continue;
        Mount mount;
        mount.v2 = right[0] == "cgroup2";
        mount.controllers = split(right[2], ',');
        mount.root = unescape(left[3]);
        mount.point = root + unescape(left[4]);
        mounts.push_back(std::move(mount));
    }
    return mounts;
}

/// Lines read "id:controller,controller:path"; v2 has id 0 and no controllers.
std::vector<Membership> read_memberships(const std::string& root) {
    const fs::path file = root + "/proc/self/cgroup";
    std::vector<Membership> memberships;
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        const size_t first = line.find(':');
        const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos || line.compare(second + 1, 1, "/") != 0) {
            throw_not_understood(file, "lines 'id:controllers:/path'", "'" + line + "'");
        }
        Membership m;
        m.controllers = split(line.substr(first + 1, second - first - 1), ',');
        m.v2 = m.controllers.empty();
        m.path = line.substr(second + 1);
        memberships.push_back(std::move(m));
    }
    return memberships;
}

/// `path` below `ancestor`, without a leading slash; nothing when it lies elsewhere.
std::optional<std::string> relative_to(const std::string& path, const std::string& ancestor) {
    // Groups outside our cgroup namespace show as "/../...": where they lie cannot be told.
    if (path.find("/..") != std::string::npos) return std::nullopt;
    const std::string base = ancestor == "/" ? "" : ancestor;
    if (path == ancestor || path == base) return std::string();
    if (path.compare(0, base.size() + 1, base + "/") != 0) return std::nullopt;
    return path.substr(base.size() + 1);
}

/// The directories of our group and its ancestors, innermost first. A container often sees only
/// its own group, mounted as the root, under a path that means nothing inside: then the mount's
/// root is all there is to read.
std::vector<fs::path> group_directories(const std::vector<Mount>& mounts,
                                        const Membership& membership,
                                        const std::string& controller) {
    const Mount* fallback = nullptr;
    for (const Mount& mount : mounts) {
        if (mount.v2 != membership.v2) continue;
        if (!mount.v2 && !contains(mount.controllers, controller)) continue;
        if (fallback == nullptr) fallback = &mount;
        const auto relative = relative_to(membership.path, mount.root);
        std::error_code ignored;
        if (!relative || !fs::is_directory(mount.point / *relative, ignored)) continue;
        std::vector<fs::path> directories;
        for (fs::path below = *relative; !below.empty(); below = below.parent_path()) {
            directories.push_back(mount.point / below);
        }
        directories.push_back(mount.point);
        return directories;
    }
    if (fallback == nullptr) return {};
    return {fallback->point};
}

/// Processors' worth of time that a group may take; infinity when unlimited.
double read_quota(const fs::path& group, bool v2) {
    constexpr double kUnlimited = std::numeric_limits<double>::infinity();
    const fs::path file = group / (v2 ? "cpu.max" : "cpu.cfs_quota_us");
    int64_t quota = 0;  // microseconds, as the period
    int64_t period = 0;
    if (v2) {
        const auto words = read_words(file);
        if (!words) return kUnlimited;
        if (words->size() != 2) {
            throw_not_understood(file, "two words", std::to_string(words->size()) + " of them");
        }
        if (words->front() == "max") return kUnlimited;
        quota = parse_number<int64_t>(file, words->front());
        period = parse_number<int64_t>(file, words->back());
    } else {
        const auto limit = read_number<int64_t>(file);
        if (!limit || *limit == -1) return kUnlimited;
        quota = *limit;
        period = read_number<int64_t>(group / "cpu.cfs_period_us").value_or(0);
    }
    if (quota <= 0 || period <= 0) {
        throw_not_understood(file, "a quota and a period above 0",
                             std::to_string(quota) + " " + std::to_string(period));
    }
    return static_cast<double>(quota) / static_cast<double>(period);
}

struct MemoryGroup {
    uint64_t limit = 0;
    uint64_t available = 0;
};

/// Limit of a group and what it leaves; nothing when unlimited.
std::optional<MemoryGroup> read_memory_group(const fs::path& group, bool v2) {
    // v1 writes "unlimited" as the largest number of whole pages.
    constexpr uint64_t kUnlimited = uint64_t{1} << 62U;
    const auto limit = read_number<uint64_t>(group / (v2 ? "memory.max" : "memory.limit_in_bytes"));
    if (!limit || *limit >= kUnlimited) return std::nullopt;

    const fs::path usage_file = group / (v2 ? "memory.current" : "memory.usage_in_bytes");
    const auto usage = read_number<uint64_t>(usage_file);
    if (!usage) throw_not_understood(usage_file, "a number, as the group has a limit", "nothing");
    bool found = false;
    const fs::path statistics = group / "memory.stat";
    const uint64_t reclaimable =
        v2 ? sum_of_lines(statistics, {"active_file", "inactive_file"}, found)
           : sum_of_lines(statistics, {"total_active_file", "total_inactive_file"}, found);
    const uint64_t kept = *usage - std::min(*usage, reclaimable);
    return MemoryGroup{*limit, *limit - std::min(*limit, kept)};
}

void apply_control_groups(const std::string& root, HostLimits& limits) {
    const auto mounts = read_mounts(root);
    double quota = std::numeric_limits<double>::infinity();
    // In a hybrid system a controller is in one hierarchy only; the other has no such files.
    for (const Membership& membership : read_memberships(root)) {
        if (membership.v2 || contains(membership.controllers, "cpu")) {
            for (const fs::path& group : group_directories(mounts, membership, "cpu")) {
                quota = std::min(quota, read_quota(group, membership.v2));
            }
        }
        if (membership.v2 || contains(membership.controllers, "memory")) {
            for (const fs::path& group : group_directories(mounts, membership, "memory")) {
                const auto memory = read_memory_group(group, membership.v2);
                if (!memory) continue;
                limits.memory_available = std::min(limits.memory_available, memory->available);
                limits.memory_limit = limits.memory_limit == 0
                                          ? memory->limit
                                          : std::min(limits.memory_limit, memory->limit);
            }
        }
    }
    if (std::isfinite(quota)) limits.cpu_quota = quota;
}

void read_memory(const std::string& root, HostLimits& limits) {
    const fs::path file = root + "/proc/meminfo";
    bool found = false;
    limits.memory_total = sum_of_lines(file, {"MemTotal:"}, found) * 1024;
    if (!found) throw_not_understood(file, "a MemTotal line", "none");
    limits.memory_available = sum_of_lines(file, {"MemAvailable:"}, found) * 1024;
    if (!found) throw_not_understood(file, "a MemAvailable line", "none");
}

}  // namespace

HostLimits read_host_limits(const std::string& root) {
    HostLimits limits;
    limits.processors = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
    limits.affinity = count_affinity();
    read_memory(root, limits);
    apply_control_groups(root, limits);
    limits.threads = limits.affinity;
    if (limits.cpu_quota > 0.0) {
        limits.threads =
            static_cast<int>(std::min<double>(limits.affinity, std::ceil(limits.cpu_quota)));
    }
    limits.threads = std::max(limits.threads, 1);
    limits.isa = read_isa();
    limits.cpu_name = read_cpu_name();
    return limits;
}

}  // namespace ovfast
