#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "ovfast/export.hpp"

namespace ov {
class Core;
}

namespace ovfast {

/// Lets `core` read and run models with ovfast's operations, as `core.add_extension(
/// "libovfast_ops.so")` does. Where OpenVINO sees a GPU and `gpu` is true, its plugin also gets the
/// kernels of those that run there: kernel_config() as CONFIG_FILE, which replaces one that was set
/// before. Throws ModelError that names the file when the XML or a kernel beside it is missing or
/// is not what the library was built with: the plugin itself would say little of it, and late. The
/// operations for GPUs also take the place of operations of the domain "ovfast" in ONNX models.
OVFAST_API void register_ops(ov::Core& core, bool gpu = true);

/// The XML that tells OpenVINO's GPU plugin of the OpenCL kernels; it is installed beside lib/, as
/// opencl/ovfast_ops.xml.
OVFAST_API std::filesystem::path kernel_config();

/// Types of all operations, "FullyConnected", "SwiGLU", ...
OVFAST_API std::vector<std::string> operation_names();

/// Instruction sets that kernels exist for and this machine can run: "scalar", "avx2", "avx_vnni",
/// "avx512_vnni", "amx". OVFAST_FORCE_ISA names one of them.
OVFAST_API std::vector<std::string> supported_isas();

/// How often each kernel ran in this process: which path was taken.
OVFAST_API std::vector<std::pair<std::string, uint64_t>> kernel_calls();

}  // namespace ovfast
