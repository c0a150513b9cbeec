#include "ops/paged_attention.hpp"

#include <algorithm>
#include <atomic>

#include "ops/kv_store.hpp"
#include "ops/linear_work.hpp"
#include "ops/op_checks.hpp"

namespace ovfast::ops {
namespace {

using kernels::AttentionPartial;
using kernels::AttentionPiece;
using kernels::AttentionSequence;
using kernels::AttentionShape;

// Tokens of context that one thread takes at a time when there are fewer tiles than threads want.
constexpr size_t kSplitTokens = 512;
constexpr size_t kPiecesPerWorker = 2;
// Multiply-adds below which waking another thread costs more than it brings.
constexpr size_t kWorkPerWorker = 200'000;

size_t divide_up(size_t value, size_t by) {
    return (value + by - 1) / by;
}

// A tile of queries of one sequence and head of the cache, against `splits` pieces of its context.
struct Tile {
    size_t sequence;
    size_t kv_head;
    size_t first_query, last_query;
    size_t splits;
    size_t first_piece;    // in the order of all pieces
    size_t first_partial;  // in the order of all partial results: those of each query and split
};

struct Workspace {
    std::vector<AttentionSequence> sequences;
    std::vector<Tile> tiles;
    GrowingBuffer partials;
};

Workspace& workspace() {
    thread_local Workspace workspace;
    return workspace;
}

void read_sequences(const ov::Node& node, const ov::TensorVector& inputs, size_t rows,
                    size_t blocks, std::vector<AttentionSequence>& sequences) {
    const auto ints = [&](size_t index) { return inputs[index].data<const int32_t>(); };
    const size_t count = inputs[3].get_size();
    OPENVINO_ASSERT(inputs[4].get_size() == count + 1 && inputs[6].get_size() == count + 1,
                    node.get_friendly_name(), ": ", count, " sequences want ", count + 1,
                    " beginnings of tokens and blocks, got ", inputs[4].get_size(), " and ",
                    inputs[6].get_size());
    const int32_t* past = ints(3);
    const int32_t* begins = ints(4);
    const int32_t* numbers = ints(5);
    const int32_t* block_begins = ints(6);
    const auto all_blocks = static_cast<int64_t>(inputs[5].get_size());
    sequences.clear();
    for (size_t i = 0; i < count; ++i) {
        const int64_t first = begins[i];
        const int64_t last = begins[i + 1];
        const int64_t first_block = block_begins[i];
        const int64_t last_block = block_begins[i + 1];
        OPENVINO_ASSERT(0 <= first && first <= last && last <= static_cast<int64_t>(rows) &&
                            past[i] >= 0 && 0 <= first_block && first_block <= last_block &&
                            last_block <= all_blocks,
                        node.get_friendly_name(), ": sequence ", i, " has rows ", first, " to ",
                        last, " of ", rows, ", ", past[i], " tokens before, and blocks ",
                        first_block, " to ", last_block, " of ", all_blocks);
        if (first == last) continue;
        AttentionSequence sequence;
        sequence.first_row = static_cast<size_t>(first);
        sequence.rows = static_cast<size_t>(last - first);
        sequence.past = static_cast<size_t>(past[i]);
        sequence.blocks = numbers + first_block;
        const size_t wanted = divide_up(sequence.past + sequence.rows, kernels::kAttentionBlock);
        OPENVINO_ASSERT(static_cast<size_t>(last_block - first_block) >= wanted,
                        node.get_friendly_name(), ": sequence ", i, " needs ", wanted,
                        " blocks, got ", last_block - first_block);
        for (size_t b = 0; b < wanted; ++b) {
            OPENVINO_ASSERT(
                sequence.blocks[b] >= 0 && static_cast<size_t>(sequence.blocks[b]) < blocks,
                node.get_friendly_name(), ": block ", sequence.blocks[b], " is not one of the ",
                blocks, " of the cache");
        }
        sequences.push_back(sequence);
    }
}

// Returns pieces of work, partial results (query and split) and multiply-adds.
struct Plan {
    size_t pieces = 0;
    size_t partials = 0;
    size_t work = 0;
};

Plan plan_tiles(const AttentionShape& shape, const std::vector<AttentionSequence>& sequences,
                size_t threads, std::vector<Tile>& tiles) {
    const size_t group = shape.heads / shape.kv_heads;
    tiles.clear();
    Plan plan;
    for (size_t s = 0; s < sequences.size(); ++s) {
        const size_t queries = sequences[s].rows * group;
        const size_t tile = queries <= 8 ? 8 : kernels::attention_tile_queries();
        const size_t per_head = divide_up(queries, tile);
        for (size_t head = 0; head < shape.kv_heads; ++head) {
            for (size_t t = 0; t < per_head; ++t) {
                tiles.push_back(
                    {s, head, queries * t / per_head, queries * (t + 1) / per_head, 1, 0, 0});
            }
        }
        plan.work += queries * (sequences[s].past + sequences[s].rows) * shape.kv_heads *
                     (shape.key_size + shape.value_size);
    }
    const bool few = tiles.size() < threads * kPiecesPerWorker;
    for (Tile& tile : tiles) {
        const AttentionSequence& sequence = sequences[tile.sequence];
        const size_t context = sequence.past + sequence.rows;
        if (few) {
            tile.splits = std::clamp<size_t>(
                context / kSplitTokens, 1, divide_up(threads * 2 * kPiecesPerWorker, tiles.size()));
        }
        tile.first_piece = plan.pieces;
        tile.first_partial = plan.partials;
        plan.pieces += tile.splits;
        plan.partials += tile.splits * (tile.last_query - tile.first_query);
    }
    return plan;
}

AttentionPiece piece_of(const Tile& tile, const AttentionSequence& sequence, size_t split) {
    const size_t blocks = divide_up(sequence.past + sequence.rows, kernels::kAttentionBlock);
    AttentionPiece piece;
    piece.kv_head = tile.kv_head;
    piece.first_query = tile.first_query;
    piece.last_query = tile.last_query;
    piece.from_token = blocks * split / tile.splits * kernels::kAttentionBlock;
    piece.to_token = std::min(blocks * (split + 1) / tile.splits * kernels::kAttentionBlock,
                              sequence.past + sequence.rows);
    return piece;
}

}  // namespace

PagedAttention::PagedAttention(const ov::OutputVector& inputs, const Attributes& attributes)
    : Op(inputs), attributes_(attributes) {
    constructor_validate_and_infer_types();
}

void PagedAttention::validate_and_infer_types() {
    const AttentionShape& shape = attributes_.shape;
    NODE_VALIDATION_CHECK(this, get_input_size() == 8, "expected 8 inputs, got ", get_input_size());
    ov::PartialShape out = get_input_partial_shape(0);
    NODE_VALIDATION_CHECK(this, out.rank().compatible(2), "q must have two dimensions, got ", out);
    if (out.rank().is_dynamic()) out = ov::PartialShape::dynamic(2);
    out[1] = static_cast<int64_t>(shape.heads * shape.value_size);
    set_output_type(0, ov::element::f32, out);
}

bool PagedAttention::visit_attributes(ov::AttributeVisitor& visitor) {
    AttentionShape& shape = attributes_.shape;
    visitor.on_attribute("heads", shape.heads);
    visitor.on_attribute("kv_heads", shape.kv_heads);
    visitor.on_attribute("key_size", shape.key_size);
    visitor.on_attribute("value_size", shape.value_size);
    visitor.on_attribute("scale", shape.scale);
    visitor.on_attribute("window", shape.window);
    visitor.on_attribute("layer", attributes_.layer);
    return true;
}

std::shared_ptr<ov::Node> PagedAttention::clone_with_new_inputs(
    const ov::OutputVector& inputs) const {
    check_new_args_count(this, inputs);
    return std::make_shared<PagedAttention>(inputs, attributes_);
}

bool PagedAttention::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const AttentionShape& shape = attributes_.shape;
    const std::vector<int64_t> number = integers(inputs[7]);
    OPENVINO_ASSERT(number.size() == 1, get_friendly_name(), ": expected one KV cache, got ",
                    number.size());
    const KvStore& store = KvStore::find(number[0]);
    OPENVINO_ASSERT(attributes_.layer < store.layers().size(), get_friendly_name(), ": layer ",
                    attributes_.layer, " of a KV cache with ", store.layers().size());
    const kernels::KvLayer& layer = store.layers()[attributes_.layer];
    const size_t rows = inputs[0].get_shape()[0];
    outputs[0].set_shape({rows, shape.heads * shape.value_size});

