#include <gtest/gtest.h>
#include <tbb/task_arena.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <thread>

#include "ops/linear_work.hpp"
#include "ops/parallel_linear.hpp"
#include "ops_fixtures.hpp"
#include "random_weights.hpp"

namespace {
std::atomic<size_t> allocations{0};

void* counted(size_t bytes, size_t alignment) {
    ++allocations;
    void* data = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (!data) throw std::bad_alloc();
    return data;
}
}  // namespace

// Those of the whole process, the library under test included.
void* operator new(size_t bytes) {
    return counted(bytes, alignof(std::max_align_t));
}
void* operator new(size_t bytes, std::align_val_t alignment) {
    return counted(bytes, static_cast<size_t>(alignment));
}
void operator delete(void* data) noexcept {
    std::free(data);
}
void operator delete(void* data, size_t) noexcept {
    std::free(data);
}
void operator delete(void* data, std::align_val_t) noexcept {
    std::free(data);
}
void operator delete(void* data, size_t, std::align_val_t) noexcept {
    std::free(data);
}

namespace {

using namespace ovfast::ops;
using namespace ovfast::test;
using ovfast::kernels::ActivationPrecision;
using ovfast::kernels::PackedWeights;

struct Matrix {
    std::vector<uint8_t> bytes;
    PackedWeights view;
    Matrix(size_t rows, size_t columns, unsigned seed)
        : bytes(packed_bytes(random_weights(rows, columns, seed))),
          view(PackedWeights::view(bytes.data(), bytes.size())) {}
};

TEST(PieceQueue, HandsOutEveryBlockOfEveryRowOnce) {
    struct Work {
        std::vector<Panel> panels;
        size_t rows, min_rows;
    };
    const std::vector<Work> works = {
        {{{1, 512}}, 1, 1},
        {{{1, 512}}, 5000, 1},
        {{{57, 8192}}, 1, 1},
        {{{57, 8192}}, 23, 1},
        {{{57, 8192}}, 24, 1},
        {{{56, 8192}, {8, 8192}, {9, 1 << 20}}, 1, 1},
        {{{3, 8192}, {1, 64}}, 1000, 100},
        {{{4, 8192}}, 129, 64},
        {{{9496, 15000}}, 1, 1},
        {{{40, 8192}, {2, 8192}, {2, 8192}}, 511, 24},
    };
    for (const int threads : {1, 2, 5, 28}) {
        tbb::task_arena arena(threads);
        for (const auto& work : works) {
            arena.execute([&] {
                PieceQueue queue(work.panels, work.rows, work.min_rows);
                ASSERT_GE(queue.workers(), 1);
                ASSERT_LE(queue.workers(), static_cast<size_t>(threads));
                std::vector<std::vector<size_t>> rows_of_block;
                for (const auto& panel : work.panels) {
                    rows_of_block.emplace_back(panel.blocks, size_t{0});
                }
                for (Piece piece; queue.take(piece);) {
                    ASSERT_LT(piece.panel, work.panels.size());
                    ASSERT_LT(piece.first_block, piece.last_block);
                    ASSERT_LE(piece.last_block, work.panels[piece.panel].blocks);
                    ASSERT_LE(piece.last_row, work.rows);
                    const size_t rows = piece.last_row - piece.first_row;
                    ASSERT_GE(rows, std::min(work.rows, work.min_rows));
                    ASSERT_LE(rows, queue.piece_rows());
                    for (size_t b = piece.first_block; b < piece.last_block; ++b) {
                        // Pieces of rows come in order, each after the ones before it.
                        ASSERT_EQ(rows_of_block[piece.panel][b], piece.first_row);
                        rows_of_block[piece.panel][b] = piece.last_row;
                    }
                }
                for (const auto& panel : rows_of_block) {
                    for (const size_t rows : panel) ASSERT_EQ(rows, work.rows);
                }
            });
        }
    }
}

TEST(PieceQueue, PiecesAreNoLargerThanTiles) {
    tbb::task_arena arena(2);
    arena.execute([] {
        const auto largest_piece = [](size_t rows, const Tiles& tiles) {
            const std::vector<Panel> panels{{1000, 8192}};
            PieceQueue queue(panels, rows, 1, tiles);
            size_t largest = 0;
            for (Piece piece; queue.take(piece);) {
                largest = std::max(largest, piece.last_block - piece.first_block);
            }
            return largest;
        };
        EXPECT_EQ(largest_piece(1, {}), 8);
        EXPECT_EQ(largest_piece(1, {256 * 1024, 512}), 32);
        EXPECT_EQ(largest_piece(1, {1, 512}), 1);
        EXPECT_EQ(largest_piece(100, {}), 32);
        EXPECT_EQ(largest_piece(100, {64 * 1024, 1024}), 64);
        EXPECT_EQ(largest_piece(100, {64 * 1024, 1}), 4);
    });
}

TEST(PieceQueue, SplitsByRowsWhereColumnsAreFew) {
    tbb::task_arena arena(8);
    arena.execute([] {
        const std::vector<Panel> panels{{2, 8192}};
        PieceQueue queue(panels, 1024, 24);
        EXPECT_EQ(queue.workers(), 8);
        EXPECT_EQ(queue.piece_rows(), 64);
    });
}

// Bytes that canaries around outputs would show to be overwritten.
constexpr float kGuard = 1234.5F;

struct Output {
    size_t rows, width, stride;
    std::vector<float> values;
    Output(size_t rows_, size_t width_)
        : rows(rows_), width(width_), stride(width_ + 3), values(rows_ * stride, kGuard) {}
};

void expect_guarded(const Output& out) {
    for (size_t row = 0; row < out.rows; ++row) {
        for (size_t at = out.width; at < out.stride; ++at) {
            ASSERT_EQ(out.values[row * out.stride + at], kGuard) << "row " << row;
        }
    }
}

struct Shape {
    size_t rows, columns;
};

class Drivers : public testing::TestWithParam<std::tuple<Shape, ActivationPrecision>> {};

TEST_P(Drivers, GiveTheSameInAnyNumberOfThreads) {
    const auto [shape, precision] = GetParam();
    const auto [rows, columns] = shape;
    // Wide enough for several pieces; one of less than a block.
    const Matrix a(500, columns, 1), b(200, columns, 4), c(7, columns, 7);
    // The first value lies where a vector load of 64 bytes would fault.
    const auto values = random_floats(rows * columns + 1, 10);
    const float* x = values.data() + 1;
    const auto gamma = random_floats(columns, 11, 0.5F, 1.5F);
    const auto bias = random_floats(500, 12);
    const auto residual = random_floats(rows * 200, 13);
    const auto run = [&](int threads) {
        std::vector<Output> outputs{{rows, 500}, {rows, 200}, {rows, 7}};
        std::vector<LinearJob> jobs(3);
        const PackedWeights* weights[] = {&a.view, &b.view, &c.view};
        for (size_t i = 0; i < jobs.size(); ++i) {
            jobs[i].weights = weights[i];
            jobs[i].out = outputs[i].values.data();
            jobs[i].out_stride = outputs[i].stride;
        }
        jobs[0].bias = bias.data();
        jobs[1].residual = residual.data();
        jobs[1].residual_stride = 200;
        tbb::task_arena arena(threads);
        arena.execute([&] {
            run_linear_jobs(x, rows, columns, {gamma.data(), 1e-6F}, jobs.data(), jobs.size(),
                            precision);
        });
        return outputs;
    };
    const auto expected = run(1);
    for (const auto& output : expected) expect_guarded(output);
    for (const int threads : {2, 4}) {
        const auto got = run(threads);
        for (size_t i = 0; i < got.size(); ++i) {
            EXPECT_EQ(got[i].values, expected[i].values) << threads << " threads, output " << i;
        }
    }
}

TEST_P(Drivers, AllocateNothingInTheSteadyState) {
    const auto [shape, precision] = GetParam();
    const auto [rows, columns] = shape;
    const Matrix gate(640, columns, 1), up(640, columns, 4), down(columns, 640, 7);
    const auto x = random_floats(rows * columns, 10);
    const auto gamma = random_floats(columns, 11, 0.5F, 1.5F);
    std::vector<float> wide(rows * 640), out(rows * columns);
    LinearJob job;
    job.weights = &gate.view;
    job.out = wide.data();
    job.out_stride = 640;
    GatedMlpJob mlp;
    mlp.gate = &gate.view;
    mlp.up = &up.view;
    mlp.down = &down.view;
    mlp.multiply = ovfast::kernels::vector_kernels().silu_multiply;
    mlp.residual = x.data();
    mlp.out = out.data();
    const auto run = [&, rows = rows, columns = columns, precision = precision] {
        run_linear_jobs(x.data(), rows, columns, {gamma.data(), 1e-6F}, &job, 1, precision);
        run_gated_mlp(x.data(), rows, columns, {gamma.data(), 1e-6F}, mlp, precision);
    };
    tbb::task_arena alone(1);
    alone.execute(run);
    const size_t before = allocations;
    alone.execute([&] {
        for (int i = 0; i < 5; ++i) run();
    });
    EXPECT_EQ(allocations, before);

    // A worker grows its scratch memory when it gets its first piece, which may be late.
    tbb::task_arena arena(3);
    arena.execute([&] {
        for (int i = 0; i < 5; ++i) run();
    });
    const size_t before_threads = allocations;
    arena.execute([&] {
        for (int i = 0; i < 50; ++i) run();
    });
    EXPECT_LE(allocations - before_threads, 10);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Drivers,
    testing::Combine(testing::Values(Shape{1, 896}, Shape{1, 100}, Shape{3, 96}, Shape{16, 256},
                                     Shape{40, 896}, Shape{300, 96}, Shape{130, 100}),
                     testing::Values(ActivationPrecision::Int8, ActivationPrecision::Exact)),
    [](const auto& tested) {
        const auto& shape = std::get<0>(tested.param);
        return std::to_string(shape.rows) + "x" + std::to_string(shape.columns) +
               (std::get<1>(tested.param) == ActivationPrecision::Exact ? "_exact" : "_int8");
    });

/// Largest difference to f32 activations, as a share of the largest result: a plain product with a
/// residual, and a gated MLP of which only gate or down is in groups of 16.
std::vector<float> errors_in_groups_of_16(size_t rows) {
    using namespace ovfast::kernels;
    constexpr size_t width = 544, columns = 256;
    const WeightFormat q6_k{6, ScaleKind::SuperI8, OffsetKind::Symmetric, FloatKind::None, 16};
    const WeightFormat groups_of_32{8, ScaleKind::F32, OffsetKind::Symmetric, FloatKind::None, 32};
    const auto matrix = [](const WeightFormat& format, size_t n, size_t k, unsigned seed) {
        return packed_bytes(ovfast::kernels::testing::random_weights(format, n, k, seed));
    };
    const std::vector<std::vector<uint8_t>> bytes{matrix(q6_k, width, columns, 1),
                                                  matrix(groups_of_32, width, columns, 2),
                                                  matrix(q6_k, columns, width, 3)};
    std::vector<PackedWeights> views;
    for (const auto& one : bytes) views.push_back(PackedWeights::view(one.data(), one.size()));
    const auto x = random_floats(rows * columns, 4);
    const auto gamma = random_floats(columns, 5, 0.5F, 1.5F);
    const auto residual = random_floats(rows * columns, 6);
    const auto run = [&](ActivationPrecision precision) {
        std::vector<std::vector<float>> out{std::vector<float>(rows * width),
                                            std::vector<float>(rows * width),
                                            std::vector<float>(rows * columns)};
        LinearJob jobs[2];
        for (size_t i = 0; i < 2; ++i) {
            jobs[i].weights = &views[i];
            jobs[i].out = out[i].data();
            jobs[i].out_stride = width;
        }
        GatedMlpJob mlp;
        mlp.gate = &views[0];
        mlp.up = &views[0];
        mlp.down = &views[2];
        mlp.multiply = vector_kernels().silu_multiply;
        mlp.residual = residual.data();
        mlp.out = out[2].data();
        tbb::task_arena arena(3);
        arena.execute([&] {
            run_linear_jobs(x.data(), rows, columns, {gamma.data(), 1e-6F}, jobs, 2, precision);
            run_gated_mlp(x.data(), rows, columns, {gamma.data(), 1e-6F}, mlp, precision);
        });
        return out;
    };
    const auto expected = run(ActivationPrecision::Exact);
    const auto got = run(ActivationPrecision::Int8);
    std::vector<float> errors;
    for (size_t i = 0; i < got.size(); ++i) {
        float error = 0, largest = 0;
        for (size_t at = 0; at < got[i].size(); ++at) {
            error = std::max(error, std::abs(got[i][at] - expected[i][at]));
            largest = std::max(largest, std::abs(expected[i][at]));
        }
        errors.push_back(error / largest);
    }
    return errors;
}

TEST(ParallelLinear, MultipliesFewRowsByGroupsOf16InTwoTerms) {
    for (const size_t rows : {1, 2, 3, 4}) {
        const auto errors = errors_in_groups_of_16(rows);
        // A code is off by half a step of 1/127, what it leaves over by half of 1/254 of that.
        EXPECT_LT(errors[0], 5e-5F) << rows;
        EXPECT_LT(errors[2], 1e-4F) << rows;
        // Other groups, in the same call, have one term.
        EXPECT_GT(errors[1], 5e-4F) << rows;
    }
    EXPECT_GT(errors_in_groups_of_16(5)[0], 5e-4F);
}

TEST(ParallelLinear, WorkInsideOfParallelWork) {
    // A thread that waits for its own work must not begin another's on the same workspace.
    const Matrix weights(500, 256, 1);
    const size_t tasks = 64, rows = 40;
    const auto x = random_floats(tasks * rows * 256, 3);
    std::vector<float> out(tasks * rows * 500), expected(out.size());
    const auto run = [&](size_t task, std::vector<float>& to) {
        LinearJob job;
        job.weights = &weights.view;
        job.out = to.data() + task * rows * 500;
        job.out_stride = 500;
        run_linear_jobs(x.data() + task * rows * 256, rows, 256, {}, &job, 1,
                        ActivationPrecision::Int8);
    };
    for (size_t task = 0; task < tasks; ++task) run(task, expected);
    tbb::task_arena arena(4);
    arena.execute(
        [&] { tbb::parallel_for(size_t{0}, tasks, [&](size_t task) { run(task, out); }); });
    EXPECT_EQ(out, expected);
}

}  // namespace
