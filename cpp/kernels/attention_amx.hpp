#pragma once

#include "kernels/attention.hpp"

// What attention.cpp's two implementations share with each other.
namespace ovfast::kernels {

/// Tokens whose scores are kept at a time; softmax runs over them at once.
inline constexpr size_t kAttentionChunk = 512;
inline constexpr size_t kAttentionFewQueries = 8;
inline constexpr size_t kAttentionManyQueries = 32;

/// Memory of one tile of queries, carved out of scratch.
struct AttentionBuffers {
    uint16_t* queries;  ///< bf16 [queries][key_size], scaled
    float* scores;      ///< [queries][kAttentionChunk]
    uint16_t* weights;  ///< bf16 [queries][kAttentionChunk]
    float* sums;        ///< [queries][value_size]
};

/// Scores of up to 32 queries against `blocks` blocks of keys, by AMX. `first_block` points at the
/// sequence's block numbers.
void amx_scores(const AttentionShape& shape, const uint16_t* queries, const KvLayer& layer,
                size_t kv_head, const int32_t* blocks, size_t count, float* scores);

/// sums = weights V over the same blocks.
void amx_weighted_sums(const AttentionShape& shape, const uint16_t* weights, const KvLayer& layer,
                       size_t kv_head, const int32_t* blocks, size_t count, float* sums);

}  // namespace ovfast::kernels
