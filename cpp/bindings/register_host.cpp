#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "ovfast/host.hpp"
#include "ovfast/version.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace ovfast::python {
namespace {

void register_limits(py::module_& m) {
    py::class_<HostLimits>(m, "HostLimits",
                           "What this process may use of the machine: the tightest of hardware, "
                           "affinity and cgroup limits.")
        .def_readonly("processors", &HostLimits::processors, "Processors of the machine.")
        .def_readonly("affinity", &HostLimits::affinity,
                      "Processors in this process's affinity mask (also what a cpuset leaves).")
        .def_readonly("cpu_quota", &HostLimits::cpu_quota,
                      "CPU time quota of the cgroup in processors; 0 when unlimited.")
        .def_readonly("threads", &HostLimits::threads,
                      "Threads to compute with: min(affinity, ceil(cpu_quota)), at least 1.")
        .def_readonly("memory_total", &HostLimits::memory_total, "Physical memory, bytes.")
        .def_readonly("memory_available", &HostLimits::memory_available,
                      "Bytes that can still be used; page cache that can be reclaimed counts.")
        .def_readonly("memory_limit", &HostLimits::memory_limit,
                      "Memory limit of the cgroup, bytes; 0 when unlimited.")
        .def_readonly("isa", &HostLimits::isa,
                      "Instruction sets that the processor has and the operating system lets us "
                      "use, named as in /proc/cpuinfo, sorted.")
        .def_readonly("cpu_name", &HostLimits::cpu_name)
        .def("__repr__", [](const HostLimits& h) {
            return py::str(
                       "HostLimits(processors={}, affinity={}, cpu_quota={:g}, threads={}, "
                       "memory_total={}, memory_available={}, memory_limit={}, isa={!r}, "
                       "cpu_name={!r})")
                .format(h.processors, h.affinity, h.cpu_quota, h.threads, h.memory_total,
                        h.memory_available, h.memory_limit, h.isa, h.cpu_name);
        });

    m.def("read_host_limits", &read_host_limits, py::arg("root") = "",
          "Reads the limits anew: affinity, cgroup v1, v2 and hybrid, nested groups included.\n\n"
          "root stands in for '/' in tests. Raises Error when a file of the kernel cannot be "
          "understood.");
}

void register_memory(py::module_& m) {
    py::class_<ProcessMemory>(m, "ProcessMemory", "Memory of this process, bytes.")
        .def_readonly("peak_rss", &ProcessMemory::peak_rss, "VmHWM.")
        .def_readonly("rss", &ProcessMemory::rss, "VmRSS.")
        .def_readonly("rss_file", &ProcessMemory::rss_file,
                      "RssFile + RssShmem: file-backed pages, shared with other processes.")
        .def_readonly("rss_anon", &ProcessMemory::rss_anon, "RssAnon: private pages.")
        .def("__repr__", [](const ProcessMemory& p) {
            return py::str("ProcessMemory(peak_rss={}, rss={}, rss_file={}, rss_anon={})")
                .format(p.peak_rss, p.rss, p.rss_file, p.rss_anon);
        });

    m.def("read_bandwidth", &read_bandwidth, py::arg("threads") = 0, py::arg("megabytes") = 1024,
          py::call_guard<py::gil_scoped_release>(),
          "Bytes a second that the threads read together, front to back; 0 threads: as many as\n"
          "we compute with. Takes some 0.3 s.");
    m.def("read_process_memory", &read_process_memory,
          "Memory of this process now. Raises Error when /proc/self/status lacks a field.");
}

}  // namespace

void register_host(py::module_& m) {
    register_limits(m);
    register_memory(m);
    m.def("version", &version, "Version of ovfast.");
    m.def("openvino_built_version", &openvino_built_version,
          "OpenVINO version that ovfast was compiled against, e.g. '2026.4.1'.");
    m.def("openvino_loaded_version", &openvino_loaded_version,
          "Version of the OpenVINO library that is loaded, with its build number.");
}

}  // namespace ovfast::python
