#include <gtest/gtest.h>

#include <set>

#include "engine/block_pool.hpp"

namespace {

using ovfast::BlockPool;

TEST(BlockPool, HandsOutEachBlockOnce) {
    BlockPool pool(5);
    std::set<int32_t> seen;
    for (int i = 0; i < 5; ++i) {
        EXPECT_EQ(pool.available(), 5 - i);
        EXPECT_TRUE(seen.insert(pool.take()).second);
    }
    EXPECT_EQ(*seen.begin(), 0);
    EXPECT_EQ(*seen.rbegin(), 4);
    EXPECT_THROW(pool.take(), std::logic_error);
}

TEST(BlockPool, ReusesTheBlockThatWasFreedLast) {
    BlockPool pool(8);
    const int32_t a = pool.take();
    const int32_t b = pool.take();
    pool.release(b);
    pool.release(a);
    EXPECT_EQ(pool.take(), a);
    EXPECT_EQ(pool.take(), b);
    EXPECT_EQ(pool.available(), 6);
}

TEST(BlockPool, SharedBlockIsFreeOnlyWithoutHolders) {
    BlockPool pool(1);
    const int32_t block = pool.take();
    EXPECT_FALSE(pool.shared(block));
    pool.share(block);
    EXPECT_TRUE(pool.shared(block));
    pool.release(block);
    EXPECT_FALSE(pool.shared(block));
    EXPECT_EQ(pool.available(), 0);
    pool.release(block);
    EXPECT_EQ(pool.available(), 1);
}

TEST(BlockPool, RefusesMisuse) {
    EXPECT_THROW(BlockPool(0), std::invalid_argument);
    BlockPool pool(2);
    EXPECT_THROW(pool.release(0), std::logic_error);
    EXPECT_THROW(pool.share(1), std::logic_error);
    EXPECT_THROW(pool.release(2), std::out_of_range);
}

}  // namespace
