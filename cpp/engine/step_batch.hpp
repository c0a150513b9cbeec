#pragma once

#include <cstdint>
#include <vector>

namespace ovfast {

/// What one step computes: tokens of several sequences, one after the other.
struct StepBatch {
    std::vector<int64_t> token_ids;     ///< [tokens]
    std::vector<int64_t> positions;     ///< [tokens], place of each in its sequence
    std::vector<uint64_t> sequences;    ///< [sequences], which they are
    std::vector<int32_t> past_lengths;  ///< [sequences], tokens already in the cache
    std::vector<int32_t> begins = {0};  ///< [sequences + 1], where each sequence's tokens begin
    std::vector<int32_t> blocks;        ///< cache blocks of all sequences, in order
    std::vector<int32_t> block_begins = {0};  ///< [sequences + 1]
    std::vector<int64_t> logit_rows;          ///< tokens of this step whose logits are wanted
    /// How many of the largest logits of each row are wanted, of the first so many words; 0: all.
    std::vector<int64_t> top_k = {0, 0};
    /// Logits, as row * vocabulary + word, that do not count for that: see ops/lm_head.hpp.
    std::vector<int64_t> not_counted;
    int32_t max_context = 0;  ///< longest sequence, this step's tokens included

    /// Empties it and keeps the memory.
    void clear() {
        token_ids.clear();
        positions.clear();
        sequences.clear();
        past_lengths.clear();
        begins.assign(1, 0);
        blocks.clear();
        block_begins.assign(1, 0);
        logit_rows.clear();
        top_k.assign(2, 0);
        not_counted.clear();
        max_context = 0;
    }
};

}  // namespace ovfast
