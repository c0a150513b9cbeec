#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu_features.hpp"

namespace ovfast::kernels {

/// Keys and values of one layer: blocks of 32 tokens, in bf16, laid out as vdpbf16ps and AMX
/// multiply them. For block b and head h (of `kv_heads`):
///   keys    [key_size / 2][32 tokens][2]: pairs of channels, for scores of 16 tokens at once
///   values  [16 token pairs][value_size][2]: pairs of tokens, for sums over tokens
/// A block that is begun must be zeroed before its first token: sums over pairs read all of it.
inline constexpr size_t kAttentionBlock = 32;

struct AttentionShape {
    size_t heads = 0;
    size_t kv_heads = 0;    ///< divides heads
    size_t key_size = 0;    ///< channels of a query or key head: a multiple of 32
    size_t value_size = 0;  ///< of a value head: a multiple of 32
    float scale = 0.0F;     ///< of the scores, before softmax
    size_t window = 0;      ///< tokens that a token sees, itself included; 0: all before it

    size_t key_block() const { return key_size * kAttentionBlock; }      ///< elements, one head
    size_t value_block() const { return value_size * kAttentionBlock; }  ///< elements, one head
};

struct KvLayer {
    uint16_t* keys = nullptr;    ///< [blocks][kv_heads][key_block]
    uint16_t* values = nullptr;  ///< [blocks][kv_heads][value_block]
};

/// New tokens of one sequence. Their rows in q, k, v and out are first_row ... first_row + rows - 1
/// and their positions past ... past + rows - 1.
struct AttentionSequence {
    size_t first_row = 0;
    size_t rows = 0;
    size_t past = 0;
    const int32_t* blocks = nullptr;  ///< [ceil((past + rows) / 32)], indices into the layer
};

struct AttentionInput {
    const float* q = nullptr;  ///< [rows][heads * key_size]
    const float* k = nullptr;  ///< [rows][kv_heads * key_size]
    const float* v = nullptr;  ///< [rows][kv_heads * value_size]
    float* out = nullptr;      ///< [rows][heads * value_size]
    size_t q_stride = 0, k_stride = 0, v_stride = 0, out_stride = 0;  ///< floats from row to row
};

/// Whether attend() may be used here: AVX-512 with BF16, not ruled out by a forced instruction set.
bool attention_supported();

/// Writes the keys and values of a sequence's new tokens for one head of the cache into its blocks.
void store_keys_values(const AttentionShape& shape, const AttentionInput& input,
                       const AttentionSequence& sequence, size_t kv_head, const KvLayer& layer);

/// The queries that one head of the cache serves: rows * (heads / kv_heads) of them, numbered head
/// by head. A "piece" is the queries [first, last) against the tokens [from, to); what it finds is
/// kept apart until merge_attention() joins the pieces of a query.
struct AttentionPiece {
    size_t kv_head = 0;
    size_t first_query = 0, last_query = 0;
    size_t from_token = 0, to_token = 0;
};

/// Per query: the maximum of its scores, the sum of exp(score - maximum), and the sum of values
/// weighted so, [value_size]. A query that sees none of the tokens has a maximum of -infinity.
struct AttentionPartial {
    float* maximum = nullptr;   ///< [queries of the piece]
    float* sum = nullptr;       ///< [queries of the piece]
    float* weighted = nullptr;  ///< [queries of the piece][value_size]
};

/// Queries of one piece that are worked on well together: 32 with AMX, 8 without.
size_t attention_tile_queries();
/// Bytes of scratch (aligned to 64) that attend() needs for a piece of `queries` queries.
size_t attention_scratch_bytes(const AttentionShape& shape, size_t queries);

/// Softmax(scale * q K^T) V for one piece, to be normalized by merge_attention(). One thread's
/// work. Up to 8 queries go through vdpbf16ps, more through AMX where allowed. Queries, weights of
/// values, keys and values are rounded to bf16, sums are f32. A query with a NaN or infinity gives
/// NaN.
void attend(const AttentionShape& shape, const AttentionInput& input,
            const AttentionSequence& sequence, const KvLayer& layer, const AttentionPiece& piece,
            const AttentionPartial& partial, std::byte* scratch);

/// Joins `count` partials of one query, each `stride` queries apart, and writes [value_size].
void merge_attention(const AttentionShape& shape, const float* maxima, const float* sums,
                     const float* weighted, size_t count, size_t stride, float* out);

}  // namespace ovfast::kernels
