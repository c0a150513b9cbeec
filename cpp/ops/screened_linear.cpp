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
// When several rows needed most of the second half, so will the next: their bounds are weak. It is
// tried again after so many calls.
constexpr size_t kSeveralRows = 5;
constexpr size_t kUnscreenedCalls = 32;
// Rounding of sums in f32 is some 1e-6 of their terms, which bounds exceed by far.
constexpr float kSlack = 1.001F;

struct Workspace {
    ActivationBuffers activations;
    std::vector<Panel> panels;
    size_t unscreened = 0;  // calls with many rows that are not screened
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
             sums - static_cast<ptrdiff_t>(piece.first_row * width + first), width,
             worker_scratch(kernel.scratch_bytes(low, piece.last_row - piece.first_row)));
    const size_t last = std::min(low.rows(), piece.last_block * kBlockRows);
    for (size_t row = piece.first_row; row < piece.last_row; ++row) {
        kernels::vector_kernels().add(sums + (row - piece.first_row) * width,
                                      out + row * out_stride + first, last - first);
    }
}

constexpr float kNothing = -std::numeric_limits<float>::infinity();

// Marks row blocks with an entry for which `wanted` holds. Several rows mark at once.
template <typename Wanted>
void mark_blocks(size_t count, const Wanted& wanted, std::vector<std::atomic<uint8_t>>& marks) {
    for (size_t n = 0; n < count; n += kBlockRows) {
        const size_t end = std::min(count, n + kBlockRows);
        bool any = false;
        for (size_t i = n; i < end; ++i) any |= wanted(i);
        if (any) marks[n / kBlockRows].store(1, std::memory_order_relaxed);
    }
}

// Finds the entries that can be among the top_k of their rows, and completes the row blocks that
// hold one of any row: blocks are read once for all rows.
class Completion {
public:
    Completion(const ScreenedJob& job, const kernels::Activations& activations, size_t rows,
               kernels::ActivationPrecision precision)
        : job_(job),
          activations_(activations),
          rows_(rows),
          // Blocks lie scattered, which kernels for few rows mind least.
          kernel_(kernels::select_linear(job.low->format(), 1, precision)),
          dense_kernel_(kernels::select_linear(job.low->format(), rows, precision)),
          width_(job.high->rows()),
          counted_(std::min(width_, job.counted)),
          top_k_(std::min(job.top_k, counted_)),
          least_(rows, kNothing),
          best_(job.high->blocks()),
          rest_(job.high->blocks()) {}

    size_t run() {
        // The best of the first half, completed: the k-th of them bounds the k-th of all from
        // below.
        if (top_k_ > 0) {
            for_each_row([&](size_t row) { mark_best(row); });
            complete(best_);
            for_each_row([&](size_t row) { find_least(row); });
        }
        for_each_row([&](size_t row) { mark_rest(row); });
        complete(rest_);
        size_t computed = 0;
        for (size_t block = 0; block < best_.size(); ++block) {
            const size_t first = block * kBlockRows;
            const size_t end = std::min(width_, first + kBlockRows);
            if (is_marked(best_, block) || is_marked(rest_, block)) {
                computed += (end - first) * rows_;
                continue;
            }
            for (size_t row = 0; row < rows_; ++row) {
                std::fill(job_.out + row * width_ + first, job_.out + row * width_ + end, kNothing);
            }
        }
        return computed;
    }

private:
    using Marks = std::vector<std::atomic<uint8_t>>;
    struct Range {
        size_t first, last;
    };
    static constexpr size_t kDenseBlocks = 32;

    struct RowMemory {
        std::vector<float> competing, largest, found;
    };
    static RowMemory& row_memory() {
        thread_local RowMemory memory;
        return memory;
    }

    static bool is_marked(const Marks& marks, size_t block) {
        return marks[block].load(std::memory_order_relaxed) != 0;
    }

    template <typename Work>
    void for_each_row(const Work& work) const {
        std::atomic<size_t> next{0};
        const auto threads = static_cast<size_t>(tbb::this_task_arena::max_concurrency());
        run_workers(std::min(threads, rows_), [&](size_t) {
            for (size_t row = next++; row < rows_; row = next++) work(row);
        });
    }

    // Values of a row, and -infinity for those that do not compete for the top_k.
    void copy_counted(size_t row, std::vector<float>& competing) const {
        const float* values = job_.out + row * width_;
        competing.assign(values, values + counted_);
        if (job_.not_counted == nullptr) return;
        for (const int64_t index : *job_.not_counted) {
            const auto at = static_cast<size_t>(index);
            if (at / width_ == row && at % width_ < counted_) competing[at % width_] = kNothing;
        }
    }

    void mark_best(size_t row) {
        RowMemory& memory = row_memory();
        copy_counted(row, memory.competing);
        const float* competing = memory.competing.data();
        const float best = kth_largest(competing, counted_, top_k_, memory.largest);
        mark_blocks(counted_, [&](size_t n) { return competing[n] >= best; }, best_);
    }

