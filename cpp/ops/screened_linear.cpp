#include "ops/screened_linear.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/linear_work.hpp"

namespace ovfast::ops {
namespace {

using kernels::kBlockRows;

// With more rows their candidates together would need most of the second half anyway.
constexpr size_t kScreenedRows = 16;
// Rounding of sums in f32 is some 1e-6 of their terms, which bounds exceed by far.
constexpr float kSlack = 1.001F;

struct Workspace {
    ActivationBuffers activations;
    GrowingBuffer competing;
    std::vector<Panel> panels;
    std::vector<float> largest, found;
    std::vector<size_t> blocks;
    std::vector<uint8_t> done;  // blocks whose entries are complete
};

Workspace& workspace() {
    thread_local Workspace workspace;
    return workspace;
}

// sqrt(sum (x_k / m_k)^2) of the activations that the kernels multiply.
float size_of(const kernels::Activations& in, size_t row, const float* metric) {
    double sum = 0.0;
    for (size_t k = 0; k < in.columns; ++k) {
        double value = 0.0;
        if (in.int8.codes != nullptr) {
            value = static_cast<double>(in.int8.codes[row * in.padded + k]) *
                    in.int8.scales[(row * in.padded + k) / kernels::kChunkColumns];
        } else {
            value = in.f32[row * in.padded + k];
        }
        if (metric != nullptr) value /= metric[k];
        sum += value * value;
    }
    return static_cast<float>(std::sqrt(sum));
}

// The k-th largest of `count` values; `heap` is memory.
float kth_largest(const float* values, size_t count, size_t k, std::vector<float>& heap) {
    heap.clear();
    size_t i = 0;
    for (; i < count && heap.size() < k; ++i) heap.push_back(values[i]);
    std::make_heap(heap.begin(), heap.end(), std::greater<>());
    // Nearly all are smaller than the smallest kept: found out for 16 at a time.
    for (; i < count; i += kBlockRows) {
        const size_t end = std::min(count, i + kBlockRows);
        float most = values[i];
        for (size_t j = i + 1; j < end; ++j) most = std::max(most, values[j]);
        if (!(most > heap.front())) continue;
        for (size_t j = i; j < end; ++j) {
            if (!(values[j] > heap.front())) continue;
            std::pop_heap(heap.begin(), heap.end(), std::greater<>());
            heap.back() = values[j];
            std::push_heap(heap.begin(), heap.end(), std::greater<>());
        }
    }
    return heap.front();
}

void multiply(const kernels::LinearKernel& kernel, const kernels::PackedWeights& weights,
              const kernels::Activations& activations, const Piece& piece, float* out,
              size_t out_stride) {
    kernels::LinearArgs args;
    args.weights = &weights;
    args.activations = &activations;
    args.first_row = piece.first_row;
    args.last_row = piece.last_row;
    args.first_block = piece.first_block;
    args.last_block = piece.last_block;
    args.out = out;
    args.out_stride = out_stride;
    args.scratch = worker_scratch(kernel.scratch_bytes(weights, piece.last_row - piece.first_row));
    kernels::run_linear(kernel, args);
}

// out += x L^T for the piece, through memory of this thread.
void add_low(const kernels::LinearKernel& kernel, const kernels::PackedWeights& low,
             const kernels::Activations& activations, const Piece& piece, float* out,
             size_t out_stride) {
    thread_local GrowingBuffer memory;
    const size_t width = (piece.last_block - piece.first_block) * kBlockRows;
    float* sums = memory.get<float>((piece.last_row - piece.first_row) * width);
    const size_t first = piece.first_block * kBlockRows;
    // Kernels address row 0 and column 0 of the whole matrix.
    multiply(kernel, low, activations, piece,
             sums - static_cast<ptrdiff_t>(piece.first_row * width + first), width);
    const size_t last = std::min(low.rows(), piece.last_block * kBlockRows);
    for (size_t row = piece.first_row; row < piece.last_row; ++row) {
        kernels::vector_kernels().add(sums + (row - piece.first_row) * width,
                                      out + row * out_stride + first, last - first);
    }
}

constexpr float kNothing = -std::numeric_limits<float>::infinity();

// `values`, of one row, as far as they compete for the top_k.
void copy_counted(const ScreenedJob& job, size_t row, const float* values, size_t counted,
                  float* out) {
    std::copy(values, values + counted, out);
    if (job.not_counted == nullptr) return;
    const size_t width = job.high->rows();
    for (const int64_t index : *job.not_counted) {
        const auto at = static_cast<size_t>(index);
        if (at / width == row && at % width < counted) out[at % width] = kNothing;
    }
}

// Row blocks with an entry for which `wanted` holds, ascending.
template <typename Wanted>
void find_blocks(size_t count, const Wanted& wanted, std::vector<size_t>& blocks) {
    blocks.clear();
    for (size_t n = 0; n < count; n += kBlockRows) {
        const size_t end = std::min(count, n + kBlockRows);
        bool any = false;
        for (size_t i = n; i < end; ++i) any |= wanted(i);
        if (any) blocks.push_back(n / kBlockRows);
    }
}

// Adds the second half to some row blocks of one row.
void add_low_to(const kernels::LinearKernel& kernel, const ScreenedJob& job,
                const kernels::Activations& activations, size_t row,
                const std::vector<size_t>& blocks) {
    constexpr size_t step = 16;
    std::atomic<size_t> next{0};
    const auto threads = static_cast<size_t>(tbb::this_task_arena::max_concurrency());
    run_workers(std::min(threads, (blocks.size() + step - 1) / step), [&](size_t) {
        for (size_t i = next.fetch_add(step); i < blocks.size(); i = next.fetch_add(step)) {
            const size_t end = std::min(blocks.size(), i + step);
            for (size_t b = i; b < end; ++b) {
                add_low(kernel, *job.low, activations, {0, row, row + 1, blocks[b], blocks[b] + 1},
                        job.out, job.high->rows());
            }
        }
    });
}

// Completes the entries of one row that may be among the top_k; returns how many.
size_t complete_row(const kernels::LinearKernel& kernel, const ScreenedJob& job,
                    const kernels::Activations& activations, size_t row, Workspace& space) {
    const size_t width = job.high->rows();
    float* out = job.out + row * width;
    const size_t counted = std::min(width, job.counted);
    const size_t top_k = std::min(job.top_k, counted);
    float* competing = space.competing.get<float>(counted);
    std::vector<size_t>& blocks = space.blocks;
    space.done.assign(job.high->blocks(), 0);

    // The best of the first half, completed: the k-th of them bounds the k-th of all from below.
    float least = kNothing;
    if (top_k > 0) {
        copy_counted(job, row, out, counted, competing);
        const float best = kth_largest(competing, counted, top_k, space.largest);
        find_blocks(counted, [&](size_t n) { return competing[n] >= best; }, blocks);
        add_low_to(kernel, job, activations, row, blocks);
        for (const size_t block : blocks) space.done[block] = 1;
        space.found.clear();
        for (const size_t block : blocks) {
            const size_t end = std::min(counted, (block + 1) * kBlockRows);
            for (size_t n = block * kBlockRows; n < end; ++n) {
                if (competing[n] != kNothing) space.found.push_back(out[n]);
            }
        }
        if (space.found.size() >= top_k) {
            least = kth_largest(space.found.data(), space.found.size(), top_k, space.largest);
        }
    }
    const float factor = size_of(activations, row, job.metric) * kSlack;
    // NaN anywhere: no comparison says no, so that it comes out and is seen.
    find_blocks(
        width,
        [&](size_t n) {
            return space.done[n / kBlockRows] == 0 && !(out[n] + job.bounds[n] * factor < least);
        },
        blocks);
    add_low_to(kernel, job, activations, row, blocks);
    for (const size_t block : blocks) space.done[block] = 1;

    size_t computed = 0;
    for (size_t block = 0; block < space.done.size(); ++block) {
        const size_t first = block * kBlockRows;
        const size_t end = std::min(width, first + kBlockRows);
        if (space.done[block] != 0) {
            computed += end - first;
        } else {
            std::fill(out + first, out + end, kNothing);
        }
    }
    return computed;
}

}  // namespace

size_t run_screened_linear(const float* x, size_t rows, size_t columns, const InputNorm& norm,
                           const ScreenedJob& job, kernels::ActivationPrecision precision) {
    if (rows == 0) return 0;
    Workspace& space = workspace();
    const kernels::PackedWeights& high = *job.high;
    const kernels::PackedWeights& low = *job.low;
    const auto& high_kernel = kernels::select_linear(high.format(), rows, precision);
    const auto& low_kernel = kernels::select_linear(low.format(), rows, precision);
    ActivationKinds kinds;
    kinds.add(high_kernel.activations);
    kinds.add(low_kernel.activations);
    const bool screened = job.top_k > 0 && rows <= kScreenedRows &&
                          high_kernel.activations != kernels::ActivationKind::BF16;
    const auto activations = space.activations.prepare(x, rows, columns, norm, kinds);
    const size_t width = high.rows();

    space.panels.assign(
        1, Panel{high.blocks(), high.block_bytes() + (screened ? 0 : low.block_bytes())});
    PieceQueue queue(space.panels, rows, std::max(high_kernel.min_rows, low_kernel.min_rows));
    run_workers(queue.workers(), [&](size_t) {
        for (Piece piece; queue.take(piece);) {
            multiply(high_kernel, high, activations, piece, job.out, width);
            if (!screened) add_low(low_kernel, low, activations, piece, job.out, width);
        }
    });
    if (!screened) return rows * width;

    const auto& row_kernel = kernels::select_linear(low.format(), 1, precision);
    size_t computed = 0;
    for (size_t row = 0; row < rows; ++row) {
        computed += complete_row(row_kernel, job, activations, row, space);
    }
    return computed;
}

}  // namespace ovfast::ops
