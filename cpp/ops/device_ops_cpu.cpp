#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>

#include "kernels/stream.hpp"
#include "ops/device_ops.hpp"
#include "ops/linear_work.hpp"

namespace ovfast::ops {
namespace {

// Fewer bytes than this take less time than waking a thread.
constexpr size_t kBytesPerWorker = 64 * 1024;
// Results larger than this leave the caches before anyone reads them.
constexpr size_t kPastCacheBytes = size_t{16} << 20;
// Values of other types than f32 are worked on in pieces that stay in the L1 cache.
constexpr size_t kPieceFloats = 1024;
constexpr size_t kLineFloats = 16;

size_t workers_for(size_t bytes) {
    const auto threads = static_cast<size_t>(tbb::this_task_arena::max_concurrency());
    return std::clamp(bytes / kBytesPerWorker, size_t{1}, threads);
}

/// Calls body(first, last) for parts of [0, count) in threads; all but the last begin at multiples
/// of `step`.
template <typename Body>
void in_parts(size_t count, size_t step, size_t workers, const Body& body) {
    const size_t steps = (count + step - 1) / step;
    run_workers(std::min(workers, steps), [&, parts = std::min(workers, steps)](size_t part) {
        const size_t first = steps * part / parts * step;
        const size_t last = std::min(steps * (part + 1) / parts * step, count);
        body(first, last);
    });
}

/// f32 values of a tensor, in place or converted piece by piece.
class Reader {
public:
    explicit Reader(const ov::Tensor& tensor)
        : data_(static_cast<const std::byte*>(tensor.data())), type_(tensor.get_element_type()) {}

    /// `count` values from `first` on; `space` has room for them.
    const float* get(size_t first, size_t count, float* space) const {
        if (type_ == ov::element::f32) return reinterpret_cast<const float*>(data_) + first;
        const auto* bits = reinterpret_cast<const uint16_t*>(data_) + first;
        if (type_ == ov::element::f16) {
            kernels::stream_kernels().widen_f16(bits, count, space);
        } else {
            const auto* values = reinterpret_cast<const ov::bfloat16*>(bits);
            std::copy(values, values + count, space);
        }
        return space;
    }

private:
    const std::byte* data_;
    ov::element::Type type_;
};

class Writer {
public:
    explicit Writer(ov::Tensor& tensor)
        : data_(static_cast<std::byte*>(tensor.data())), type_(tensor.get_element_type()) {}

    /// Where `count` results from `first` on are to be written: in place, or in `space`.
    float* begin(size_t first, float* space) const {
        return type_ == ov::element::f32 ? reinterpret_cast<float*>(data_) + first : space;
    }
    void end(size_t first, size_t count, const float* space) const {
        if (type_ == ov::element::f32) return;
        auto* bits = reinterpret_cast<uint16_t*>(data_) + first;
        if (type_ == ov::element::f16) {
            kernels::stream_kernels().narrow_f16(space, count, bits);
        } else {
            std::copy(space, space + count, reinterpret_cast<ov::bfloat16*>(bits));
        }
    }

private:
    std::byte* data_;
    ov::element::Type type_;
};

void check_sizes(const ov::Node& node, const ov::TensorVector& inputs, size_t index) {
    OPENVINO_ASSERT(inputs[index].get_shape() == inputs[0].get_shape() &&
                        inputs[index].get_element_type() == inputs[0].get_element_type(),
                    node.get_friendly_name(), ": input ", index, " must be ",
                    inputs[0].get_element_type(), " ", inputs[0].get_shape(), " like input 0, got ",
                    inputs[index].get_element_type(), " ", inputs[index].get_shape());
}

/// This thread's memory for `count` floats, one of several that are used at once.
template <int Which>
float* space_for(size_t count) {
    thread_local GrowingBuffer buffer;
    return buffer.get<float>(count);
}

}  // namespace

bool SwiGLU::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    check_sizes(*this, inputs, 1);
    outputs[0].set_shape(inputs[0].get_shape());
    const size_t count = inputs[0].get_size();
    if (count == 0) return true;
    const Reader gate(inputs[0]), up(inputs[1]);
    const Writer out(outputs[0]);
    const auto& kernels = kernels::stream_kernels();
    const bool plain = inputs[0].get_element_type() == ov::element::f32;
    const bool past_cache = plain && outputs[0].get_byte_size() >= kPastCacheBytes;
    const size_t workers = workers_for(3 * inputs[0].get_byte_size());
    in_parts(count, kLineFloats, workers, [&](size_t first, size_t last) {
        const size_t step = plain ? last - first : kPieceFloats;
        float gates[kPieceFloats], ups[kPieceFloats], results[kPieceFloats];
        for (size_t at = first; at < last; at += step) {
            const size_t piece = std::min(step, last - at);
            kernels.swiglu(gate.get(at, piece, gates), up.get(at, piece, ups), alpha_, piece,
                           past_cache, out.begin(at, results));
            out.end(at, piece, results);
        }
    });
    return true;
}

