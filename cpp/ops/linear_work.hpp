#pragma once

#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <new>
#include <vector>

#include "ops/parallel_linear.hpp"

// What parallel_linear.cpp is made of: memory, activations and the handing out of work.
namespace ovfast::ops {

/// Memory aligned to 64 bytes that only grows; growing loses what was in it.
class GrowingBuffer {
public:
    template <typename T>
    T* get(size_t count) {
        const size_t bytes = count * sizeof(T);
        if (bytes > bytes_) {
            data_.reset();
            bytes_ = 0;
            data_.reset(static_cast<std::byte*>(::operator new(bytes, kAlignment)));
            bytes_ = bytes;
        }
        return reinterpret_cast<T*>(data_.get());
    }

private:
    static constexpr std::align_val_t kAlignment{64};
    struct Free {
        void operator()(std::byte* data) const { ::operator delete(data, kAlignment); }
    };
    std::unique_ptr<std::byte, Free> data_;
    size_t bytes_ = 0;
};

/// A kernel for some weights and rows of activations.
///
/// Weights in groups of 16 (Q6_K) are those that a file wants to be precise, so a few rows of
/// activations reach them in two terms of int8: the codes as always, and what these leave over,
/// quantized again, as rows of their own behind the others. Kernels multiply twice as many rows and
/// the two results of a row are added: the error is 254 times smaller, and where reading the
/// weights is what takes the time it costs little.
struct ChosenKernel {
    const kernels::LinearKernel* kernel = nullptr;
    size_t terms = 1;  ///< rows of int8 activations for each row: 1, or 2
};
ChosenKernel choose_kernel(const kernels::WeightFormat& format, size_t rows,
                           kernels::ActivationPrecision precision);

/// Which forms of the activations the chosen kernels want.
struct ActivationKinds {
    bool f32 = false, int8 = false, bf16 = false;
    size_t int8_terms = 1;
    size_t int8_group = 32;  ///< columns that share a scale: 32 or 128
    void add(const ChosenKernel& chosen);
};

class ActivationBuffers {
public:
    /// Normalizes x [rows, columns] and converts it. f32 is x itself where kernels can read it;
    /// int8 has the rows of the second term behind those of the first. The result lives until the
    /// next call, and no longer than x.
    kernels::Activations prepare(const float* x, size_t rows, size_t columns, const InputNorm& norm,
                                 const ActivationKinds& kinds);

private:
    GrowingBuffer f32_, bf16_, codes_, scales_, sums_, half_sums_;
};

/// Calls body(0 .. workers - 1) at once; alone when there is one. The waiting thread takes no other
/// work meanwhile: that could come back here and overwrite this thread's workspace.
template <typename Body>
void run_workers(size_t workers, const Body& body) {
    if (workers <= 1) {
        body(size_t{0});
        return;
    }
    tbb::this_task_arena::isolate(
        [&] { tbb::parallel_for(size_t{0}, workers, body, tbb::static_partitioner{}); });
}

/// Row blocks of one set of weights, or of several that are worked on together.
struct Panel {
    size_t blocks = 0;
    size_t block_bytes = 0;
};

/// Work for one call of a kernel: blocks of one panel, for some rows of the activations.
struct Piece {
    size_t panel = 0;
    size_t first_row = 0, last_row = 0;
    size_t first_block = 0, last_block = 0;
};

/// Hands out the blocks of all panels. Pieces shrink as the work runs out, so that threads of
/// unequal speed end together: half of an even share of what is left, at most a tile of
/// weights at few rows (but kPieceBlocks from five on), or its columns at many.
class PieceQueue {
public:
    /// `min_rows`: what the kernels need in one call.
    PieceQueue(const std::vector<Panel>& panels, size_t rows, size_t min_rows,
               const Tiles& tiles = {});

    /// Threads that find something to do.
    size_t workers() const { return workers_; }
    /// Rows of the largest piece.
    size_t piece_rows() const { return (rows_ + row_pieces_ - 1) / row_pieces_; }
    bool take(Piece& piece);

private:
    const std::vector<Panel>& panels_;
    size_t rows_;
    Tiles tiles_;
    size_t step_;  // blocks in the smallest piece
    size_t blocks_ = 0;
    size_t workers_ = 1;
    size_t row_pieces_ = 1;
    std::atomic<size_t> next_{0};
};

/// One call of a kernel for one piece; `out` is row 0, column 0 of the whole result.
void multiply(const kernels::LinearKernel& kernel, const kernels::PackedWeights& weights,
              const kernels::Activations& activations, const Piece& piece, float* out,
              size_t out_stride, std::byte* scratch);

/// The same, terms added. `apart` has room for the terms: [2 * rows][weights.rows()] where there
/// are two.
void multiply(const ChosenKernel& chosen, const kernels::PackedWeights& weights,
              const kernels::Activations& activations, const Piece& piece, float* out,
              size_t out_stride, float* apart, std::byte* scratch);

/// This thread's scratch memory for kernels.
std::byte* worker_scratch(size_t bytes);

}  // namespace ovfast::ops
