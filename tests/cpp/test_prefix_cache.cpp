#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/prefix_cache.hpp"

namespace {

using ovfast::BlockPool;
using ovfast::PrefixCache;
using testing::ElementsAre;
using testing::IsEmpty;

using Tokens = std::vector<int64_t>;

class PrefixCacheTest : public testing::Test {
protected:
    // Blocks of a sequence that ended: only the cache holds them afterwards.
    std::vector<int32_t> add(PrefixCache& cache, const Tokens& tokens) {
        std::vector<int32_t> blocks;
        for (size_t i = 0; i < tokens.size() / 2; ++i) blocks.push_back(pool.take());
        cache.keep(tokens, blocks, static_cast<int64_t>(blocks.size()));
        for (const int32_t block : blocks) pool.release(block);
        return blocks;
    }

    BlockPool pool{8};
};

TEST_F(PrefixCacheTest, FindsTheLongestBeginning) {
    PrefixCache cache(pool, 2, 8);
    const auto blocks = add(cache, {1, 2, 3, 4, 5, 6});
    EXPECT_EQ(cache.count({1, 2, 3, 4, 9, 9}, 3), 2);
    EXPECT_EQ(cache.count({1, 2, 3, 4, 5, 6}, 2), 2);
    EXPECT_EQ(cache.count({9, 2, 3, 4}, 2), 0);
    EXPECT_EQ(cache.count({3, 4}, 1), 0);  // the same tokens elsewhere are another block
    EXPECT_THAT(cache.take({1, 2, 3, 4, 9, 9}, 3), ElementsAre(blocks[0], blocks[1]));
    EXPECT_EQ(cache.evictable(), 1);
}

TEST_F(PrefixCacheTest, KeepsOneBlockForOneContent) {
    PrefixCache cache(pool, 2, 8);
    add(cache, {1, 2, 3, 4});
    add(cache, {1, 2, 5, 6});
    EXPECT_EQ(pool.available(), 8 - 3);
}

TEST_F(PrefixCacheTest, GivesUpTheOldestEndFirst) {
    PrefixCache cache(pool, 2, 8);
    const auto old = add(cache, {1, 2, 3, 4});
    add(cache, {7, 8});
    EXPECT_TRUE(cache.evict());
    EXPECT_EQ(pool.take(), old[1]);
    EXPECT_EQ(cache.count({1, 2, 3, 4}, 2), 1);
    for (const int32_t block : cache.take({1, 2}, 1)) pool.release(block);  // now {7, 8} is older
    EXPECT_TRUE(cache.evict());
    EXPECT_EQ(cache.count({7, 8}, 1), 0);
    EXPECT_EQ(cache.count({1, 2}, 1), 1);
}

TEST_F(PrefixCacheTest, NeverGivesUpWhatASequenceHolds) {
    PrefixCache cache(pool, 2, 8);
    add(cache, {1, 2});
    const auto held = cache.take({1, 2}, 1);
    EXPECT_FALSE(cache.evict());
    pool.release(held[0]);
    EXPECT_TRUE(cache.evict());
    EXPECT_EQ(pool.available(), 8);
}

TEST_F(PrefixCacheTest, CapacityIsABound) {
    PrefixCache cache(pool, 2, 2);
    add(cache, {1, 2, 3, 4, 5, 6});
    EXPECT_EQ(cache.count({1, 2, 3, 4, 5, 6}, 3), 2);
    add(cache, {7, 8});
    EXPECT_EQ(cache.count({1, 2, 3, 4}, 2), 1);
    EXPECT_EQ(pool.available(), 6);

    PrefixCache off(pool, 2, 0);
    add(off, {1, 2});
    EXPECT_THAT(off.take({1, 2}, 1), IsEmpty());
}

}  // namespace
