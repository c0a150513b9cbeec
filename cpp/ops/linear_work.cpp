#include "ops/linear_work.hpp"

#include <algorithm>
#include <cstring>

namespace ovfast::ops {
namespace {

// From this many rows on, a piece is counted in columns, as the weights are no longer what costs.
constexpr size_t kManyRows = 24;
constexpr size_t kPieceBlocks = 8;
// From this many rows on, what kernels do once a call (AMX arranges its activations) counts too.
constexpr size_t kSeveralRows = 5;
// Tiles have 16-column blocks in twos or fours.
constexpr size_t kManyRowsStep = 4;
// A split by rows reads the weights again, so only where columns leave threads idle.
constexpr size_t kMinSplitRows = 64;
constexpr size_t kPiecesPerWorker = 4;
// A thread reads this many bytes of weights in about the time that it takes to wake it.
constexpr size_t kBytesPerWorker = 32 * 1024;
// The same for activations: floats that are quantized in a few microseconds.
constexpr size_t kFloatsPerWorker = 32 * 1024;
// Up to here twice the rows cost less than a tenth of the time more.
constexpr size_t kTwoTermRows = 4;

size_t divide_up(size_t value, size_t by) {
    return (value + by - 1) / by;
}

size_t round_up(size_t value, size_t to) {
    return divide_up(value, to) * to;
}

}  // namespace

void multiply(const kernels::LinearKernel& kernel, const kernels::PackedWeights& weights,
              const kernels::Activations& activations, const Piece& piece, float* out,
              size_t out_stride, std::byte* scratch) {
    kernels::LinearArgs args;
    args.weights = &weights;
    args.activations = &activations;
    args.first_row = piece.first_row;
    args.last_row = piece.last_row;
    args.first_block = piece.first_block;
    args.last_block = piece.last_block;
    args.out = out;
    args.out_stride = out_stride;
    args.scratch = scratch;
    kernels::run_linear(kernel, args);
}

void multiply(const ChosenKernel& chosen, const kernels::PackedWeights& weights,
              const kernels::Activations& activations, const Piece& piece, float* out,
              size_t out_stride, float* apart, std::byte* scratch) {
    if (chosen.terms == 1) {
        multiply(*chosen.kernel, weights, activations, piece, out, out_stride, scratch);
        return;
    }
    // So few rows are never split: the piece has them all.
    const size_t rows = piece.last_row;
    const size_t width = weights.rows();
    Piece both = piece;
    both.last_row = chosen.terms * rows;
    multiply(*chosen.kernel, weights, activations, both, apart, width, scratch);
    const size_t first = piece.first_block * kernels::kBlockRows;
    const size_t last = std::min(piece.last_block * kernels::kBlockRows, width);
    for (size_t row = 0; row < rows; ++row) {
        const float* codes = apart + row * width;
        const float* left_over = apart + (rows + row) * width;
        for (size_t at = first; at < last; ++at) {
            out[row * out_stride + at] = codes[at] + left_over[at];
        }
    }
}

ChosenKernel choose_kernel(const kernels::WeightFormat& format, size_t rows,
                           kernels::ActivationPrecision precision) {
    if (format.group == 16 && rows <= kTwoTermRows &&
        precision == kernels::ActivationPrecision::Int8) {
        const auto& kernel = kernels::select_linear(format, 2 * rows, precision);
        if (kernel.activations == kernels::ActivationKind::Int8) return {&kernel, 2};
    }
    return {&kernels::select_linear(format, rows, precision), 1};
}

std::byte* worker_scratch(size_t bytes) {
    thread_local GrowingBuffer scratch;
    return scratch.get<std::byte>(bytes);
}

void ActivationKinds::add(const ChosenKernel& chosen) {
    int8_terms = std::max(int8_terms, chosen.terms);
    switch (chosen.kernel->activations) {
        case kernels::ActivationKind::F32:
            f32 = true;
            break;
        case kernels::ActivationKind::Int8:
            int8 = true;
            break;
        case kernels::ActivationKind::BF16:
            bf16 = true;
            break;
    }
}

kernels::Activations ActivationBuffers::prepare(const float* x, size_t rows, size_t columns,
                                                const InputNorm& norm,
                                                const ActivationKinds& kinds) {
    const size_t padded = round_up(columns, kernels::kChunkColumns);
    const size_t groups = padded / kernels::kChunkColumns;
    const bool in_place =
        !norm.gamma && padded == columns && reinterpret_cast<uintptr_t>(x) % 64 == 0;
    float* f32 = kinds.f32 && !in_place ? f32_.get<float>(rows * padded) : nullptr;
    uint16_t* bf16 = kinds.bf16 ? bf16_.get<uint16_t>(rows * padded) : nullptr;
    const size_t int8_rows = rows * kinds.int8_terms;
    int8_t* codes = kinds.int8 ? codes_.get<int8_t>(int8_rows * padded) : nullptr;
    float* scales = kinds.int8 ? scales_.get<float>(int8_rows * groups) : nullptr;
    float* sums = kinds.int8 ? sums_.get<float>(int8_rows * groups) : nullptr;
    float* half_sums = kinds.int8 ? half_sums_.get<float>(int8_rows * groups * 2) : nullptr;

    const auto& vectors = kernels::vector_kernels();
    const auto quantize_row = [&](const float* in, size_t row) {
        vectors.quantize(in, columns, kinds.int8_group, codes + row * padded, scales + row * groups,
                         sums + row * groups, half_sums + row * groups * 2);
    };
    // A row that is worked on, in f32: normalized, and then what its codes leave over.
    const bool has_working_row = norm.gamma || kinds.int8_terms > 1;
    const auto prepare_row = [&](size_t row) {
        const float* in = x + row * columns;
        float* copy = f32 ? f32 + row * padded : nullptr;
        float* working = nullptr;
        if (has_working_row) {
            working = reinterpret_cast<float*>(worker_scratch(columns * sizeof *x));
        }
        if (norm.gamma) {
            float* to = copy ? copy : working;
            vectors.rms_norm(in, norm.gamma, norm.epsilon, columns, to);
            in = to;
        } else if (copy) {
            std::memcpy(copy, in, columns * sizeof *in);
        }
        if (copy) std::fill(copy + columns, copy + padded, 0.0F);
        if (bf16) vectors.to_bf16(in, columns, bf16 + row * padded);
        if (codes) quantize_row(in, row);
        if (codes && kinds.int8_terms > 1) {
            for (size_t k = 0; k < columns; ++k) {
                const float scale = scales[row * groups + k / kernels::kChunkColumns];
                working[k] = in[k] - scale * static_cast<float>(codes[row * padded + k]);
            }
            quantize_row(working, rows + row);
        }
    };
    if (norm.gamma || f32 || bf16 || codes) {
        const auto threads = static_cast<size_t>(tbb::this_task_arena::max_concurrency());
        const size_t workers =
            std::min({threads, rows, std::max<size_t>(1, rows * columns / kFloatsPerWorker)});
        run_workers(workers, [&](size_t worker) {
            const size_t last = rows * (worker + 1) / workers;
            for (size_t row = rows * worker / workers; row < last; ++row) prepare_row(row);
        });
    }

    kernels::Activations prepared;
    prepared.rows = int8_rows;
    prepared.columns = columns;
    prepared.padded = padded;
    prepared.int8 = {codes, scales, sums, half_sums, kinds.int8_group};
    prepared.bf16 = bf16;
    prepared.f32 = kinds.f32 && in_place ? x : f32;
    return prepared;
}

PieceQueue::PieceQueue(const std::vector<Panel>& panels, size_t rows, size_t min_rows,
                       const Tiles& tiles)
    : panels_(panels), rows_(rows), tiles_(tiles), step_(rows < kManyRows ? 1 : kManyRowsStep) {
    size_t bytes = 0;
    for (const auto& panel : panels) {
        blocks_ += panel.blocks;
        bytes += panel.blocks * panel.block_bytes;
    }
    const auto threads = static_cast<size_t>(tbb::this_task_arena::max_concurrency());
    const size_t wanted = divide_up(threads * kPiecesPerWorker * step_, blocks_);
    const size_t possible = rows / std::max(min_rows, kMinSplitRows);
    row_pieces_ = std::max<size_t>(1, std::min(wanted, possible));
    workers_ = std::min({threads, divide_up(bytes * rows, kBytesPerWorker),
                         divide_up(blocks_, step_) * row_pieces_});
}

bool PieceQueue::take(Piece& piece) {
    const size_t total = blocks_ * row_pieces_;
    size_t begin = next_.load(std::memory_order_relaxed);
    size_t count = 0;
    do {
        if (begin >= total) return false;
        const size_t row_piece = begin / blocks_;
        size_t block = begin % blocks_;
        piece.panel = 0;
        while (block >= panels_[piece.panel].blocks) block -= panels_[piece.panel++].blocks;
        const Panel& panel = panels_[piece.panel];
        // Kernels prepare activations once a call, which many columns share.
        size_t most = round_up(divide_up(tiles_.columns, kernels::kBlockRows), step_);
        if (rows_ < kManyRows) {
            most =
                std::max(rows_ < kSeveralRows ? 1 : kPieceBlocks, tiles_.bytes / panel.block_bytes);
        }
        const size_t share = round_up(divide_up(total - begin, 2 * workers_), step_);
        count = std::min({share, most, panel.blocks - block});
        piece.first_row = rows_ * row_piece / row_pieces_;
        piece.last_row = rows_ * (row_piece + 1) / row_pieces_;
        piece.first_block = block;
        piece.last_block = block + count;
    } while (!next_.compare_exchange_weak(begin, begin + count, std::memory_order_relaxed));
    return true;
}

}  // namespace ovfast::ops
