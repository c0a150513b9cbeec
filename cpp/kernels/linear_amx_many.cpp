// bf16 kernel for many rows of activations (prompts). Weights become bf16 B tiles once a call, and
// tiles of 32 rows x 32 output columns run over them, 16 cycles a multiplication at best. Who must
// feed them:
//   L1: an A block of 32 rows x 512 columns (32 KB, in tile order).
//   L2: the B panel of 256 output columns x 512 (256 KB), 32 bytes a cycle of it, and the sums so
//   far
//       of all rows x 256 output columns (1 KB a row), 8 bytes a cycle.
// Were B to pass through L1, it would drive A out before A is used again: hence streaming loads,
// which gain a quarter. The next A block is copied to tile order between the multiplications of
// this one: in place, rows at a distance of a power of two would share few cache lines.

#include "kernels/avx512_inl.hpp"
#include "kernels/linear_amx.hpp"
#include "kernels/registry.hpp"

namespace ovfast::kernels {
namespace {

constexpr size_t kTileRows = 16;
constexpr size_t kTileValues = 512;  // bf16: 16 rows x 32 columns; B: 32 columns x 16 rows
constexpr size_t kTileFloats = 256;  // sums: 16 rows x 16
constexpr size_t kBlockTiles = 2;    // tiles of rows in an A block
constexpr size_t kDepthChunks = 16;
constexpr size_t kMostRows = 1024;   // at a time
constexpr size_t kFetchedLines = 4;  // of an A block, a call
constexpr size_t kPrefetchRows = 4;

constexpr size_t divide_up(size_t value, size_t by) {
    return (value + by - 1) / by;
}

// Part `index` of `count` nearly equal ones of [0, size).
struct Range {
    size_t first, last;
    size_t size() const { return last - first; }
};
Range part(size_t size, size_t index, size_t count) {
    return {size * index / count, size * (index + 1) / count};
}

// Quads hold four columns of 16 rows; a B tile's row two, of 16 rows, side by side. One byte
// permutation picks and widens 16 codes: columns 0, 1 (or 2, 3) of rows 0..7 (or 8..15).
class QuadDequantizer {
public:
    QuadDequantizer() {
        const __m512i dword =
            _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        const __m512i odd = _mm512_and_si512(dword, _mm512_set1_epi32(1));
        const __m512i row = _mm512_srli_epi32(dword, 1);
        const __m512i byte = _mm512_add_epi32(_mm512_slli_epi32(row, 2), odd);
        for (int i = 0; i < 4; ++i) {
            const int start = (i & 1) * 32 + (i >> 1) * 2;
            bytes_[i] = _mm512_add_epi32(byte, _mm512_set1_epi32(start));
        }
        rows_[0] = row;
        rows_[1] = _mm512_add_epi32(row, _mm512_set1_epi32(8));
    }

    void set_scales(__m512 scale, __m512 offset) {
        for (int i = 0; i < 2; ++i) {
            scales_[i] = _mm512_permutexvar_ps(rows_[i], scale);
            offsets_[i] = _mm512_permutexvar_ps(rows_[i], offset);
        }
    }

