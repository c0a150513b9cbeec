#pragma once

#include <cstdint>
#include <optional>

namespace ovfast::kernels {

/// A loop of independent multiply-adds of one kind, which a processor runs as fast as it issues
/// them: what kernels can be measured against.
struct PeakLoop {
    const char* instruction;          ///< "vpdpbusd zmm"
    double operations_per_iteration;  ///< a multiply-add counts as two
    void (*run)(int64_t iterations);
};

/// u8 times s8 into i32 in vectors: vpdpbusd where AVX-512 VNNI or AVX-VNNI is supported, else the
/// three instructions of AVX2 that stand in for it. Nothing without AVX2.
std::optional<PeakLoop> int8_peak_loop();

/// The same in tiles. Nothing without AMX.
std::optional<PeakLoop> int8_tile_peak_loop();

/// f32 fused multiply-adds of AVX-512 or AVX2. Nothing without AVX2.
std::optional<PeakLoop> f32_peak_loop();

}  // namespace ovfast::kernels
