#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

#include "engine/block_pool.hpp"

namespace ovfast {

/// Remembers full KV blocks of sequences that ended, so that a prompt which begins alike (the next
/// turn of a chat, a common system prompt) computes only what is new.
///
/// A block is found by its tokens and the block before it, compared, not only hashed: a prefix
/// never matches by accident. The cache is one more holder of its blocks in the pool; the least
/// recently used ones go first, the end of a prefix before its beginning.
class PrefixCache {
public:
    /// Keeps at most `capacity` blocks; 0 switches it off.
    PrefixCache(BlockPool& pool, int64_t block_tokens, size_t capacity);
    ~PrefixCache();
    PrefixCache(const PrefixCache&) = delete;
    PrefixCache& operator=(const PrefixCache&) = delete;

    /// How many blocks `tokens` begins with, at most `limit`, are here. Changes nothing.
    int64_t count(const std::vector<int64_t>& tokens, int64_t limit) const;
    /// Those blocks, held once more for the caller.
    std::vector<int32_t> take(const std::vector<int64_t>& tokens, int64_t limit);
    /// Keeps the first `full` of `blocks`, which hold the keys and values of `tokens`.
    void keep(const std::vector<int64_t>& tokens, const std::vector<int32_t>& blocks, int64_t full);

    /// Blocks that nobody but the cache holds.
    int64_t evictable() const;
    /// Gives up the least recently used block that nobody else holds. False when there is none.
    bool evict();

private:
    struct Entry {
        uint64_t parent;  ///< id of the block before; 0 at the beginning
        uint64_t id;      ///< never used again for another content
        std::vector<int64_t> tokens;
        int32_t block;
    };
    using Entries = std::list<Entry>;  // most recently used first

    const Entries::iterator* find(uint64_t parent, const int64_t* tokens) const;
    void touch(const std::vector<Entries::iterator>& chain);
    uint64_t hash(uint64_t parent, const int64_t* tokens) const;
    void erase(Entries::iterator entry);

    BlockPool& pool_;
    size_t block_tokens_;
    size_t capacity_;
    uint64_t next_id_ = 1;
    Entries entries_;
    std::unordered_multimap<uint64_t, Entries::iterator> by_hash_;
};

}  // namespace ovfast