    void dequantize(__m512i quad, uint16_t* out) const {
        for (int pair = 0; pair < 2; ++pair) {
            __m512 values[2];
            for (int half = 0; half < 2; ++half) {
                const __m512i codes = _mm512_maskz_permutexvar_epi8(0x1111111111111111,
                                                                    bytes_[2 * pair + half], quad);
                values[half] =
                    _mm512_fmadd_ps(_mm512_cvtepi32_ps(codes), scales_[half], offsets_[half]);
            }
            const __m512bh row = _mm512_cvtne2ps_pbh(values[1], values[0]);
            _mm512_store_si512(out + 32 * pair, reinterpret_cast<const __m512i&>(row));
        }
    }

private:
    __m512i bytes_[4];
    __m512i rows_[2];
    __m512 scales_[2], offsets_[2];
};

template <int Bits>
void dequantize(const PackedWeights& weights, size_t block, size_t first, size_t last,
                uint16_t* out) {
    const BlockScales scales(weights, block);
    const size_t group_chunks = weights.group() / kChunkColumns;  // 0: groups of 16
    QuadDequantizer dequantizer;
    const auto set_group = [&](size_t group) {
        // Columns may end in the middle of the last chunk; what is beyond meets activations of
        // zero.
        if (group >= weights.groups()) group = weights.groups() - 1;
        const __m512 scale = scales.scale(group);
        dequantizer.set_scales(scale, scales.offset(group, scale));
    };
    const std::byte* chunk = weights.codes(block) + first * 64 * Bits;
    for (size_t c = first; c < last; ++c, chunk += 64 * Bits, out += kTileValues) {
        __m512i quads[8];
        Quads<Bits>::unpack(chunk, quads);
        if (group_chunks == 0) {
            set_group(2 * c);
            for (int j = 0; j < 4; ++j) dequantizer.dequantize(quads[j], out + 64 * j);
            set_group(2 * c + 1);
            for (int j = 4; j < 8; ++j) dequantizer.dequantize(quads[j], out + 64 * j);
        } else {
            if (c == first || c % group_chunks == 0) set_group(c / group_chunks);
            for (int j = 0; j < 8; ++j) dequantizer.dequantize(quads[j], out + 64 * j);
        }
    }
}

void round_f16(const std::byte* chunk, size_t chunks, uint16_t* out) {
    for (size_t p = 0; p < chunks * 16; ++p, chunk += 64, out += 32) {
        const __m512bh row = _mm512_cvtne2ps_pbh(widen_f16(chunk + 32), widen_f16(chunk));
        _mm512_store_si512(out, reinterpret_cast<const __m512i&>(row));
    }
}

// An A block: rows of activations, some chunks of 32 columns each.
struct ABlock {
    const uint16_t* from;
    size_t stride, rows, chunks;
};

// Brings an A block near, a few lines at a time: into L2, or into tile order
// [chunks][tiles][16][32], where missing rows repeat the last one (nobody looks at what they give).
class BlockFetcher {
public:
    BlockFetcher() = default;
    /// Without `to`: into L2.
    BlockFetcher(const ABlock& block, uint16_t* to)
        : block_(block), to_(to), padded_rows_(divide_up(block.rows, kTileRows) * kTileRows) {}

    void fetch() {
        if (row_ == padded_rows_) return;
        const size_t row = row_ < block_.rows ? row_ : block_.rows - 1;
        const uint16_t* from = block_.from + row * block_.stride;
        const size_t left = block_.chunks - chunk_;
        const size_t end = left > kFetchedLines ? chunk_ + kFetchedLines : block_.chunks;
        const size_t ahead = row + kPrefetchRows < block_.rows ? kPrefetchRows * block_.stride : 0;
        for (; chunk_ < end; ++chunk_) {
            const uint16_t* line = from + chunk_ * 32;
            if (to_ == nullptr) {
                _mm_prefetch(reinterpret_cast<const char*>(line), _MM_HINT_T1);
                continue;
            }
            _mm_prefetch(reinterpret_cast<const char*>(line + ahead), _MM_HINT_T0);
            _mm512_store_si512(to_ + (chunk_ * padded_rows_ + row_) * 32, _mm512_loadu_si512(line));
        }
        if (chunk_ < block_.chunks) return;
        chunk_ = 0;
        ++row_;
    }

    /// What is missing; after it, the block can be multiplied.
    void finish() {
        while (to_ != nullptr && row_ < padded_rows_) fetch();
    }

private:
    ABlock block_{};
    uint16_t* to_ = nullptr;
    size_t padded_rows_ = 0, row_ = 0, chunk_ = 0;
};

// Fetches the packed weights that are needed next into L2, a few lines at a time.
class WeightPrefetcher {
public:
    WeightPrefetcher() = default;
    /// Chunks of some row blocks, in `calls` equal parts; with those of depth 0, all scales.
    WeightPrefetcher(const PackedWeights& weights, Range blocks, Range chunks, size_t calls)
        : weights_(&weights), blocks_(blocks), chunks_(chunks) {
        if (blocks.size() == 0) return;
        start_block();
        const auto lines = static_cast<size_t>(end_ - at_) / 64 * blocks.size();
        lines_ = divide_up(lines, calls > 0 ? calls : 1);
    }

