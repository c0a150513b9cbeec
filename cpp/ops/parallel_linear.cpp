#include "ops/parallel_linear.hpp"

#include <algorithm>

#include "ops/linear_work.hpp"

namespace ovfast::ops {
namespace {

// Rows of a prompt whose intermediate values (4 bytes for each row and column of gate and of up)
// stay in a cache of some MB.
constexpr size_t kMlpRows = 256;

struct Workspace {
    ActivationBuffers activations;
    GrowingBuffer gate, up;
    std::vector<Panel> panels;
    std::vector<const kernels::LinearKernel*> kernels;
};

Workspace& workspace() {
    thread_local Workspace workspace;
    return workspace;
}

/// Output columns [first, last) of a piece.
struct Columns {
    size_t first, last;
    Columns(const kernels::PackedWeights& weights, const Piece& piece)
        : first(piece.first_block * kernels::kBlockRows),
          last(std::min(piece.last_block * kernels::kBlockRows, weights.rows())) {}
    size_t count() const { return last - first; }
};

void add_bias_and_residual(const LinearJob& job, const Piece& piece) {
    if (!job.bias && !job.residual) return;
    const auto add = kernels::vector_kernels().add;
    const Columns columns(*job.weights, piece);
    for (size_t row = piece.first_row; row < piece.last_row; ++row) {
        float* out = job.out + row * job.out_stride + columns.first;
        if (job.bias) add(job.bias + columns.first, out, columns.count());
        if (job.residual) {
            add(job.residual + row * job.residual_stride + columns.first, out, columns.count());
        }
    }
}

/// multiply(gate(x), up(x)) into the workspace, [rows, gate.rows()].
const float* run_gate_and_up(const float* x, size_t rows, size_t columns, const InputNorm& norm,
                             const GatedMlpJob& job, kernels::ActivationPrecision precision) {
    Workspace& space = workspace();
    const auto& gate_kernel = kernels::select_linear(job.gate->format(), rows, precision);
    const auto& up_kernel = kernels::select_linear(job.up->format(), rows, precision);
    ActivationKinds kinds;
    kinds.int8_group = kernels::activation_group(precision);
    kinds.add(gate_kernel.activations);
    kinds.add(up_kernel.activations);
    const auto activations = space.activations.prepare(x, rows, columns, norm, kinds);

    const size_t width = job.gate->rows();
    float* gate = space.gate.get<float>(rows * width);
    float* up = space.up.get<float>(rows * width);
    space.panels.assign(1,
                        Panel{job.gate->blocks(), job.gate->block_bytes() + job.up->block_bytes()});
    PieceQueue queue(space.panels, rows, std::max(gate_kernel.min_rows, up_kernel.min_rows));
    const size_t scratch_bytes = std::max(gate_kernel.scratch_bytes(*job.gate, queue.piece_rows()),
                                          up_kernel.scratch_bytes(*job.up, queue.piece_rows()));
    run_workers(queue.workers(), [&](size_t) {
        std::byte* scratch = worker_scratch(scratch_bytes);
        for (Piece piece; queue.take(piece);) {
            multiply(gate_kernel, *job.gate, activations, piece, gate, width, scratch);
            multiply(up_kernel, *job.up, activations, piece, up, width, scratch);
            const Columns done(*job.gate, piece);
            for (size_t row = piece.first_row; row < piece.last_row; ++row) {
                const size_t at = row * width + done.first;
                job.multiply(gate + at, up + at, gate + at, done.count());
            }
        }
    });
    return gate;
}

}  // namespace

void run_linear_jobs(const float* x, size_t rows, size_t columns, const InputNorm& norm,
                     const LinearJob* jobs, size_t job_count,
                     kernels::ActivationPrecision precision) {
    if (rows == 0 || job_count == 0) return;
    Workspace& space = workspace();
    space.panels.clear();
    space.kernels.clear();
    ActivationKinds kinds;
    kinds.int8_group = kernels::activation_group(precision);
    size_t min_rows = 1;
    for (size_t i = 0; i < job_count; ++i) {
        const auto& weights = *jobs[i].weights;
        const auto& kernel = kernels::select_linear(weights.format(), rows, precision);
        space.kernels.push_back(&kernel);
        space.panels.push_back({weights.blocks(), weights.block_bytes()});
        kinds.add(kernel.activations);
        min_rows = std::max(min_rows, kernel.min_rows);
    }
    const auto activations = space.activations.prepare(x, rows, columns, norm, kinds);

    PieceQueue queue(space.panels, rows, min_rows);
    size_t scratch_bytes = 0;
    for (size_t i = 0; i < job_count; ++i) {
        scratch_bytes = std::max(
            scratch_bytes, space.kernels[i]->scratch_bytes(*jobs[i].weights, queue.piece_rows()));
    }
    run_workers(queue.workers(), [&](size_t) {
        std::byte* scratch = worker_scratch(scratch_bytes);
        for (Piece piece; queue.take(piece);) {
            const LinearJob& job = jobs[piece.panel];
            multiply(*space.kernels[piece.panel], *job.weights, activations, piece, job.out,
                     job.out_stride, scratch);
            add_bias_and_residual(job, piece);
        }
    });
}

void run_gated_mlp(const float* x, size_t rows, size_t columns, const InputNorm& norm,
                   const GatedMlpJob& job, kernels::ActivationPrecision precision) {
    const size_t width = job.down->rows();
    const size_t pieces = (rows + kMlpRows - 1) / kMlpRows;
    for (size_t piece = 0; piece < pieces; ++piece) {
        const size_t first = rows * piece / pieces;
        const size_t count = rows * (piece + 1) / pieces - first;
        const float* product =
            run_gate_and_up(x + first * columns, count, columns, norm, job, precision);
        LinearJob down;
        down.weights = job.down;
        down.residual = job.residual ? job.residual + first * width : nullptr;
        down.residual_stride = width;
        down.out = job.out + first * width;
        down.out_stride = width;
        run_linear_jobs(product, count, job.gate->rows(), {}, &down, 1, precision);
    }
}

}  // namespace ovfast::ops
