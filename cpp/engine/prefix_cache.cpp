#include "engine/prefix_cache.hpp"

#include <algorithm>
#include <iterator>

namespace ovfast {

PrefixCache::PrefixCache(BlockPool& pool, int64_t block_tokens, size_t capacity)
    : pool_(pool), block_tokens_(static_cast<size_t>(block_tokens)), capacity_(capacity) {}

PrefixCache::~PrefixCache() {
    for (const Entry& entry : entries_) pool_.release(entry.block);
}

int64_t PrefixCache::count(const std::vector<int64_t>& tokens, int64_t limit) const {
    uint64_t parent = 0;
    int64_t found = 0;
    for (; found < limit; ++found) {
        const auto* entry =
            find(parent, tokens.data() + static_cast<size_t>(found) * block_tokens_);
        if (entry == nullptr) break;
        parent = (*entry)->id;
    }
    return found;
}

std::vector<int32_t> PrefixCache::take(const std::vector<int64_t>& tokens, int64_t limit) {
    std::vector<int32_t> blocks;
    std::vector<Entries::iterator> chain;
    uint64_t parent = 0;
    for (int64_t i = 0; i < limit; ++i) {
        const auto* entry = find(parent, tokens.data() + static_cast<size_t>(i) * block_tokens_);
        if (entry == nullptr) break;
        chain.push_back(*entry);
        parent = chain.back()->id;
        pool_.share(chain.back()->block);
        blocks.push_back(chain.back()->block);
    }
    touch(chain);
    return blocks;
}

void PrefixCache::keep(const std::vector<int64_t>& tokens, const std::vector<int32_t>& blocks,
                       int64_t full) {
    full = std::min(full, static_cast<int64_t>(capacity_));
    std::vector<Entries::iterator> chain;
    uint64_t parent = 0;
    for (int64_t i = 0; i < full; ++i) {
        const int64_t* first = tokens.data() + static_cast<size_t>(i) * block_tokens_;
        if (const auto* entry = find(parent, first)) {
            chain.push_back(*entry);
        } else {
            const int32_t block = blocks[static_cast<size_t>(i)];
            pool_.share(block);
            entries_.push_front(
                {parent, next_id_++, std::vector<int64_t>(first, first + block_tokens_), block});
            by_hash_.emplace(hash(parent, first), entries_.begin());
            chain.push_back(entries_.begin());
        }
        parent = chain.back()->id;
    }
    touch(chain);
    while (entries_.size() > capacity_) erase(std::prev(entries_.end()));
}

int64_t PrefixCache::evictable() const {
    return std::count_if(entries_.begin(), entries_.end(),
                         [this](const Entry& entry) { return !pool_.shared(entry.block); });
}

bool PrefixCache::evict() {
    for (auto it = entries_.end(); it != entries_.begin();) {
        --it;
        if (pool_.shared(it->block)) continue;
        erase(it);
        return true;
    }
    return false;
}

const PrefixCache::Entries::iterator* PrefixCache::find(uint64_t parent,
                                                        const int64_t* tokens) const {
    const auto [first, last] = by_hash_.equal_range(hash(parent, tokens));
    for (auto it = first; it != last; ++it) {
        const Entry& entry = *it->second;
        if (entry.parent == parent &&
            std::equal(entry.tokens.begin(), entry.tokens.end(), tokens)) {
            return &it->second;
        }
    }
    return nullptr;
}

// Makes a chain the most recent, its beginning before its end: all that go on from it need that.
void PrefixCache::touch(const std::vector<Entries::iterator>& chain) {
    for (auto it = chain.rbegin(); it != chain.rend(); ++it) {
        entries_.splice(entries_.begin(), entries_, *it);
    }
}

// FNV-1a over whole tokens: spread is all that is asked of it.
uint64_t PrefixCache::hash(uint64_t parent, const int64_t* tokens) const {
    uint64_t value = 0xCBF29CE484222325ULL ^ parent;
    for (size_t i = 0; i < block_tokens_; ++i) {
        value = (value ^ static_cast<uint64_t>(tokens[i])) * 0x100000001B3ULL;
        value ^= value >> 29;
    }
    return value;
}

void PrefixCache::erase(Entries::iterator entry) {
    const auto [first, last] = by_hash_.equal_range(hash(entry->parent, entry->tokens.data()));
    by_hash_.erase(std::find_if(first, last, [&](const auto& e) { return e.second == entry; }));
    pool_.release(entry->block);
    entries_.erase(entry);
}

}  // namespace ovfast
