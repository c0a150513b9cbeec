#pragma once

// What the AMX files share, and their packing for tests. The packing needs AVX-512 (and AVX-512
// BF16 where said), but no tiles.

#include <cstddef>
#include <cstdint>

#include "kernels/linear.hpp"

namespace ovfast::kernels {

/// Which tile shapes a kernel loads; of all eight tiles, for ldtilecfg.
struct alignas(64) TileConfig {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

/// Codes of one chunk (32 columns of a row block; 4, 5, 6 or 8 bits) as the rows of a B tile: byte
/// 64 * j + 4 * lane + b is column 4j + b of row `lane`. Symmetric codes come signed, others
/// unsigned.
/// Signed ones are  factor * (code - 2^(bits-1)),  since shifting them to the top of their byte
/// costs less than extending their sign. `out` has 512 bytes, aligned to 64. Returns factor.
int amx_unpack_codes(const WeightFormat& format, const std::byte* chunk, int8_t* out);

/// Chunks [first_chunk, last_chunk) of a row block in bf16, as B tiles of 512 values: value
/// 32 * p + 2 * lane + i of a tile is column 2p + i of row `lane`. Not for bf16 weights, which are
/// stored like this. `out` is aligned to 64. Needs AVX-512 BF16; numbers below 2^-126 become zero.
void amx_bf16_tiles(const PackedWeights& weights, size_t block, size_t first_chunk,
                    size_t last_chunk, uint16_t* out);

extern const LinearKernel amx_int8_few_rows;

}  // namespace ovfast::kernels
