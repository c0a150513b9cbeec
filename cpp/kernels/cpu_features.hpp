#pragma once

#include <optional>
#include <string>
#include <vector>

namespace ovfast::kernels {

/// Instruction sets that kernels are written for, in order of preference. Feature bits, not a
/// ladder: AVX-VNNI exists on processors without AVX-512.
enum class Isa { Scalar, Avx2, AvxVnni, Avx512Vnni, Amx };

/// "scalar", "avx2", "avx_vnni", "avx512_vnni", "amx".
const char* name(Isa isa);

/// Whether the processor has the instructions, the system saves their registers (XCR0), and, for
/// AMX, the kernel has granted this process the tile registers (asked for at the first call).
///   Avx2        AVX2, FMA, F16C
///   AvxVnni     Avx2 and AVX-VNNI
///   Avx512Vnni  AVX-512 F, BW, DQ, VL, VBMI and VNNI
///   Amx         Avx512Vnni, AVX-512 BF16, AMX TILE, INT8 and BF16
bool supported(Isa isa);

/// Whether AVX-512 comes with BF16 (part of Amx, but older than AMX).
bool supports_avx512_bf16();

/// Every supported instruction set; Scalar always.
std::vector<Isa> supported_isas();

/// What OVFAST_FORCE_ISA names, read once; nothing when it is unset or empty. Throws
/// std::invalid_argument, listing what is supported here, when it names something unknown or
/// unsupported.
std::optional<Isa> forced_isa();

/// For tests: overrides forced_isa() in this process until called with nothing.
void force_isa(std::optional<Isa> isa);

/// Whether kernels of `isa` may be chosen: supported and, when one is forced, that one or Scalar
/// (which stands in where the forced one has no kernel of a kind). A forced Amx also allows
/// Avx512Vnni, since AMX only pays for several rows.
bool allowed(Isa isa);

}  // namespace ovfast::kernels
