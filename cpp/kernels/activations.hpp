#pragma once

#include <cstddef>
#include <cstdint>

namespace ovfast::kernels {

/// Activations [rows, columns] as a kernel wants them, padded to a multiple of 32 columns with
/// zeros. Plain pointers; whoever calls owns the memory (aligned to 64 bytes).
enum class ActivationKind {
    F32,   ///< as they are (padded copies are needed only where columns is no multiple of 32)
    Int8,  ///< quantized in groups of 32 or 128 columns
    BF16   ///< rounded to bf16
};

/// Symmetric int8 by group of 32 columns, or of 128: value = scale * code, scale = max|x| / 127,
/// code = x * (127 / max|x|) rounded to nearest even, all in f32 (so every instruction set gives
/// the same).
///   A group whose max|x| is below 2^-100 (zeros, denormals) gets codes and scale of zero.
///   A group with a NaN or an infinity gets codes of zero and a scale of NaN, so that its row of
///   results becomes NaN instead of something that looks right.
struct Int8Activations {
    const int8_t* codes = nullptr;  ///< [rows][padded]
    const float* scales = nullptr;  ///< [rows][padded / 32]
    const float* sums = nullptr;    ///< [rows][padded / 32]: scale * sum of the group's codes
    /// [rows][padded / 16]: the same for halves of a group, for weights in groups of 16.
    const float* half_sums = nullptr;
    /// Columns that have one scale: 32, or 128 (but for the last of a row). Scales and sums are
    /// stored for each 32 all the same, so that a kernel need not know.
    size_t group = 32;
};

struct Activations {
    size_t rows = 0;
    size_t columns = 0;
    size_t padded = 0;
    Int8Activations int8;
    const uint16_t* bf16 = nullptr;  ///< [rows][padded]
    const float* f32 = nullptr;      ///< [rows][padded]
};

}  // namespace ovfast::kernels
