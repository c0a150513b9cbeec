#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/packed_weights.hpp"

namespace ovfast::kernels {

/// A quantized matrix as its source holds it, row by row; what is packed and what is compared with.
/// Only the members that `format` names are used.
struct PlainWeights {
    WeightFormat format;
    size_t rows = 0;
    size_t columns = 0;
    std::vector<uint8_t> codes;        ///< [rows][columns], unsigned: signed sources add 2^(bits-1)
    std::vector<uint16_t> floats;      ///< [rows][columns], f16 or bf16 bits
    std::vector<float> scales;         ///< F16, F32: [rows][groups]; the f16 values, widened
    std::vector<float> scale_supers;   ///< SuperU8/I8: [rows][supers], widened f16
    std::vector<int16_t> scale_codes;  ///< SuperU8/I8: [rows][groups]
    std::vector<float> offsets;        ///< F16, F32: [rows][groups]
    std::vector<uint8_t> zero_points;  ///< ZeroPoint: [rows][groups]
    std::vector<float> offset_supers;  ///< SuperU8: [rows][supers], widened f16
    std::vector<uint8_t> offset_codes;  ///< SuperU8: [rows][groups]
};

/// Writes packed_bytes(format, rows, columns) bytes to `out`, header and checksum included.
/// `out` need not be aligned. Throws std::invalid_argument when a member has the wrong size, a code
/// does not fit into its bits, or an F16 scale is no f16 value.
void pack(const PlainWeights& weights, void* out);

/// For matrices that are packed in pieces: the header, without checksum, of one whose row blocks
/// follow; and the checksum, once they are there.
void write_header(const WeightFormat& format, size_t rows, size_t columns, void* out);
void seal(void* out);

/// The matrix in f32, [rows][columns]: scale * code + offset in one rounding of f32 each
/// (std::fma). The reference for every kernel.
std::vector<float> unpack(const PackedWeights& weights);

/// One row of it into `out` [columns]. Serves embeddings: any row at a cost of one row.
void unpack_row(const PackedWeights& weights, size_t row, float* out);

/// Scales and offsets of one row block in f32, [groups][16] each; offset folds zero point and sign
/// in, so that a weight is fma(scale, code, offset). What every kernel begins a block with.
void decode_scales(const PackedWeights& weights, size_t block, float* scales, float* offsets);

/// GGML's types that pack without loss: Q4_0 Q4_1 Q4_K Q5_0 Q5_1 Q5_K Q6_K Q8_0 F16 BF16.
bool gguf_type_packs(const std::string& type);

/// Reads `rows` rows of `columns` from GGUF blocks (row after row, as in the file). Throws
/// std::invalid_argument for another type, for columns that are no multiple of the type's block and
/// when `bytes` is not what the shape needs.
PlainWeights from_gguf(const std::string& type, const void* data, size_t bytes, size_t rows,
                       size_t columns);

/// Rewrites codes in the fewest of 4, 5, 6, 8 bits that hold them all, when format.offsets is
/// Symmetric (whose codes move with the width) or ZeroPoint (whose zero point must fit too).
/// Q5_0 weights that came as i8 become 5-bit ones.
void narrow(PlainWeights& weights);

uint16_t to_f16(float value);  ///< round to nearest even
float from_f16(uint16_t bits);
uint16_t to_bf16(float value);  ///< round to nearest even; NaN stays NaN
float from_bf16(uint16_t bits);

}  // namespace ovfast::kernels
