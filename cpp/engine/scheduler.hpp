#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "engine/block_pool.hpp"
#include "engine/prefix_cache.hpp"
#include "engine/sequence.hpp"
#include "engine/step_batch.hpp"

namespace ovfast {

/// Decides which tokens of which sequences the next step computes, and gives them cache blocks.
///
/// Sequences that decode come first, one token each; what the step's token budget leaves goes to
/// prompts, cut into chunks (Sarathi-Serve, arXiv:2403.02310), oldest first. When the cache is full
/// the youngest sequence gives its blocks back and is computed again later (vLLM,
/// arXiv:2309.06180). Not thread-safe: only the engine's thread uses it.
class Scheduler {
public:
    struct Limits {
        int64_t batch_tokens = 0;
        int64_t sequences = 0;
        int64_t block_tokens = 0;
        int64_t cached_blocks = 0;  ///< kept for prompts that begin like earlier ones
    };
    /// What the model is told of its cache; sequences go by Sequence::order. Optional but the
    /// first.
    struct CacheHooks {
        /// Copy block `from`, which several sequences hold, before one writes to it.
        std::function<void(int32_t from, int32_t to)> copy_block;
        /// Sequence `to` starts from what was computed of `from`.
        std::function<void(uint64_t from, uint64_t to)> fork;
        /// What was computed of a sequence is forgotten.
        std::function<void(uint64_t sequence)> release;
    };
    Scheduler(const Limits& limits, int32_t blocks, CacheHooks hooks);

    void add(std::unique_ptr<Sequence> sequence);

    /// Fills `batch` with the next step. Returns the sequences whose logits the step gives, in the
    /// order of batch.logit_rows. A chunk that does not reach the prompt's end wants none.
    const std::vector<Sequence*>& plan(StepBatch& batch);
    /// Marks what the last plan() held as computed.
    void computed();

    /// Lets the siblings of `sequence`, whose prompt was just computed, run from its blocks.
    std::vector<Sequence*> fork(Sequence& sequence);
    /// Forgets a sequence that ended and frees its blocks.
    void remove(const Sequence& sequence);
    /// Removes all sequences of requests for which `ended` is true, with those that wait.
    void remove_if(const std::function<bool(const RequestState&)>& ended);

    /// Every sequence, running or waiting; one that holds siblings stands for them.
    void for_each(const std::function<void(Sequence&)>& visit);

    bool idle() const { return running_.empty() && waiting_.empty(); }
    /// Sequences of the last plan() and how many tokens of each it held.
    const std::vector<std::pair<Sequence*, int64_t>>& planned() const { return planned_; }

private:
    using Batch = std::vector<std::unique_ptr<Sequence>>;

    void plan_decoding(StepBatch& batch);
    void plan_prompts(StepBatch& batch);
    void admit(StepBatch& batch);
    int64_t placeable(const Sequence& sequence, int64_t tokens) const;
    void place(Sequence& sequence, int64_t tokens, StepBatch& batch);
    bool preempt_youngest(const Sequence& claimant);
    void insert_running(std::unique_ptr<Sequence> sequence);
    void release(Sequence& sequence);
    int32_t take_block();
    int64_t free_blocks(int64_t wanted) const;
    int64_t blocks_for(int64_t tokens) const;
    int64_t reusable_blocks(const Sequence& sequence) const;
    bool shares_next_block(const Sequence& sequence) const;
    int64_t running_answers() const;

    Limits limits_;
    BlockPool pool_;
    PrefixCache prefixes_;
    CacheHooks hooks_;
    uint64_t next_order_ = 0;
    Batch running_;                                  // oldest first
    std::deque<std::unique_ptr<Sequence>> waiting_;  // oldest first

    // The plan being made.
    int64_t budget_ = 0;
    std::vector<std::pair<Sequence*, int64_t>> planned_;
    std::vector<Sequence*> sampled_;
};

}  // namespace ovfast
