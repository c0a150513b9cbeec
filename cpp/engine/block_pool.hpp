#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ovfast {

/// Hands out the blocks of the KV cache by number and counts who holds them: answers to one prompt
/// share its blocks. Not thread-safe: only the engine's thread uses it.
class BlockPool {
public:
    explicit BlockPool(int32_t blocks);

    /// A block that nobody holds, now held once. Recently freed blocks come first: their memory is
    /// already resident. Throws std::logic_error when available() is 0.
    int32_t take();
    /// One more holder of `block`.
    void share(int32_t block);
    /// One holder less; without holders the block is free again.
    void release(int32_t block);

    bool shared(int32_t block) const { return holders_.at(static_cast<size_t>(block)) > 1; }
    int32_t available() const { return static_cast<int32_t>(free_.size()) + size() - touched_; }
    int32_t size() const { return static_cast<int32_t>(holders_.size()); }

private:
    std::vector<int32_t> holders_;
    std::vector<int32_t> free_;
    int32_t touched_ = 0;  ///< blocks below this number were handed out before
};

}  // namespace ovfast
