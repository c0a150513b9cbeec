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
    GrowingBuffer gate, up, apart;
    std::vector<Panel> panels;
    std::vector<ChosenKernel> kernels;
    std::vector<size_t> apart_at;
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

/// What multiply() wants as room for terms that are computed apart.
size_t apart_floats(const ChosenKernel& chosen, size_t rows,
                    const kernels::PackedWeights& weights) {
    return chosen.terms == 1 ? 0 : chosen.terms * rows * weights.rows();
}

size_t scratch_bytes_of(const ChosenKernel& chosen, const kernels::PackedWeights& weights,
                        size_t rows) {
    return chosen.kernel->scratch_bytes(weights, chosen.terms * rows);
}

/// multiply(gate(x), up(x)) into the workspace, [rows, gate.rows()].
const float* run_gate_and_up(const float* x, size_t rows, size_t columns, const InputNorm& norm,
                             const GatedMlpJob& job, const LinearMode& mode) {
    Workspace& space = workspace();
    const ChosenKernel gate_kernel = choose_kernel(job.gate->format(), rows, mode.precision);
    const ChosenKernel up_kernel = choose_kernel(job.up->format(), rows, mode.precision);
    ActivationKinds kinds;
    kinds.int8_group = kernels::activation_group(mode.precision);
    kinds.add(gate_kernel);
    kinds.add(up_kernel);
    const auto activations = space.activations.prepare(x, rows, columns, norm, kinds);

    const size_t width = job.gate->rows();
    float* gate = space.gate.get<float>(rows * width);
    float* up = space.up.get<float>(rows * width);
    float* gate_apart = space.apart.get<float>(apart_floats(gate_kernel, rows, *job.gate) +
                                               apart_floats(up_kernel, rows, *job.up));
    float* up_apart = gate_apart + apart_floats(gate_kernel, rows, *job.gate);
    space.panels.assign(1,
                        Panel{job.gate->blocks(), job.gate->block_bytes() + job.up->block_bytes()});
    PieceQueue queue(space.panels, rows,
                     std::max(gate_kernel.kernel->min_rows, up_kernel.kernel->min_rows),
                     mode.tiles);
    const size_t scratch_bytes =
        std::max(scratch_bytes_of(gate_kernel, *job.gate, queue.piece_rows()),
                 scratch_bytes_of(up_kernel, *job.up, queue.piece_rows()));
    run_workers(queue.workers(), [&](size_t) {
        std::byte* scratch = worker_scratch(scratch_bytes);
        for (Piece piece; queue.take(piece);) {
            multiply(gate_kernel, *job.gate, activations, piece, gate, width, gate_apart, scratch);
            multiply(up_kernel, *job.up, activations, piece, up, width, up_apart, scratch);
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
                     const LinearJob* jobs, size_t job_count, const LinearMode& mode) {
    if (rows == 0 || job_count == 0) return;
    Workspace& space = workspace();
    space.panels.clear();
    space.kernels.clear();
    space.apart_at.clear();
    ActivationKinds kinds;
    kinds.int8_group = kernels::activation_group(mode.precision);
    size_t min_rows = 1;
    size_t apart_count = 0;
    for (size_t i = 0; i < job_count; ++i) {
        const auto& weights = *jobs[i].weights;
        const ChosenKernel chosen = choose_kernel(weights.format(), rows, mode.precision);
        space.kernels.push_back(chosen);
        space.panels.push_back({weights.blocks(), weights.block_bytes()});
        space.apart_at.push_back(apart_count);
        apart_count += apart_floats(chosen, rows, weights);
        kinds.add(chosen);
        min_rows = std::max(min_rows, chosen.kernel->min_rows);
    }
    float* apart = space.apart.get<float>(apart_count);
    const auto activations = space.activations.prepare(x, rows, columns, norm, kinds);

    PieceQueue queue(space.panels, rows, min_rows, mode.tiles);
    size_t scratch_bytes = 0;
    for (size_t i = 0; i < job_count; ++i) {
        scratch_bytes = std::max(scratch_bytes, scratch_bytes_of(space.kernels[i], *jobs[i].weights,
                                                                 queue.piece_rows()));
    }
    run_workers(queue.workers(), [&](size_t) {
        std::byte* scratch = worker_scratch(scratch_bytes);
        for (Piece piece; queue.take(piece);) {
            const LinearJob& job = jobs[piece.panel];
            multiply(space.kernels[piece.panel], *job.weights, activations, piece, job.out,
                     job.out_stride, apart + space.apart_at[piece.panel], scratch);
            add_bias_and_residual(job, piece);
        }
    });
}

void run_gated_mlp(const float* x, size_t rows, size_t columns, const InputNorm& norm,
                   const GatedMlpJob& job, const LinearMode& mode) {
    const size_t width = job.down->rows();
    const size_t pieces = (rows + kMlpRows - 1) / kMlpRows;
    for (size_t piece = 0; piece < pieces; ++piece) {
        const size_t first = rows * piece / pieces;
        const size_t count = rows * (piece + 1) / pieces - first;
        const float* product =
            run_gate_and_up(x + first * columns, count, columns, norm, job, mode);
        LinearJob down;
        down.weights = job.down;
        down.residual = job.residual ? job.residual + first * width : nullptr;
        down.residual_stride = width;
        down.out = job.out + first * width;
        down.out_stride = width;
        run_linear_jobs(product, count, job.gate->rows(), {}, &down, 1, mode);
    }
}

}  // namespace ovfast::ops