    void find_least(size_t row) {
        RowMemory& memory = row_memory();
        copy_counted(row, memory.competing);
        memory.found.clear();
        for (size_t block = 0; block < best_.size(); ++block) {
            if (!is_marked(best_, block)) continue;
            const size_t end = std::min(counted_, (block + 1) * kBlockRows);
            for (size_t n = block * kBlockRows; n < end; ++n) {
                if (memory.competing[n] != kNothing) memory.found.push_back(memory.competing[n]);
            }
        }
        if (memory.found.size() < top_k_) return;
        least_[row] = kth_largest(memory.found.data(), memory.found.size(), top_k_, memory.largest);
    }

    void mark_rest(size_t row) {
        const float* values = job_.out + row * width_;
        const float* bounds = job_.bounds;
        const float factor = size_of(activations_, row, job_.metric) * kSlack;
        const float least = least_[row];
        // NaN anywhere: no comparison says no, so that it comes out and is seen.
        mark_blocks(
            width_, [&](size_t n) { return !(values[n] + bounds[n] * factor < least); }, rest_);
    }

    // Adds the second half to the marked blocks that do not have it yet, of all rows.
    void complete(Marks& marks) {
        const bool second = &marks == &rest_;
        const auto missing = [&](size_t block) { return !(second && is_marked(best_, block)); };
        std::vector<Range> ranges;
        size_t marked = 0;
        for (size_t block = 0; block < marks.size(); ++block) {
            if (!is_marked(marks, block) || !missing(block)) continue;
            ranges.push_back({block, block + 1});
            ++marked;
        }
        const bool dense = marked * 2 > marks.size();
        if (dense) {
            // Front to back through nearly all of it is faster than here and there.
            ranges.clear();
            for (size_t block = 0; block < marks.size(); ++block) {
                marks[block].store(1, std::memory_order_relaxed);
                if (!missing(block)) continue;
                if (ranges.empty() || ranges.back().last != block ||
                    ranges.back().last - ranges.back().first == kDenseBlocks) {
                    ranges.push_back({block, block});
                }
                ++ranges.back().last;
            }
        }
        const auto& kernel = dense ? dense_kernel_ : kernel_;
        const size_t step = dense ? 1 : 16;
        std::atomic<size_t> next{0};
        const auto threads = static_cast<size_t>(tbb::this_task_arena::max_concurrency());
        run_workers(std::min(threads, (ranges.size() + step - 1) / step), [&](size_t) {
            for (size_t i = next.fetch_add(step); i < ranges.size(); i = next.fetch_add(step)) {
                const size_t end = std::min(ranges.size(), i + step);
                for (size_t r = i; r < end; ++r) complete_range(kernel, ranges[r]);
            }
        });
    }

    void complete_range(const kernels::LinearKernel& kernel, const Range& range) const {
        for (size_t row = 0; row < rows_;) {
            const size_t last = row + std::min(rows_ - row, kernel.max_rows);
            add_low(kernel, *job_.low, activations_, {0, row, last, range.first, range.last},
                    job_.out, width_);
            row = last;
        }
    }

    const ScreenedJob& job_;
    const kernels::Activations& activations_;
    const size_t rows_;
    const kernels::LinearKernel& kernel_;
    const kernels::LinearKernel& dense_kernel_;
    const size_t width_, counted_, top_k_;
    std::vector<float> least_;  // of each row: the k-th largest is at least this
    Marks best_, rest_;
};

}  // namespace

size_t run_screened_linear(const float* x, size_t rows, size_t columns, const InputNorm& norm,
                           const ScreenedJob& job, const LinearMode& mode) {
    if (rows == 0) return 0;
    Workspace& space = workspace();
    const kernels::PackedWeights& high = *job.high;
    const kernels::PackedWeights& low = *job.low;
    const auto& high_kernel = kernels::select_linear(high.format(), rows, mode.precision);
    const auto& low_kernel = kernels::select_linear(low.format(), rows, mode.precision);
    ActivationKinds kinds;
    kinds.int8_group = kernels::activation_group(mode.precision);
    kinds.add({&high_kernel});
    kinds.add({&low_kernel});
    bool screened = job.top_k > 0 && rows <= kScreenedRows &&
                    high_kernel.activations != kernels::ActivationKind::BF16;
    if (screened && rows >= kSeveralRows && space.unscreened > 0) {
        --space.unscreened;
        screened = false;
    }
    const auto activations = space.activations.prepare(x, rows, columns, norm, kinds);
    const size_t width = high.rows();

    space.panels.assign(
        1, Panel{high.blocks(), high.block_bytes() + (screened ? 0 : low.block_bytes())});
    PieceQueue queue(space.panels, rows, std::max(high_kernel.min_rows, low_kernel.min_rows),
                     mode.tiles);
    run_workers(queue.workers(), [&](size_t) {
        for (Piece piece; queue.take(piece);) {
            multiply(
                high_kernel, high, activations, piece, job.out, width,
                worker_scratch(high_kernel.scratch_bytes(high, piece.last_row - piece.first_row)));
            if (!screened) add_low(low_kernel, low, activations, piece, job.out, width);
        }
    });
    if (!screened) return rows * width;

    const size_t computed = Completion(job, activations, rows, mode.precision).run();
    if (rows >= kSeveralRows && computed * 2 > rows * width) space.unscreened = kUnscreenedCalls;
    return computed;
}

}  // namespace ovfast::ops
