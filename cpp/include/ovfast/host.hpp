#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ovfast/export.hpp"

namespace ovfast {

/// What this process may use of the machine: the tightest of hardware, affinity and cgroup limits.
struct OVFAST_API HostLimits {
    /// Processors of the machine.
    int processors = 0;
    /// Processors in this process's affinity mask (also what a cpuset leaves).
    int affinity = 0;
    /// CPU time quota of the cgroup in processors (1.5 = one and a half); 0 when unlimited.
    double cpu_quota = 0.0;
    /// Threads to compute with: min(affinity, ceil(cpu_quota)), at least 1.
    int threads = 0;

    /// Physical memory, bytes.
    uint64_t memory_total = 0;
    /// Bytes that can still be used: MemAvailable, or what the cgroup limit leaves if that is less.
    /// Page cache that the cgroup can reclaim counts as available.
    uint64_t memory_available = 0;
    /// Memory limit of the cgroup, bytes; 0 when unlimited.
    uint64_t memory_limit = 0;

    /// Instruction sets that the processor has and the operating system lets us use, e.g. "avx2",
    /// "avx512_vnni", "avx512_bf16", "amx_int8". Sorted.
    std::vector<std::string> isa;
    std::string cpu_name;
};

/// Reads the limits anew. Understands cgroup v1, v2 and hybrid hierarchies, nested groups included.
/// `root` stands in for "/" in tests (root/proc/self/cgroup, root/sys/fs/cgroup, ...).
OVFAST_API HostLimits read_host_limits(const std::string& root = "");

/// Memory of this process now, bytes (Linux /proc/self/status).
struct OVFAST_API ProcessMemory {
    uint64_t peak_rss = 0;  ///< VmHWM
    uint64_t rss = 0;       ///< VmRSS
    uint64_t rss_file = 0;  ///< RssFile + RssShmem: file-backed pages, shared with other processes
    uint64_t rss_anon = 0;  ///< RssAnon: private
};
OVFAST_API ProcessMemory read_process_memory();

/// Bytes a second that `threads` threads (0: read_host_limits().threads) read together from
/// `megabytes` MiB of memory, front to back: what a decoding step is bound by. The median of five
/// passes; some 0.3 s. Throws std::invalid_argument for less than 1 MiB.
OVFAST_API double read_bandwidth(int threads = 0, int64_t megabytes = 1024);
/// One such pass over memory of the caller's, whose words are all at least 1.
OVFAST_API double read_rate(const std::vector<uint64_t>& memory, int threads);

}  // namespace ovfast
