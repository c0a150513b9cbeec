#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <memory>
#include <vector>

#include "ops/spill_file.hpp"

namespace ovfast::ops {
namespace {

std::filesystem::path directory() {
    return std::filesystem::temp_directory_path();
}

TEST(SpillFile, KeepsWhatLeavesMemory) {
    constexpr size_t bytes = 1'000'001;
    SpillFile file(directory());
    const auto first = file.allocate(bytes);
    const auto second = file.allocate(bytes);
    ASSERT_NE(first, nullptr);
    ASSERT_NE(second, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(second.get()) % 4096, 0U);
    std::memset(first.get(), 1, bytes);
    std::memset(second.get(), 2, bytes);
    file.let_go(first.get(), bytes);
    file.let_go(static_cast<char*>(second.get()) + 5000, 7);  // a part, not at a page
    EXPECT_EQ(std::memcmp(first.get(), std::vector<char>(bytes, 1).data(), bytes), 0);
    EXPECT_EQ(std::memcmp(second.get(), std::vector<char>(bytes, 2).data(), bytes), 0);
}

TEST(SpillFile, LeavesOtherMemoryAlone) {
    SpillFile file(directory());
    const auto own = file.allocate(4096);
    ASSERT_NE(own, nullptr);
    std::vector<char> others(1 << 20, 3);
    file.let_go(others.data(), others.size());
    EXPECT_EQ(others, std::vector<char>(1 << 20, 3));
}

TEST(SpillFile, MemoryOutlivesIt) {
    auto file = std::make_unique<SpillFile>(directory());
    const auto memory = file->allocate(10);
    ASSERT_NE(memory, nullptr);
    std::memset(memory.get(), 4, 10);
    file.reset();
    EXPECT_EQ(static_cast<char*>(memory.get())[9], 4);
}

TEST(SpillFile, GivesNothingWhereThereIsNoPlace) {
    SpillFile file("/nonexistent");
    EXPECT_EQ(file.allocate(10), nullptr);
    file.let_go(&file, sizeof file);
}

}  // namespace
}  // namespace ovfast::ops