    void prefetch() {
        for (size_t i = 0; i < lines_ && at_ != end_; ++i) {
            _mm_prefetch(reinterpret_cast<const char*>(at_), _MM_HINT_T1);
            at_ += 64;
            if (at_ != end_ || ++blocks_.first == blocks_.last) continue;
            start_block();
        }
    }

private:
    void start_block() {
        const std::byte* codes = weights_->codes(blocks_.first);
        at_ = chunks_.first == 0 ? weights_->scales(blocks_.first)
                                 : codes + chunks_.first * weights_->chunk_bytes();
        end_ = codes + chunks_.last * weights_->chunk_bytes();
    }

    const PackedWeights* weights_ = nullptr;
    Range blocks_{0, 0}, chunks_{0, 0};
    const std::byte* at_ = nullptr;
    const std::byte* end_ = nullptr;
    size_t lines_ = 0;
};

// Memory work to do between multiplications.
struct Errands {
    BlockFetcher fetcher;
    WeightPrefetcher prefetcher;
    void run() {
        fetcher.fetch();
        prefetcher.prefetch();
    }
};

// What one multiplication of tiles reads and writes. Sums of tile row r and column c are
// sums[r * sums_row + c * kTileFloats ..] in scratch.
struct TileWork {
    const uint16_t* a;
    size_t a_chunk;  // values from chunk to chunk
    size_t a_row;    // and from row to row
    const uint16_t* b[2];
    size_t chunks;
    float* sums;
    size_t sums_row;
    bool begins;
};

// Sums: tiles 0 1 / 2 3; A: 4, 5; B: 6, 7. GCC's intrinsics name tiles by literal tokens; and its
// tile loads do not say that they read memory, hence the barrier.
template <int kRows, int kColumns>
void load_sums(const TileWork& work) {
    if (work.begins) {
        _tile_zero(0);
        if constexpr (kColumns == 2) _tile_zero(1);
        if constexpr (kRows == 2) _tile_zero(2);
        if constexpr (kRows == 2 && kColumns == 2) _tile_zero(3);
        return;
    }
    _tile_loadd(0, work.sums, 64);
    if constexpr (kColumns == 2) _tile_loadd(1, work.sums + kTileFloats, 64);
    if constexpr (kRows == 2) _tile_loadd(2, work.sums + work.sums_row, 64);
    if constexpr (kRows == 2 && kColumns == 2) {
        _tile_loadd(3, work.sums + work.sums_row + kTileFloats, 64);
    }
}

template <int kRows, int kColumns>
void store_sums(float* to, size_t row_stride, size_t column_stride, size_t line_bytes) {
    _tile_stored(0, to, line_bytes);
    if constexpr (kColumns == 2) _tile_stored(1, to + column_stride, line_bytes);
    if constexpr (kRows == 2) _tile_stored(2, to + row_stride, line_bytes);
    if constexpr (kRows == 2 && kColumns == 2) {
        _tile_stored(3, to + row_stride + column_stride, line_bytes);
    }
}

template <int kRows, int kColumns>
void multiply(const TileWork& work, Errands& errands) {
    asm volatile("" ::: "memory");
    load_sums<kRows, kColumns>(work);
    const uint16_t* a = work.a;
    const size_t line_bytes = work.a_row * sizeof(uint16_t);
    for (size_t c = 0; c < work.chunks; ++c, a += work.a_chunk) {
        _tile_loadd(4, a, line_bytes);
        _tile_stream_loadd(6, work.b[0] + c * kTileValues, 64);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (kColumns == 2) {
            _tile_stream_loadd(7, work.b[1] + c * kTileValues, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if constexpr (kRows == 2) {
            _tile_loadd(5, a + kTileRows * work.a_row, line_bytes);
            _tile_dpbf16ps(2, 5, 6);
        }
        if constexpr (kRows == 2 && kColumns == 2) _tile_dpbf16ps(3, 5, 7);
        if (!work.begins) {
            // The sums that come next.
            for (size_t r = 0; r < kRows; ++r) {
                const float* line = work.sums + r * work.sums_row + (2 * kTileFloats + c * 32);
                _mm_prefetch(reinterpret_cast<const char*>(line), _MM_HINT_T0);
                _mm_prefetch(reinterpret_cast<const char*>(line + 16), _MM_HINT_T0);
            }
        }
        errands.run();
    }
}

void load_tile_config() {
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) {
        config.rows[tile] = kTileRows;
        config.row_bytes[tile] = 64;
    }
    asm volatile("" ::"m"(config));  // GCC's intrinsic only reads the first 8 bytes of it
    _tile_loadconfig(&config);
}

// How a call is cut into panels. The wider they are, the less often activations are copied; the
// more rows they have, the less often weights are dequantized.
struct Cut {
    size_t row_parts;
    size_t rows;    // of a part, at most
    size_t blocks;  // of a panel, at most
};

Cut cut(size_t rows, size_t blocks) {
    Cut result{};
    result.row_parts = divide_up(rows, kMostRows);
    result.rows = divide_up(rows, result.row_parts);
    // 1 MB of sums, whichever it is: they stay in L2.
    const size_t most = result.rows <= kMostRows / 2 ? 32 : 16;
    result.blocks = blocks < most ? blocks : most;
    return result;
}

struct Scratch {
    uint16_t* a[2];  // [kDepthChunks][kBlockTiles][512]
    float* edge;     // [2][2][256]: tiles that stick out of the result
    uint16_t* b;     // [blocks][kDepthChunks][512]
    float* sums;     // [tiles of rows][blocks][256]
};

constexpr size_t kBlockBytes = kDepthChunks * kBlockTiles * kTileValues * 2;
constexpr size_t kEdgeBytes = 4 * kTileFloats * 4;

size_t panel_bytes(size_t blocks) {
    return blocks * kDepthChunks * kTileValues * 2;
}

Scratch lay_out(std::byte* at, size_t blocks) {
    Scratch scratch{};
    for (uint16_t*& block : scratch.a) {
        block = reinterpret_cast<uint16_t*>(at);
        at += kBlockBytes;
    }
    scratch.edge = reinterpret_cast<float*>(at);
    at += kEdgeBytes;
    scratch.b = reinterpret_cast<uint16_t*>(at);
    scratch.sums = reinterpret_cast<float*>(at + panel_bytes(blocks));
    return scratch;
}

// Enough for fewer rows too, as pieces of nearly equal size want it: 1024 rows at a time have more
// sums than 1025, which are two parts, and up to 512 take wider panels.
size_t scratch_bytes(const PackedWeights& weights, size_t rows) {
    size_t most = 0;
    for (const size_t limit : {kMostRows / 2, kMostRows}) {
        const Cut of_call = cut(rows < limit ? rows : limit, weights.blocks());
        const size_t bytes = panel_bytes(of_call.blocks) + divide_up(of_call.rows, kTileRows) *
                                                               of_call.blocks * kTileFloats *
                                                               sizeof(float);
        if (bytes > most) most = bytes;
    }
    return 2 * kBlockBytes + kEdgeBytes + most;
}

// Some rows times some row blocks of the weights.
class Panel {
public:
    /// `next_blocks`: of the panel after this one.
    Panel(const LinearArgs& args, Range rows, Range blocks, Range next_blocks)
        : args_(args),
          weights_(*args.weights),
          rows_(rows),
          blocks_(blocks),
          next_blocks_(next_blocks),
          scratch_(lay_out(args.scratch, blocks.size())),
          depths_(divide_up(weights_.padded() / kChunkColumns, kDepthChunks)),
          row_blocks_(divide_up(rows.size(), kBlockTiles * kTileRows)),
          direct_(weights_.format().floats == FloatKind::BF16) {}

    void run() {
        const size_t steps = depths_ * row_blocks_;
        Errands errands;
        errands.fetcher = fetcher_of(0);
        for (size_t step = 0; step < steps; ++step) {
            errands.fetcher.finish();
            errands.fetcher = step + 1 < steps ? fetcher_of(step + 1) : BlockFetcher();
            if (step % row_blocks_ == 0) {
                const size_t depth = step / row_blocks_;
                if (!direct_) fill_b(depth);
                errands.prefetcher = prefetch_after(depth);
            }
            multiply_step(step, errands);
        }
    }

private:
    Range chunks_of(size_t depth) const {
        return part(weights_.padded() / kChunkColumns, depth, depths_);
    }

    // In whole tiles but for the last.
    Range rows_of(size_t row_block) const {
        const Range tiles = part(divide_up(rows_.size(), kTileRows), row_block, row_blocks_);
        const size_t last = rows_.first + tiles.last * kTileRows;
        return {rows_.first + tiles.first * kTileRows, last < rows_.last ? last : rows_.last};
    }

    ABlock a_of(size_t step) const {
        const Range chunks = chunks_of(step / row_blocks_);
        const Range rows = rows_of(step % row_blocks_);
        const size_t padded = weights_.padded();
        return {args_.activations->bf16 + rows.first * padded + chunks.first * kChunkColumns,
                padded, rows.size(), chunks.size()};
    }

    // Whole tiles can stay where they are, unless 32 rows of 16 lines each would share less than
    // half of the sets of L1 (64, of 12 lines): where a row is a multiple of 32 lines long.
    bool in_place(const ABlock& block) const {
        return block.rows % kTileRows == 0 && block.stride % 1024 != 0;
    }

    BlockFetcher fetcher_of(size_t step) const {
        const ABlock block = a_of(step);
        return {block, in_place(block) ? nullptr : scratch_.a[step % 2]};
    }

    WeightPrefetcher prefetch_after(size_t depth) const {
        const size_t calls = divide_up(divide_up(rows_.size(), kTileRows), 2) *
                             divide_up(blocks_.size(), 2) * chunks_of(depth).size();
        if (depth + 1 < depths_) return {weights_, blocks_, chunks_of(depth + 1), calls};
        return {weights_, next_blocks_, chunks_of(0), calls};
    }

    void fill_b(size_t depth) const {
        const Range chunks = chunks_of(depth);
        for (size_t block = blocks_.first; block < blocks_.last; ++block) {
            amx_bf16_tiles(weights_, block, chunks.first, chunks.last,
                           scratch_.b + (block - blocks_.first) * chunks.size() * kTileValues);
        }
    }

    const uint16_t* b_of(size_t block, const Range& chunks) const {
        if (!direct_) {
            return scratch_.b + (block - blocks_.first) * chunks.size() * kTileValues;
        }
        return reinterpret_cast<const uint16_t*>(weights_.codes(block)) +
               chunks.first * kTileValues;
    }

    void multiply_step(size_t step, Errands& errands) const {
        const size_t depth = step / row_blocks_;
        const Range chunks = chunks_of(depth);
        const Range rows = rows_of(step % row_blocks_);
        const size_t tiles = divide_up(rows.size(), kTileRows);
        const size_t sums_row = blocks_.size() * kTileFloats;
        const ABlock block_of_a = a_of(step);
        const bool stays = in_place(block_of_a);
        const uint16_t* a = stays ? block_of_a.from : scratch_.a[step % 2];
        TileWork work{};
        work.a_row = stays ? block_of_a.stride : 32;
        work.a_chunk = stays ? 32 : tiles * kTileValues;
        work.chunks = chunks.size();
        work.sums_row = sums_row;
        work.begins = depth == 0;
        for (size_t block = blocks_.first; block < blocks_.last; block += 2) {
            const bool two_columns = block + 1 < blocks_.last;
            work.b[0] = b_of(block, chunks);
            if (two_columns) work.b[1] = b_of(block + 1, chunks);
            for (size_t tile = 0; tile < tiles; tile += 2) {
                const bool two_rows = tile + 1 < tiles;
                const size_t row = rows.first + tile * kTileRows;
                work.a = a + tile * kTileRows * work.a_row;
                work.sums = scratch_.sums + (row - rows_.first) / kTileRows * sums_row +
                            (block - blocks_.first) * kTileFloats;
                const bool ends = depth + 1 == depths_;
                if (two_rows) {
                    two_columns ? multiply_tiles<2, 2>(work, row, block, ends, errands)
                                : multiply_tiles<2, 1>(work, row, block, ends, errands);
                } else {
                    two_columns ? multiply_tiles<1, 2>(work, row, block, ends, errands)
                                : multiply_tiles<1, 1>(work, row, block, ends, errands);
                }
            }
        }
    }

    template <int kRows, int kColumns>
    void multiply_tiles(const TileWork& work, size_t row, size_t block, bool ends,
                        Errands& errands) const {
        multiply<kRows, kColumns>(work, errands);
        if (!ends) {
            store_sums<kRows, kColumns>(work.sums, work.sums_row, kTileFloats, 64);
            return;
        }
        const size_t column = block * kBlockRows;
        float* out = args_.out + row * args_.out_stride + column;
        if (row + kRows * kTileRows <= rows_.last &&
            column + kColumns * kBlockRows <= weights_.rows()) {
            store_sums<kRows, kColumns>(out, kTileRows * args_.out_stride, kBlockRows,
                                        args_.out_stride * sizeof(float));
            return;
        }
        store_sums<kRows, kColumns>(scratch_.edge, 2 * kTileFloats, kTileFloats, 64);
        for (size_t m = 0; m < kRows * kTileRows && row + m < rows_.last; ++m) {
            for (size_t c = 0; c < kColumns; ++c) {
                const float* from = scratch_.edge + (m / kTileRows * 2 + c) * kTileFloats +
                                    m % kTileRows * kBlockRows;
                _mm512_mask_storeu_ps(out + m * args_.out_stride + c * kBlockRows,
                                      rows_of_block(weights_, block + c), _mm512_load_ps(from));
            }
        }
    }

    const LinearArgs& args_;
    const PackedWeights& weights_;
    const Range rows_, blocks_, next_blocks_;
    const Scratch scratch_;
    const size_t depths_, row_blocks_;
    const bool direct_;  // bf16 weights are B tiles already
};

void run(const LinearArgs& args) {
    const size_t rows = args.last_row - args.first_row;
    const size_t blocks = args.last_block - args.first_block;
    if (rows == 0 || blocks == 0) return;
    load_tile_config();
    const Cut of_call = cut(rows, blocks);
    const size_t panels = divide_up(blocks, of_call.blocks);
    for (size_t r = 0; r < of_call.row_parts; ++r) {
        const Range row_part = part(rows, r, of_call.row_parts);
        for (size_t p = 0; p < panels; ++p) {
            const auto blocks_of = [&](size_t panel) {
                const Range range = part(blocks, panel, panels);
                return Range{args.first_block + range.first, args.first_block + range.last};
            };
            Panel(args, {args.first_row + row_part.first, args.first_row + row_part.last},
                  blocks_of(p), p + 1 < panels ? blocks_of(p + 1) : Range{0, 0})
                .run();
        }
    }
    _tile_release();
}

bool supports_all(const WeightFormat&) {
    return true;
}

bool supports_floats(const WeightFormat& format) {
    return format.bits == 16;
}

constexpr LinearKernel kManyRows{
    "amx_bf16_many_rows", Isa::Amx, ActivationKind::BF16, 24, SIZE_MAX, 290, supports_all,
    scratch_bytes,        run};

// Nothing is dequantized for a few rows only, so it pays earlier.
constexpr LinearKernel kFloatWeights{"amx_bf16_float_weights",
                                     Isa::Amx,
                                     ActivationKind::BF16,
                                     5,
                                     SIZE_MAX,
                                     295,
                                     supports_floats,
                                     scratch_bytes,
                                     run};

}  // namespace

void amx_bf16_tiles(const PackedWeights& weights, size_t block, size_t first_chunk,
                    size_t last_chunk, uint16_t* out) {
    switch (weights.format().bits) {
        case 4:
            return dequantize<4>(weights, block, first_chunk, last_chunk, out);
        case 5:
            return dequantize<5>(weights, block, first_chunk, last_chunk, out);
        case 6:
            return dequantize<6>(weights, block, first_chunk, last_chunk, out);
        case 8:
            return dequantize<8>(weights, block, first_chunk, last_chunk, out);
        default:
            return round_f16(weights.codes(block) + first_chunk * weights.chunk_bytes(),
                             last_chunk - first_chunk, out);
    }
}

const LinearKernel* const* amx_linear_kernels() {
    static const LinearKernel* const kernels[] = {&amx_int8_few_rows, &kManyRows, &kFloatWeights,
                                                  nullptr};
    return kernels;
}

}  // namespace ovfast::kernels