bool AddRMSNorm::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    check_sizes(*this, inputs, 1);
    const ov::Shape shape = inputs[0].get_shape();
    for (auto& output : outputs) output.set_shape(shape);
    const size_t columns = shape.back();
    const size_t rows = columns == 0 ? 0 : inputs[0].get_size() / columns;
    OPENVINO_ASSERT(inputs[2].get_shape() == ov::Shape{columns}, get_friendly_name(),
                    ": gamma must have shape [", columns, "], got ", inputs[2].get_shape());
    if (rows == 0) return true;
    const Reader x(inputs[0]), residual(inputs[1]);
    const Writer out(outputs[0]), sum(outputs[1]);
    std::vector<float> converted(columns);
    const float* gamma = Reader(inputs[2]).get(0, columns, converted.data());
    const auto& kernels = kernels::stream_kernels();
    const bool past_cache = 2 * outputs[0].get_byte_size() >= kPastCacheBytes;
    const size_t workers = workers_for(4 * inputs[0].get_byte_size());
    in_parts(rows, 1, workers, [&](size_t first, size_t last) {
        float* space = space_for<0>(4 * columns);
        for (size_t row = first; row < last; ++row) {
            const size_t at = row * columns;
            float* const results = out.begin(at, space + 2 * columns);
            float* const sums = sum.begin(at, space + 3 * columns);
            kernels.add_rms_norm(x.get(at, columns, space),
                                 residual.get(at, columns, space + columns), gamma, epsilon_,
                                 columns, past_cache, results, sums);
            out.end(at, columns, results);
            sum.end(at, columns, sums);
        }
    });
    return true;
}

bool Int4MatMul::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape& codes_shape = inputs[1].get_shape();
    const size_t rows = codes_shape[0];
    const size_t columns = 2 * codes_shape[1];
    ov::Shape shape = inputs[0].get_shape();
    OPENVINO_ASSERT(!shape.empty() && shape.back() == columns, get_friendly_name(),
                    ": the last dimension of x must be ", columns, ", got ", shape);
    const size_t batch = inputs[0].get_size() / columns;
    shape.back() = rows;
    outputs[0].set_shape(shape);
    if (batch == 0) return true;
    const auto group = static_cast<size_t>(group_);
    const size_t groups = columns / group;

    const Reader x(inputs[0]), scales(inputs[2]);
    const Writer out(outputs[0]);
    float* split = space_for<0>(batch * columns);
    float* line = space_for<1>(columns);
    for (size_t m = 0; m < batch; ++m) {
        kernels::split_columns(x.get(m * columns, columns, line), columns, split + m * columns);
    }
    float* results = space_for<2>(batch * rows);
    const auto* codes = inputs[1].data<const uint8_t>();
    const auto& kernels = kernels::stream_kernels();
    in_parts(
        rows, kLineFloats, workers_for(inputs[1].get_byte_size()), [&](size_t first, size_t last) {
            float* space = space_for<3>(groups);
            for (size_t n = first; n < last; ++n) {
                const float* row_scales = scales.get(n * groups, groups, space);
                for (size_t m = 0; m < batch; ++m) {
                    results[m * rows + n] =
                        kernels.int4_dot(codes + n * columns / 2, split + m * columns, row_scales,
                                         columns, group, static_cast<float>(kZeroPoint));
                }
            }
        });
    std::copy(results, results + batch * rows, out.begin(0, results));
    out.end(0, batch * rows, results);
    return true;
}

}  // namespace ovfast::ops