    kernels::AttentionInput input;
    input.q = inputs[0].data<const float>();
    input.k = inputs[1].data<const float>();
    input.v = inputs[2].data<const float>();
    input.out = outputs[0].data<float>();
    input.q_stride = shape.heads * shape.key_size;
    input.k_stride = shape.kv_heads * shape.key_size;
    input.v_stride = shape.kv_heads * shape.value_size;
    input.out_stride = shape.heads * shape.value_size;
    OPENVINO_ASSERT(inputs[0].get_size() == rows * input.q_stride &&
                        inputs[1].get_size() == rows * input.k_stride &&
                        inputs[2].get_size() == rows * input.v_stride,
                    get_friendly_name(), ": q, k and v have shapes ", inputs[0].get_shape(), ", ",
                    inputs[1].get_shape(), " and ", inputs[2].get_shape());

    Workspace& space = workspace();
    read_sequences(*this, inputs, rows, store.blocks(), space.sequences);
    const auto threads = static_cast<size_t>(tbb::this_task_arena::max_concurrency());
    const Plan plan = plan_tiles(shape, space.sequences, threads, space.tiles);
    const size_t workers =
        std::max<size_t>(1, std::min({plan.work / kWorkPerWorker, threads, plan.pieces}));

    // Keys and values first: the last of them serve queries of other tiles.
    const size_t stores = space.sequences.size() * shape.kv_heads;
    const auto store_one = [&](size_t index) {
        kernels::store_keys_values(shape, input, space.sequences[index / shape.kv_heads],
                                   index % shape.kv_heads, layer);
    };
    if (rows < 32) {
        for (size_t i = 0; i < stores; ++i) store_one(i);
    } else {
        std::atomic<size_t> next{0};
        run_workers(std::min(workers, stores), [&](size_t) {
            for (size_t i = next++; i < stores; i = next++) store_one(i);
        });
    }

