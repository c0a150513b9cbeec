// Attention over paged keys and values in bf16: what few queries need, softmax, and the choice of
// AMX for more. The online softmax over chunks of tokens is that of FlashAttention (Dao et al.,
// 2022), the pieces that are merged afterwards that of Flash-Decoding.

#include <cmath>
#include <cstring>

#include "kernels/attention.hpp"
#include "kernels/attention_amx.hpp"
#include "kernels/avx512_inl.hpp"

namespace ovfast::kernels {
namespace {

inline __mmask16 lanes_between(size_t first, size_t last, size_t base) {
    const auto below = [&](size_t end) {
        const size_t lanes = end > base ? end - base : 0;
        return lanes >= 16 ? 0xFFFFU : (1U << lanes) - 1;
    };
    return static_cast<__mmask16>(below(last) & ~below(first));
}

inline __m512bh as_pairs(__m512i bits) {
    __m512bh pairs;
    static_assert(sizeof(pairs) == sizeof(bits));
    __builtin_memcpy(&pairs, &bits, sizeof(pairs));
    return pairs;
}

inline __m512bh load_pairs(const uint16_t* at) {
    return as_pairs(_mm512_loadu_si512(at));
}

inline __m512bh broadcast_pair(const uint16_t* at) {
    int32_t pair;
    __builtin_memcpy(&pair, at, 4);
    return as_pairs(_mm512_set1_epi32(pair));
}

inline void store_bf16(__m512 values, uint16_t* to) {
    const __m256bh rounded = _mm512_cvtneps_pbh(values);
    __builtin_memcpy(to, &rounded, 32);
}

AttentionBuffers lay_out(const AttentionShape& shape, size_t queries, std::byte* scratch) {
    AttentionBuffers buffers{};
    buffers.scores = reinterpret_cast<float*>(scratch);
    buffers.sums = buffers.scores + queries * kAttentionChunk;
    buffers.weights = reinterpret_cast<uint16_t*>(buffers.sums + queries * shape.value_size);
    buffers.queries = buffers.weights + queries * kAttentionChunk;
    return buffers;
}

size_t scratch_of(const AttentionShape& shape, size_t queries) {
    return queries * (kAttentionChunk * 6 + shape.value_size * 4 + shape.key_size * 2);
}

bool use_amx(size_t queries) {
    return queries > kAttentionFewQueries && allowed(Isa::Amx);
}

// Scores of Queries queries against one block.
template <int Queries>
void block_scores(const AttentionShape& shape, const uint16_t* queries, const uint16_t* keys,
                  float* scores) {
    __m512 sums[Queries][2];
#pragma GCC unroll 8
    for (int m = 0; m < Queries; ++m) {
        sums[m][0] = _mm512_setzero_ps();
        sums[m][1] = _mm512_setzero_ps();
    }
    for (size_t channel = 0; channel < shape.key_size; channel += 2) {
        const __m512bh low = load_pairs(keys + channel * kAttentionBlock);
        const __m512bh high = load_pairs(keys + channel * kAttentionBlock + 32);
#pragma GCC unroll 8
        for (int m = 0; m < Queries; ++m) {
            const __m512bh query = broadcast_pair(queries + m * shape.key_size + channel);
            sums[m][0] = _mm512_dpbf16_ps(sums[m][0], low, query);
            sums[m][1] = _mm512_dpbf16_ps(sums[m][1], high, query);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < Queries; ++m) {
        _mm512_storeu_ps(scores + m * kAttentionChunk, sums[m][0]);
        _mm512_storeu_ps(scores + m * kAttentionChunk + 16, sums[m][1]);
    }
}

template <int Queries>
void few_scores(const AttentionShape& shape, const uint16_t* queries, const KvLayer& layer,
                size_t kv_head, const int32_t* blocks, size_t count, float* scores) {
    for (size_t b = 0; b < count; ++b) {
        const auto block = static_cast<size_t>(blocks[b]);
        const uint16_t* keys = layer.keys + (block * shape.kv_heads + kv_head) * shape.key_block();
        block_scores<Queries>(shape, queries, keys, scores + b * kAttentionBlock);
    }
}

template <int Queries>
void few_weighted_sums(const AttentionShape& shape, const uint16_t* weights, const KvLayer& layer,
                       size_t kv_head, const int32_t* blocks, size_t count, float* sums) {
    for (size_t channel = 0; channel < shape.value_size; channel += 32) {
        __m512 totals[Queries][2];
#pragma GCC unroll 8
        for (int m = 0; m < Queries; ++m) {
            totals[m][0] = _mm512_setzero_ps();
            totals[m][1] = _mm512_setzero_ps();
        }
        for (size_t b = 0; b < count; ++b) {
            const auto block = static_cast<size_t>(blocks[b]);
            const uint16_t* values = layer.values +
                                     (block * shape.kv_heads + kv_head) * shape.value_block() +
                                     channel * 2;
            const uint16_t* pairs = weights + b * kAttentionBlock;
            for (size_t t = 0; t < kAttentionBlock; t += 2) {
                const __m512bh low = load_pairs(values + t * shape.value_size);
                const __m512bh high = load_pairs(values + t * shape.value_size + 32);
#pragma GCC unroll 8
                for (int m = 0; m < Queries; ++m) {
                    const __m512bh weight = broadcast_pair(pairs + m * kAttentionChunk + t);
                    totals[m][0] = _mm512_dpbf16_ps(totals[m][0], low, weight);
                    totals[m][1] = _mm512_dpbf16_ps(totals[m][1], high, weight);
                }
            }
        }
#pragma GCC unroll 8
        for (int m = 0; m < Queries; ++m) {
            _mm512_storeu_ps(sums + m * shape.value_size + channel, totals[m][0]);
            _mm512_storeu_ps(sums + m * shape.value_size + channel + 16, totals[m][1]);
        }
    }
}

using Scores = void (*)(const AttentionShape&, const uint16_t*, const KvLayer&, size_t,
                        const int32_t*, size_t, float*);
using WeightedSums = Scores;

struct Multiplications {
    Scores scores;
    WeightedSums weighted_sums;
};

Multiplications multiplications(size_t queries) {
    static constexpr Multiplications few[kAttentionFewQueries] = {
        {few_scores<1>, few_weighted_sums<1>}, {few_scores<2>, few_weighted_sums<2>},
        {few_scores<3>, few_weighted_sums<3>}, {few_scores<4>, few_weighted_sums<4>},
        {few_scores<5>, few_weighted_sums<5>}, {few_scores<6>, few_weighted_sums<6>},
        {few_scores<7>, few_weighted_sums<7>}, {few_scores<8>, few_weighted_sums<8>}};
    if (queries <= kAttentionFewQueries) return few[queries - 1];
    return {amx_scores, amx_weighted_sums};
}

// Tokens that the query sees: its own and those before it.
struct Visible {
    size_t first;
    size_t last;
};

Visible visible(const AttentionShape& shape, const AttentionSequence& sequence, size_t query) {
    const size_t last = sequence.past + query % sequence.rows + 1;
    const size_t first = shape.window != 0 && last > shape.window ? last - shape.window : 0;
    return {first, last};
}

// Turns one query's scores of a chunk into bf16 weights and returns their sum; `maximum` is that of
// the scores so far and becomes the new one.
float softmax_chunk(float* scores, size_t length, size_t first, size_t last, float& maximum,
                    uint16_t* weights) {
    const __m512 minus_infinity = _mm512_set1_ps(-INFINITY);
    __m512 largest = _mm512_set1_ps(maximum);
    for (size_t i = 0; i < length; i += 16) {
        const __mmask16 seen = lanes_between(first, last, i);
        const __m512 score = _mm512_mask_loadu_ps(minus_infinity, seen, scores + i);
        largest = _mm512_max_ps(largest, score);
    }
    maximum = _mm512_reduce_max_ps(largest);
    const __m512 shift = _mm512_set1_ps(maximum);
    __m512 sum = _mm512_setzero_ps();
    for (size_t i = 0; i < length; i += 16) {
        const __mmask16 seen = lanes_between(first, last, i);
        const __m512 score = _mm512_maskz_loadu_ps(seen, scores + i);
        const __m512 weight = _mm512_maskz_mov_ps(seen, exponential(_mm512_sub_ps(score, shift)));
        sum = _mm512_add_ps(sum, weight);
        store_bf16(weight, weights + i);
    }
    return _mm512_reduce_add_ps(sum);
}

void load_queries(const AttentionShape& shape, const AttentionInput& input,
                  const AttentionSequence& sequence, const AttentionPiece& piece, size_t first,
                  size_t count, size_t tile, uint16_t* queries) {
    const __m512 scale = _mm512_set1_ps(shape.scale);
    const size_t group = shape.heads / shape.kv_heads;
    for (size_t i = 0; i < count; ++i) {
        const size_t head = piece.kv_head * group + (first + i) / sequence.rows;
        const size_t row = sequence.first_row + (first + i) % sequence.rows;
        const float* from = input.q + row * input.q_stride + head * shape.key_size;
        for (size_t c = 0; c < shape.key_size; c += 16) {
            store_bf16(_mm512_mul_ps(_mm512_loadu_ps(from + c), scale),
                       queries + i * shape.key_size + c);
        }
    }
    std::memset(queries + count * shape.key_size, 0, (tile - count) * shape.key_size * 2);
}

void attend_tile(const AttentionShape& shape, const AttentionInput& input,
                 const AttentionSequence& sequence, const KvLayer& layer,
                 const AttentionPiece& piece, size_t first, size_t count, size_t tile,
                 const AttentionBuffers& buffers, const AttentionPartial& partial) {
    load_queries(shape, input, sequence, piece, first, count, tile, buffers.queries);
    for (size_t i = 0; i < count; ++i) {
        partial.maximum[i] = -INFINITY;
        partial.sum[i] = 0.0F;
        std::memset(partial.weighted + i * shape.value_size, 0, shape.value_size * sizeof(float));
    }
    // Blocks that no query of the tile sees are left out.
    size_t from = piece.to_token;
    size_t to = piece.from_token;
    for (size_t i = 0; i < count; ++i) {
        const Visible seen = visible(shape, sequence, first + i);
        from = seen.first < from ? seen.first : from;
        to = seen.last > to ? seen.last : to;
    }
    from = from > piece.from_token ? from : piece.from_token;
    to = to < piece.to_token ? to : piece.to_token;
    from = from / kAttentionBlock * kAttentionBlock;

    const Multiplications multiply = multiplications(tile);
    for (size_t token = from; token < to; token += kAttentionChunk) {
        const size_t left = to - token;
        const size_t tokens = left < kAttentionChunk ? left : kAttentionChunk;
        const size_t blocks = (tokens + kAttentionBlock - 1) / kAttentionBlock;
        const int32_t* numbers = sequence.blocks + token / kAttentionBlock;
        multiply.scores(shape, buffers.queries, layer, piece.kv_head, numbers, blocks,
                        buffers.scores);
        float rescale[kAttentionManyQueries];
        for (size_t i = 0; i < tile; ++i) {
            uint16_t* weights = buffers.weights + i * kAttentionChunk;
            const Visible seen = i < count ? visible(shape, sequence, first + i) : Visible{0, 0};
            const size_t last = seen.last < token + tokens ? seen.last : token + tokens;
            const size_t begin = seen.first > token ? seen.first - token : 0;
            if (last <= token + begin) {  // sees nothing of this chunk
                std::memset(weights, 0, blocks * kAttentionBlock * 2);
                rescale[i] = 1.0F;
                continue;
            }
            const float before = partial.maximum[i];
            const float sum =
                softmax_chunk(buffers.scores + i * kAttentionChunk, blocks * kAttentionBlock, begin,
                              last - token, partial.maximum[i], weights);
            rescale[i] = std::exp(before - partial.maximum[i]);
            partial.sum[i] = partial.sum[i] * rescale[i] + sum;
        }
        multiply.weighted_sums(shape, buffers.weights, layer, piece.kv_head, numbers, blocks,
                               buffers.sums);
        for (size_t i = 0; i < count; ++i) {
            float* weighted = partial.weighted + i * shape.value_size;
            const float* sums = buffers.sums + i * shape.value_size;
            const __m512 factor = _mm512_set1_ps(rescale[i]);
            for (size_t c = 0; c < shape.value_size; c += 16) {
                _mm512_storeu_ps(weighted + c, _mm512_fmadd_ps(_mm512_loadu_ps(weighted + c),
                                                               factor, _mm512_loadu_ps(sums + c)));
            }
        }
    }
}

}  // namespace

size_t attention_scratch_bytes(const AttentionShape& shape, size_t queries) {
    return scratch_of(shape, use_amx(queries) ? kAttentionManyQueries : kAttentionFewQueries);
}

void store_keys_values(const AttentionShape& shape, const AttentionInput& input,
                       const AttentionSequence& sequence, size_t kv_head, const KvLayer& layer) {
    for (size_t row = 0; row < sequence.rows; ++row) {
        const size_t position = sequence.past + row;
        const size_t slot = position % kAttentionBlock;
        const auto block = static_cast<size_t>(sequence.blocks[position / kAttentionBlock]);
        uint16_t* keys = layer.keys + (block * shape.kv_heads + kv_head) * shape.key_block();
        uint16_t* values = layer.values + (block * shape.kv_heads + kv_head) * shape.value_block();
        if (slot == 0) {
            std::memset(keys, 0, shape.key_block() * 2);
            std::memset(values, 0, shape.value_block() * 2);
        }
        const size_t in_row = sequence.first_row + row;
        const float* k = input.k + in_row * input.k_stride + kv_head * shape.key_size;
        const float* v = input.v + in_row * input.v_stride + kv_head * shape.value_size;
        alignas(32) uint16_t rounded[16];
        for (size_t c = 0; c < shape.key_size; c += 16) {
            store_bf16(_mm512_loadu_ps(k + c), rounded);
            for (size_t i = 0; i < 16; i += 2) {
                std::memcpy(keys + (c + i) * kAttentionBlock + slot * 2, rounded + i, 4);
            }
        }
        uint16_t* to = values + slot / 2 * shape.value_size * 2 + slot % 2;
        for (size_t c = 0; c < shape.value_size; c += 16) {
            store_bf16(_mm512_loadu_ps(v + c), rounded);
            for (size_t i = 0; i < 16; ++i) to[(c + i) * 2] = rounded[i];
        }
    }
}

void attend(const AttentionShape& shape, const AttentionInput& input,
            const AttentionSequence& sequence, const KvLayer& layer, const AttentionPiece& piece,
            const AttentionPartial& partial, std::byte* scratch) {
    const size_t queries = piece.last_query - piece.first_query;
    const bool amx = use_amx(queries);
    const size_t most = amx ? kAttentionManyQueries : kAttentionFewQueries;
    for (size_t done = 0; done < queries;) {
        const size_t count = queries - done < most ? queries - done : most;
        const size_t tile = amx ? kAttentionManyQueries : count;
        const AttentionBuffers buffers = lay_out(shape, tile, scratch);
        const AttentionPartial part{partial.maximum + done, partial.sum + done,
                                    partial.weighted + done * shape.value_size};
        attend_tile(shape, input, sequence, layer, piece, piece.first_query + done, count, tile,
                    buffers, part);
        done += count;
    }
}

void merge_attention(const AttentionShape& shape, const float* maxima, const float* sums,
                     const float* weighted, size_t count, size_t stride, float* out) {
    float maximum = -INFINITY;
    for (size_t i = 0; i < count; ++i) maximum = std::fmax(maximum, maxima[i * stride]);
    float total = 0.0F;
    for (size_t c = 0; c < shape.value_size; c += 16) {
        _mm512_storeu_ps(out + c, _mm512_setzero_ps());
    }
    for (size_t i = 0; i < count; ++i) {
        if (maxima[i * stride] == -INFINITY) continue;  // saw no token
        const float factor = std::exp(maxima[i * stride] - maximum);
        total += sums[i * stride] * factor;
        const float* from = weighted + i * stride * shape.value_size;
        for (size_t c = 0; c < shape.value_size; c += 16) {
            _mm512_storeu_ps(out + c,
                             _mm512_fmadd_ps(_mm512_loadu_ps(from + c), _mm512_set1_ps(factor),
                                             _mm512_loadu_ps(out + c)));
        }
    }
    const __m512 divisor = _mm512_set1_ps(total);
    for (size_t c = 0; c < shape.value_size; c += 16) {
        _mm512_storeu_ps(out + c, _mm512_div_ps(_mm512_loadu_ps(out + c), divisor));
    }
}

}  // namespace ovfast::kernels
