#include "engine/block_pool.hpp"

#include <stdexcept>
#include <string>

namespace ovfast {

BlockPool::BlockPool(int32_t blocks) {
    if (blocks <= 0) {
        throw std::invalid_argument("a KV cache needs at least one block, got " +
                                    std::to_string(blocks));
    }
    holders_.resize(static_cast<size_t>(blocks), 0);
}

int32_t BlockPool::take() {
    int32_t block = 0;
    if (!free_.empty()) {
        block = free_.back();
        free_.pop_back();
    } else if (touched_ < size()) {
        block = touched_++;
    } else {
        throw std::logic_error("BlockPool::take() without an available block");
    }
    holders_[static_cast<size_t>(block)] = 1;
    return block;
}

void BlockPool::share(int32_t block) {
    int32_t& holders = holders_.at(static_cast<size_t>(block));
    if (holders == 0) {
        throw std::logic_error("BlockPool::share() of free block " + std::to_string(block));
    }
    ++holders;
}

void BlockPool::release(int32_t block) {
    int32_t& holders = holders_.at(static_cast<size_t>(block));
    if (holders == 0) {
        throw std::logic_error("BlockPool::release() of free block " + std::to_string(block));
    }
    if (--holders == 0) free_.push_back(block);
}

}  // namespace ovfast