    const size_t group = shape.heads / shape.kv_heads;
    const size_t partial_floats = shape.value_size + 2;
    float* partials = space.partials.get<float>(plan.partials * partial_floats);
    float* maxima = partials;
    float* sums = maxima + plan.partials;
    float* weighted = sums + plan.partials;
    const std::vector<Tile>& tiles = space.tiles;
    const auto finish = [&](const Tile& tile) {
        const AttentionSequence& sequence = space.sequences[tile.sequence];
        const size_t count = tile.last_query - tile.first_query;
        for (size_t i = 0; i < count; ++i) {
            const size_t query = tile.first_query + i;
            const size_t head = tile.kv_head * group + query / sequence.rows;
            const size_t row = sequence.first_row + query % sequence.rows;
            const size_t at = tile.first_partial + i;
            kernels::merge_attention(shape, maxima + at, sums + at,
                                     weighted + at * shape.value_size, tile.splits, count,
                                     input.out + row * input.out_stride + head * shape.value_size);
        }
    };
    std::atomic<size_t> next{0};
    run_workers(workers, [&](size_t) {
        size_t tile_index = 0;
        for (size_t index = next++; index < plan.pieces; index = next++) {
            while (index >= tiles[tile_index].first_piece + tiles[tile_index].splits) ++tile_index;
            const Tile& tile = tiles[tile_index];
            const AttentionSequence& sequence = space.sequences[tile.sequence];
            const size_t split = index - tile.first_piece;
            const size_t count = tile.last_query - tile.first_query;
            const size_t at = tile.first_partial + split * count;
            const AttentionPartial partial{maxima + at, sums + at,
                                           weighted + at * shape.value_size};
            std::byte* scratch = worker_scratch(kernels::attention_scratch_bytes(shape, count));
            kernels::attend(shape, input, sequence, layer, piece_of(tile, sequence, split), partial,
                            scratch);
            if (tile.splits == 1) finish(tile);
        }
    });
    for (const Tile& tile : tiles) {
        if (tile.splits > 1) finish(tile);
    }
    return true;
}

}  // namespace ovfast::ops
