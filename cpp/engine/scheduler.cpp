#include "engine/scheduler.hpp"

#include <algorithm>

namespace ovfast {
namespace {

bool older(const std::unique_ptr<Sequence>& a, const std::unique_ptr<Sequence>& b) {
    return a->order < b->order;
}

}  // namespace

Scheduler::Scheduler(const Limits& limits, int32_t blocks, CacheHooks hooks)
    : limits_(limits),
      pool_(blocks),
      prefixes_(pool_, limits.block_tokens, static_cast<size_t>(limits.cached_blocks)),
      hooks_(std::move(hooks)) {}

void Scheduler::add(std::unique_ptr<Sequence> sequence) {
    sequence->order = next_order_++;
    for (auto& sibling : sequence->siblings) sibling->order = next_order_++;
    waiting_.push_back(std::move(sequence));
}

const std::vector<Sequence*>& Scheduler::plan(StepBatch& batch) {
    batch.clear();
    planned_.clear();
    sampled_.clear();
    budget_ = limits_.batch_tokens;
    plan_decoding(batch);
    plan_prompts(batch);
    admit(batch);
    if (planned_.empty() && !running_.empty()) {
        // Prompts fill the cache and none can go on: the oldest goes first.
        Sequence& oldest = *running_.front();
        while (placeable(oldest, 1) == 0 && preempt_youngest(oldest)) {
        }
        place(oldest, placeable(oldest, std::min(oldest.uncomputed(), budget_)), batch);
    }
    return sampled_;
}

// Only a decoding sequence takes blocks from others, and only from younger ones, which come later
// in this loop: nothing that is already planned loses its blocks.
void Scheduler::plan_decoding(StepBatch& batch) {
    for (size_t i = 0; i < running_.size() && budget_ > 0; ++i) {
        Sequence& sequence = *running_[i];
        if (sequence.uncomputed() != 1) continue;
        while (placeable(sequence, 1) == 0) {
            if (!preempt_youngest(sequence)) return;  // it was the youngest itself
        }
        place(sequence, 1, batch);
    }
}

void Scheduler::plan_prompts(StepBatch& batch) {
    for (size_t i = 0; i < running_.size() && budget_ > 0; ++i) {
        Sequence& sequence = *running_[i];
        if (sequence.uncomputed() <= 1) continue;
        place(sequence, placeable(sequence, std::min(sequence.uncomputed(), budget_)), batch);
    }
}

void Scheduler::admit(StepBatch& batch) {
    while (!waiting_.empty() && budget_ > 0) {
        const Sequence& next = *waiting_.front();
        const auto answers = static_cast<int64_t>(1 + next.siblings.size());
        const auto running = static_cast<int64_t>(running_.size());
        if (running_answers() + answers > limits_.sequences) return;
        // Room for all of it and a block for each that runs: otherwise it would be preempted soon.
        const int64_t reusable = reusable_blocks(next);
        // Reusing a block makes it no longer evictable, so it counts as wanted too.
        const int64_t wanted = blocks_for(static_cast<int64_t>(next.tokens.size())) + running;
        if (running > 0 && free_blocks(wanted) < wanted) return;
        Sequence& sequence = *waiting_.front();
        insert_running(std::move(waiting_.front()));
        waiting_.pop_front();
        sequence.blocks = prefixes_.take(sequence.tokens, reusable);
        sequence.computed = reusable * limits_.block_tokens;
        sequence.request->scheduled(sequence.computed);
        place(sequence, placeable(sequence, std::min(sequence.uncomputed(), budget_)), batch);
    }
}

int64_t Scheduler::blocks_for(int64_t tokens) const {
    return (tokens + limits_.block_tokens - 1) / limits_.block_tokens;
}

int32_t Scheduler::take_block() {
    if (pool_.available() == 0) prefixes_.evict();
    return pool_.take();
}

// Blocks to be had without taking them from a sequence. Exact below `wanted`; above it, what the
// prefix cache could give is not counted.
int64_t Scheduler::free_blocks(int64_t wanted) const {
    const int64_t free = pool_.available();
    return free >= wanted ? free : free + prefixes_.evictable();
}

// Blocks at the beginning of a waiting sequence that need not be computed. One token is left to
// compute in any case: its logits are wanted.
int64_t Scheduler::reusable_blocks(const Sequence& sequence) const {
    const auto tokens = static_cast<int64_t>(sequence.tokens.size());
    return prefixes_.count(sequence.tokens, (tokens - 1) / limits_.block_tokens);
}

// The block that the next token is written to, when others hold it too.
bool Scheduler::shares_next_block(const Sequence& sequence) const {
    const auto next = static_cast<size_t>(sequence.computed / limits_.block_tokens);
    return next < sequence.blocks.size() && pool_.shared(sequence.blocks[next]);
}

int64_t Scheduler::running_answers() const {
    int64_t answers = 0;
    for (const auto& sequence : running_) {
        answers += static_cast<int64_t>(1 + sequence->siblings.size());
    }
    return answers;
}

// How many of the next `tokens` tokens have room without taking blocks from anyone.
int64_t Scheduler::placeable(const Sequence& sequence, int64_t tokens) const {
    const auto held = static_cast<int64_t>(sequence.blocks.size());
    const bool copies = shares_next_block(sequence);
    const int64_t wanted = blocks_for(sequence.computed + tokens) - held + (copies ? 1 : 0);
    if (wanted <= 0) return tokens;  // as most steps: counting what can be evicted takes a while
    int64_t free = free_blocks(wanted);
    if (copies && --free < 0) return 0;
    const int64_t room = (held + free) * limits_.block_tokens;
    return std::min(tokens, room - sequence.computed);
}

void Scheduler::place(Sequence& sequence, int64_t tokens, StepBatch& batch) {
    if (tokens == 0) return;
    const int64_t end = sequence.computed + tokens;
    if (shares_next_block(sequence)) {
        int32_t& block =
            sequence.blocks[static_cast<size_t>(sequence.computed / limits_.block_tokens)];
        const int32_t copy = take_block();
        hooks_.copy_block(block, copy);
        pool_.release(block);
        block = copy;
    }
    while (static_cast<int64_t>(sequence.blocks.size()) < blocks_for(end)) {
        sequence.blocks.push_back(take_block());
    }

    for (int64_t i = sequence.computed; i < end; ++i) {
        batch.token_ids.push_back(sequence.tokens[static_cast<size_t>(i)]);
        batch.positions.push_back(i);
    }
    batch.sequences.push_back(sequence.order);
    batch.past_lengths.push_back(static_cast<int32_t>(sequence.computed));
    batch.begins.push_back(static_cast<int32_t>(batch.token_ids.size()));
    batch.blocks.insert(batch.blocks.end(), sequence.blocks.begin(), sequence.blocks.end());
    batch.block_begins.push_back(static_cast<int32_t>(batch.blocks.size()));
    batch.max_context = std::max(batch.max_context, static_cast<int32_t>(end));
    if (end == static_cast<int64_t>(sequence.tokens.size())) {
        batch.logit_rows.push_back(static_cast<int64_t>(batch.token_ids.size()) - 1);
        sampled_.push_back(&sequence);
    }
    planned_.emplace_back(&sequence, tokens);
    budget_ -= tokens;
}

// Sends the youngest running sequence back to wait. False when that is `claimant` itself.
bool Scheduler::preempt_youngest(const Sequence& claimant) {
    std::unique_ptr<Sequence> youngest = std::move(running_.back());
    running_.pop_back();
    release(*youngest);
    youngest->request->preempted();
    const bool other = youngest.get() != &claimant;
    const auto place = std::upper_bound(waiting_.begin(), waiting_.end(), youngest, older);
    waiting_.insert(place, std::move(youngest));
    return other;
}

void Scheduler::insert_running(std::unique_ptr<Sequence> sequence) {
    const auto place = std::upper_bound(running_.begin(), running_.end(), sequence, older);
    running_.insert(place, std::move(sequence));
}

void Scheduler::release(Sequence& sequence) {
    prefixes_.keep(sequence.tokens, sequence.blocks, sequence.computed / limits_.block_tokens);
    for (const int32_t block : sequence.blocks) pool_.release(block);
    sequence.blocks.clear();
    sequence.computed = 0;
    if (hooks_.release) hooks_.release(sequence.order);
}

void Scheduler::computed() {
    for (const auto& [sequence, tokens] : planned_) sequence->computed += tokens;
    planned_.clear();
}

std::vector<Sequence*> Scheduler::fork(Sequence& sequence) {
    std::vector<Sequence*> forked;
    for (auto& sibling : std::exchange(sequence.siblings, {})) {
        sibling->tokens = sequence.tokens;
        sibling->computed = sequence.computed;
        sibling->blocks = sequence.blocks;
        for (const int32_t block : sibling->blocks) pool_.share(block);
        if (hooks_.fork) hooks_.fork(sequence.order, sibling->order);
        forked.push_back(sibling.get());
        insert_running(std::move(sibling));
    }
    return forked;
}

void Scheduler::remove(const Sequence& sequence) {
    const auto it = std::find_if(running_.begin(), running_.end(),
                                 [&](const auto& running) { return running.get() == &sequence; });
    release(**it);
    running_.erase(it);
}

void Scheduler::remove_if(const std::function<bool(const RequestState&)>& ended) {
    const auto matches = [&](const std::unique_ptr<Sequence>& sequence) {
        return ended(*sequence->request);
    };
    for (const auto& sequence : running_) {
        if (matches(sequence)) release(*sequence);
    }
    running_.erase(std::remove_if(running_.begin(), running_.end(), matches), running_.end());
    waiting_.erase(std::remove_if(waiting_.begin(), waiting_.end(), matches), waiting_.end());
}

void Scheduler::for_each(const std::function<void(Sequence&)>& visit) {
    for (const auto& sequence : running_) visit(*sequence);
    for (const auto& sequence : waiting_) visit(*sequence);
}

}  // namespace ovfast
