// The two multiplications of attention for a tile of 32 queries, in AMX tiles of bf16.

#include "kernels/attention_amx.hpp"

#include <immintrin.h>

namespace ovfast::kernels {
namespace {

struct alignas(64) TileConfig {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t column_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Releases the tiles on the way out: other code in this thread configures its own.
class Tiles {
public:
    Tiles() {
        static constexpr TileConfig config;
        _tile_loadconfig(&config);
    }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

void zero_sums() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

// Tiles 0..3 += {4, 5} x {6, 7}.
void multiply() {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

}  // namespace

void amx_scores(const AttentionShape& shape, const uint16_t* queries, const KvLayer& layer,
                size_t kv_head, const int32_t* blocks, size_t count, float* scores) {
    const Tiles tiles;
    const size_t query_bytes = shape.key_size * 2;
    constexpr size_t score_bytes = kAttentionChunk * sizeof(float);
    for (size_t b = 0; b < count; ++b) {
        const auto block = static_cast<size_t>(blocks[b]);
        const uint16_t* keys = layer.keys + (block * shape.kv_heads + kv_head) * shape.key_block();
        zero_sums();
        for (size_t channel = 0; channel < shape.key_size; channel += 32) {
            _tile_loadd(4, queries + channel, query_bytes);
            _tile_loadd(5, queries + 16 * shape.key_size + channel, query_bytes);
            // Rows of pairs of channels, 32 tokens of 4 bytes each.
            const uint16_t* pairs = keys + channel * kAttentionBlock;
            _tile_loadd(6, pairs, 128);
            _tile_loadd(7, pairs + 32, 128);
            multiply();
        }
        float* to = scores + b * kAttentionBlock;
        _tile_stored(0, to, score_bytes);
        _tile_stored(1, to + 16, score_bytes);
        _tile_stored(2, to + 16 * kAttentionChunk, score_bytes);
        _tile_stored(3, to + 16 * kAttentionChunk + 16, score_bytes);
    }
}

void amx_weighted_sums(const AttentionShape& shape, const uint16_t* weights, const KvLayer& layer,
                       size_t kv_head, const int32_t* blocks, size_t count, float* sums) {
    const Tiles tiles;
    constexpr size_t weight_bytes = kAttentionChunk * 2;
    const size_t pair_bytes = shape.value_size * 4;
    const size_t sum_bytes = shape.value_size * sizeof(float);
    for (size_t channel = 0; channel < shape.value_size; channel += 32) {
        zero_sums();
        for (size_t b = 0; b < count; ++b) {
            const auto block = static_cast<size_t>(blocks[b]);
            const uint16_t* values = layer.values +
                                     (block * shape.kv_heads + kv_head) * shape.value_block() +
                                     channel * 2;
            _tile_loadd(4, weights + b * kAttentionBlock, weight_bytes);
            _tile_loadd(5, weights + 16 * kAttentionChunk + b * kAttentionBlock, weight_bytes);
            _tile_loadd(6, values, pair_bytes);
            _tile_loadd(7, values + 32, pair_bytes);
            multiply();
        }
        float* to = sums + channel;
        _tile_stored(0, to, sum_bytes);
        _tile_stored(1, to + 16, sum_bytes);
        _tile_stored(2, to + 16 * shape.value_size, sum_bytes);
        _tile_stored(3, to + 16 * shape.value_size + 16, sum_bytes);
    }
}

}  // namespace ovfast::kernels
