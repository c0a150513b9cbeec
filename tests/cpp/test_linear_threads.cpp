// Threads that share a kernel, weights, activations and one output, each with blocks of its own. A
// binary of its own, so that it can be built with -fsanitize=thread in seconds.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "kernel_test_data.hpp"

namespace ovfast::kernels::test {
namespace {

class LinearThreads : public testing::TestWithParam<const LinearKernel*> {};

TEST_P(LinearThreads, WorkOnDisjointBlocksOfOneOutput) {
    constexpr size_t kThreads = 4;
    const LinearKernel& kernel = *GetParam();
    const size_t rows =
        kernel.min_rows + 2 <= kernel.max_rows ? kernel.min_rows + 2 : kernel.min_rows;
    const size_t columns = 256;
    const size_t outputs = 16 * 21 + 5;
    for (const WeightFormat& format : formats()) {
        if (!kernel.supports(format) || !fits(format, columns)) continue;
        const OwnedWeights weights(plain_weights(format, outputs, columns, Pattern::Random, 11));
        std::vector<float> values(rows * columns);
        for (size_t i = 0; i < values.size(); ++i) {
            values[i] = static_cast<float>(i * 37 % 101) / 50.0F - 1.0F;
        }
        const OwnedActivations activations(values, rows, columns, vector_kernels());
        LinearArgs args;
        args.weights = &weights.view();
        args.activations = &activations.view();
        args.last_row = rows;
        args.last_block = weights.view().blocks();
        args.out_stride = outputs;
        std::vector<float> alone(rows * outputs);
        args.out = alone.data();
        ASSERT_TRUE(run_guarded(kernel, args));

        std::vector<float> together(rows * outputs);
        args.out = together.data();
        std::atomic<size_t> next{0};
        std::atomic<size_t> spoiled{0};
        std::vector<std::thread> threads;
        for (size_t t = 0; t < kThreads; ++t) {
            threads.emplace_back([&, args]() mutable {
                // Uneven pieces: the border between two threads is in every place of a tile.
                for (size_t block = next.fetch_add(3); block < weights.view().blocks();
                     block = next.fetch_add(3)) {
                    args.first_block = block;
                    args.last_block = std::min(block + 3, weights.view().blocks());
                    if (!run_guarded(kernel, args)) ++spoiled;
                }
            });
        }
        for (std::thread& thread : threads) thread.join();
        EXPECT_EQ(spoiled, 0U);
        EXPECT_EQ(alone, together) << format.text();
    }
}

INSTANTIATE_TEST_SUITE_P(All, LinearThreads, testing::ValuesIn(linear_kernels()),
                         [](const auto& test) { return test_name(test.param->name); });

TEST(SelectLinearThreads, ChooseAndCountAtTheSameTime) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([] {
            for (size_t rows = 1; rows < 200; ++rows) {
                select_linear(WeightFormat{}, rows, ActivationPrecision::Int8);
                kernel_calls();
                vector_kernels();
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace ovfast::kernels::test
