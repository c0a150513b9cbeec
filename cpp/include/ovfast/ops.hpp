#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ovfast/export.hpp"

namespace ov {
class Core;
}

namespace ovfast {

/// Lets `core` read and run models with ovfast's operations, as `core.add_extension(
/// "libovfast_ops.so")` does.
OVFAST_API void register_ops(ov::Core& core);

/// Instruction sets that kernels exist for and this machine can run: "scalar", "avx2", "avx_vnni",
/// "avx512_vnni", "amx". OVFAST_FORCE_ISA names one of them.
OVFAST_API std::vector<std::string> supported_isas();

/// How often each kernel ran in this process: which path was taken.
OVFAST_API std::vector<std::pair<std::string, uint64_t>> kernel_calls();

}  // namespace ovfast
