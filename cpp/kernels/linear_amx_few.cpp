// Integer kernel for a few rows of activations (decoding in batches): weights are read once, front
// to back, and a chunk of 32 columns times 16 output columns times up to 32 rows is one or two tile
// multiplications. Every chunk has activation scales of its own, so its integer sums leave the tile
// at once; what costs is that, not the multiplication:
//   multiplication 16 cycles, store 16, and 3 vector operations a row (convert, multiply the
//   scales, add) at 2 a cycle, which is 24 for 16 rows. All on different ports, so they overlap if
//   the program lets them: see Pass::run().

#include "kernels/avx512_inl.hpp"
#include "kernels/linear_amx.hpp"

namespace ovfast::kernels {
namespace {

constexpr size_t kTileRows = 16;
constexpr size_t kMostRows = 2 * kTileRows;
constexpr size_t kStepChunks = 4;
constexpr size_t kChunkCodes = 8 * 64;
// Far enough for the next page: hardware prefetchers stop at its border.
constexpr size_t kPrefetchBytes = 2048;

// (a ^ b) & c
inline __m512i xor_and(__m512i a, __m512i b, __m512i c) {
    return _mm512_ternarylogic_epi32(a, b, c, 0x28);
}

// Codes minus 2^(Bits-1), times kFactor. Inverting the top bit of a code subtracts that, once the
// bit is that of the sign.
template <int Bits>
struct SignedQuads;

template <>
struct SignedQuads<4> {
    static constexpr int kFactor = 16;
    static void unpack(const std::byte* chunk, __m512i* quads) {
        const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
        const __m512i high = _mm512_set1_epi8(static_cast<char>(0xF0));
        for (int v = 0; v < 4; ++v) {
            const __m512i both = load(chunk + 64 * v);
            quads[2 * v] = xor_and(_mm512_slli_epi16(both, 4), sign, high);
            quads[2 * v + 1] = xor_and(both, sign, high);
        }
    }
};

template <>
struct SignedQuads<5> {
    static constexpr int kFactor = 1;
    static void unpack(const std::byte* chunk, __m512i* quads) {
        unpack_nibbles(chunk, quads);
        const __m512i high = load(chunk + 256);
        const __m512i sixteen = _mm512_set1_epi8(16);
        for (int j = 0; j < 8; ++j) {
            const __m512i bit = _mm512_set1_epi8(static_cast<char>(1 << j));
            quads[j] = _mm512_mask_sub_epi8(quads[j], _mm512_testn_epi8_mask(high, bit), quads[j],
                                            sixteen);
        }
    }
};

template <>
struct SignedQuads<6> {
    static constexpr int kFactor = 4;
    static void unpack(const std::byte* chunk, __m512i* quads) {
        const __m512i low_bits = _mm512_set1_epi8(0x3C);
        const __m512i high_bits = _mm512_set1_epi8(static_cast<char>(0xC0));
        for (int v = 0; v < 4; ++v) {
            const __m512i both = load(chunk + 64 * v);
            quads[2 * v] = _mm512_and_si512(_mm512_slli_epi16(both, 2), low_bits);
            quads[2 * v + 1] = _mm512_and_si512(_mm512_srli_epi16(both, 2), low_bits);
        }
        const __m512i signs = _mm512_set1_epi8(static_cast<char>(0xAA));
        for (int p = 0; p < 2; ++p) {
            const __m512i high = _mm512_xor_si512(load(chunk + 256 + 64 * p), signs);
            __m512i* of = quads + 4 * p;
            of[0] = or_and(of[0], _mm512_slli_epi16(high, 6), high_bits);
            of[1] = or_and(of[1], _mm512_slli_epi16(high, 4), high_bits);
            of[2] = or_and(of[2], _mm512_slli_epi16(high, 2), high_bits);
            of[3] = or_and(of[3], high, high_bits);
        }
    }
};

template <>
struct SignedQuads<8> {
    static constexpr int kFactor = 1;
    static void unpack(const std::byte* chunk, __m512i* quads) {
        const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
        for (int j = 0; j < 8; ++j) quads[j] = _mm512_xor_si512(load(chunk + 64 * j), sign);
    }
};

template <int Bits, typename Unpacked>
void unpack_chunk(const std::byte* chunk, int8_t* out) {
#pragma GCC unroll 8
    for (int line = 0; line < Bits; ++line) {
        _mm_prefetch(reinterpret_cast<const char*>(chunk + kPrefetchBytes + 64 * line),
                     _MM_HINT_T0);
    }
    __m512i quads[8];
    Unpacked::unpack(chunk, quads);
    for (int j = 0; j < 8; ++j) _mm512_store_si512(out + 64 * j, quads[j]);
}

struct Unpacking {
    void (*unpack)(const std::byte* chunk, int8_t* out);
    int factor;
};

template <int Bits>
Unpacking unpacking_of(bool symmetric) {
    if (symmetric) return {unpack_chunk<Bits, SignedQuads<Bits>>, SignedQuads<Bits>::kFactor};
    return {unpack_chunk<Bits, Quads<Bits>>, 1};
}

Unpacking unpacking(const WeightFormat& format) {
    const bool symmetric = format.offsets == OffsetKind::Symmetric;
    switch (format.bits) {
        case 4:
            return unpacking_of<4>(symmetric);
        case 5:
            return unpacking_of<5>(symmetric);
        case 6:
            return unpacking_of<6>(symmetric);
        default:
            return unpacking_of<8>(symmetric);
    }
}

// What shares a weight scale: half a chunk (groups of 16), a chunk (any multiple of 32), or a step
// (multiples of 128), whose chunks can be added up before the scale is applied.
enum class Sharing { Half, Chunk, Step };

constexpr size_t panel_bytes(size_t padded) {
    return (padded + 63) / 64 * 64 * kMostRows;
}

constexpr size_t kCodesBytes = kStepChunks * kChunkCodes;
constexpr size_t kSumsBytes = kStepChunks * 2 * kMostRows * 64;
constexpr size_t kTotalsBytes = kMostRows * 64;

// One pass over the weights, for at most 32 rows.
template <Sharing kSharing, bool kSymmetric>
class Pass {
public:
    Pass(const LinearArgs& args, size_t first_row, size_t rows)
        : args_(args),
          weights_(*args.weights),
          unpacking_(unpacking(weights_.format())),
          scale_factor_(_mm512_set1_ps(1.0F / static_cast<float>(unpacking_.factor))),
          first_row_(first_row),
          rows_(rows),
          chunks_(weights_.padded() / kChunkColumns),
          group_chunks_(kSharing == Sharing::Half ? 1 : weights_.group() / kChunkColumns) {
        const Int8Activations& in = args.activations->int8;
        activation_scales_ = in.scales + first_row * chunks_;
        sums_ = kSharing == Sharing::Half ? in.half_sums + first_row * chunks_ * 2
                                          : in.sums + first_row * chunks_;
        std::byte* at = args.scratch;
        panel_ = reinterpret_cast<int8_t*>(at);
        at += panel_bytes(weights_.padded());
        for (int i = 0; i < 2; ++i, at += kCodesBytes) codes_[i] = reinterpret_cast<int8_t*>(at);
        for (int i = 0; i < 2; ++i, at += kSumsBytes) dots_[i] = reinterpret_cast<int32_t*>(at);
        totals_ = reinterpret_cast<float*>(at);
    }

    // Steps of four chunks go through three stages: unpack, multiply, add up. Each quarter of an
    // iteration does a quarter of a stage, of three steps in a row: the processor, which looks
    // ahead some hundred instructions, always finds work that waits for nothing. Blocks follow
    // each other without a pause.
    void run() {
        fill_panel();
        load_tile_config();
        const size_t block_steps = (chunks_ + kStepChunks - 1) / kStepChunks;
        const size_t steps = (args_.last_block - args_.first_block) * block_steps;
        Step unpacked{args_.first_block, 0};
        Step multiplied = unpacked;
        Step added = unpacked;
        for (size_t i = 0; i < steps + 2; ++i) {
            const bool unpacks = i < steps;
            const bool multiplies = i >= 1 && i <= steps;
            const bool adds = i >= 2;
            if (adds) load_scales(added);
            for (size_t q = 0; q < kStepChunks; ++q) {
                if (unpacks) unpack(unpacked, q, codes_[i % 2]);
                if (multiplies) multiply(multiplied, q, codes_[(i + 1) % 2], dots_[(i + 1) % 2]);
                if (adds) add(added, q, dots_[i % 2]);
            }
            if (unpacks) advance(unpacked);
            if (multiplies) advance(multiplied);
            if (adds) advance(added);
        }
        _tile_release();
    }

private:
    // Activation scales count chunks; weight scales, and products that leave a tile, count units.
    static constexpr size_t kChunkUnits = kSharing == Sharing::Half ? 2 : 1;
    static constexpr size_t kUnitBytes = kChunkColumns / kChunkUnits;
    static constexpr size_t kUnitDots = kMostRows * 16;

    struct Step {
        size_t block;
        size_t chunk;
    };

    void advance(Step& step) const {
        step.chunk += kStepChunks;
        if (step.chunk >= chunks_) step = {step.block + 1, 0};
    }

    // [pairs of chunks][rows][64 bytes]: A tiles without the cache conflicts that rows at a
    // distance of a power of two have.
    void fill_panel() const {
        const size_t padded = weights_.padded();
        const int8_t* codes = args_.activations->int8.codes + first_row_ * padded;
        for (size_t m = 0; m < rows_; ++m) {
            const int8_t* from = codes + m * padded;
            int8_t* to = panel_ + m * 64;
            for (size_t k = 0; k < padded; k += 64, to += rows_ * 64) {
                const __mmask64 mask = padded - k >= 64 ? ~__mmask64(0) : __mmask64(0xFFFFFFFF);
                _mm512_store_si512(to, _mm512_maskz_loadu_epi8(mask, from + k));
            }
        }
    }

    // Tiles 0 and 1: products of 16 + 16 rows; 2 and 3: those of the next unit, so that it need not
    // wait. 4 and 5: activations. 6 and 7: weights of this and of the next unit.
    void load_tile_config() const {
        TileConfig config;
        const size_t first = rows_ < kTileRows ? rows_ : kTileRows;
        for (int tile = 0; tile < 6; ++tile) {
            config.rows[tile] = static_cast<uint8_t>(tile % 2 == 0 ? first : rows_ - first);
            config.row_bytes[tile] = tile < 4 ? 64 : kUnitBytes;
        }
        for (int tile = 6; tile < 8; ++tile) {
            config.rows[tile] = kUnitBytes / 4;
            config.row_bytes[tile] = 64;
        }
        if (rows_ <= kTileRows) {  // no tile may be without rows
            for (int tile = 1; tile < 6; tile += 2) config.row_bytes[tile] = 0;
        }
        asm volatile("" ::"m"(config));  // GCC's intrinsic only reads the first 8 bytes of it
        _tile_loadconfig(&config);
    }

    void unpack(const Step& step, size_t q, int8_t* codes) const {
        if (step.chunk + q >= chunks_) return;
        const size_t bytes = weights_.chunk_bytes();
        const std::byte* chunk = weights_.codes(step.block) + (step.chunk + q) * bytes;
        unpacking_.unpack(chunk, codes + q * kChunkCodes);
    }

    void multiply(const Step& step, size_t q, const int8_t* codes, int32_t* dots) const {
        const size_t chunk = step.chunk + q;
        if (chunk >= chunks_) return;
        const int8_t* a = panel_ + chunk / 2 * rows_ * 64 + chunk % 2 * kChunkColumns;
        const int8_t* b = codes + q * kChunkCodes;
        int32_t* c = dots + q * kChunkUnits * kUnitDots;
        if constexpr (kSharing == Sharing::Half) {
            multiply_unit(a, b, c, false);
            multiply_unit(a + kUnitBytes, b + kChunkCodes / 2, c + kUnitDots, true);
        } else {
            multiply_unit(a, b, c, q % 2 != 0);
        }
    }

    // GCC's intrinsics name tiles by literal tokens, hence a macro; and its tile loads do not say
    // that they read memory, hence the barrier.
    void multiply_unit(const int8_t* a, const int8_t* b, int32_t* c, bool odd) const {
        const bool two = rows_ > kTileRows;
        asm volatile("" ::: "memory");
#define OVFAST_MULTIPLY(A, B, C, from, to) \
    _tile_zero(C);                         \
    _tile_loadd(A, from, 64);              \
    if constexpr (kSymmetric) {            \
        _tile_dpbssd(C, A, B);             \
    } else {                               \
        _tile_dpbsud(C, A, B);             \
    }                                      \
    _tile_stored(C, to, 64)
        if (odd) {
            _tile_loadd(7, b, 64);
            OVFAST_MULTIPLY(4, 7, 2, a, c);
            if (two) {
                OVFAST_MULTIPLY(5, 7, 3, a + kTileRows * 64, c + kTileRows * 16);
            }
        } else {
            _tile_loadd(6, b, 64);
            OVFAST_MULTIPLY(4, 6, 0, a, c);
            if (two) {
                OVFAST_MULTIPLY(5, 6, 1, a + kTileRows * 64, c + kTileRows * 16);
            }
        }
#undef OVFAST_MULTIPLY
    }

    void load_scales(const Step& step) {
        const BlockScales scales(weights_, step.block);
        const size_t left = chunks_ - step.chunk;
        const size_t chunks = kSharing == Sharing::Step ? 1
                              : left < kStepChunks      ? left
                                                        : kStepChunks;
        for (size_t u = 0; u < chunks * kChunkUnits; ++u) {
            size_t group =
                kSharing == Sharing::Half ? step.chunk * 2 + u : (step.chunk + u) / group_chunks_;
            // Columns may end in the middle of the last chunk: then there is no second group, and
            // any finite scale will do for its products, which are zero.
            if (group >= weights_.groups()) group = weights_.groups() - 1;
            const __m512 scale = scales.scale(group);
            _mm512_store_ps(scales_[u], _mm512_mul_ps(scale, scale_factor_));
            if constexpr (!kSymmetric) {
                _mm512_store_ps(offsets_[u], scales.offset(group, scale));
            }
        }
    }

    // The q-th quarter of the rows.
    void add(const Step& step, size_t q, const int32_t* dots) const {
        const size_t first = rows_ * q / kStepChunks;
        const size_t last = rows_ * (q + 1) / kStepChunks;
        const size_t left = chunks_ - step.chunk;
        if (left >= kStepChunks) {
            add_chunks<kStepChunks>(step, 0, dots, first, last);
        } else {
            for (size_t c = 0; c < left; ++c) add_chunks<1>(step, c, dots, first, last);
        }
    }

    template <size_t kChunks>
    void add_chunks(const Step& step, size_t offset, const int32_t* dots, size_t first,
                    size_t last) const {
        const size_t chunk = step.chunk + offset;
        const bool begins = chunk == 0;
        const bool ends = chunk + kChunks == chunks_;
        const __mmask16 mask = rows_of_block(weights_, step.block);
        float* out = args_.out + first_row_ * args_.out_stride + step.block * kBlockRows;
        const int32_t* products = dots + offset * kChunkUnits * kUnitDots + first * 16;
        const float* activation_scales = activation_scales_ + first * chunks_ + chunk;
        const float* sums = sums_ + (first * chunks_ + chunk) * kChunkUnits;
        float* totals = totals_ + first * 16;
        constexpr size_t kUnits = kChunks * kChunkUnits;
        // With Step, all chunks have the scales of the first.
        constexpr bool kOneScale = kSharing == Sharing::Step;
        __m512 scales[kOneScale ? 1 : kUnits];
        __m512 offsets[kOneScale ? 1 : kUnits];
#pragma GCC unroll 8
        for (size_t u = 0; u < (kOneScale ? 1 : kUnits); ++u) {
            scales[u] = _mm512_load_ps(scales_[kOneScale ? 0 : offset * kChunkUnits + u]);
            if constexpr (!kSymmetric) {
                offsets[u] = _mm512_load_ps(offsets_[kOneScale ? 0 : offset * kChunkUnits + u]);
            }
        }
        const size_t chunks = chunks_;
        for (size_t m = first; m < last; ++m) {
            __m512 total = begins ? _mm512_setzero_ps() : _mm512_load_ps(totals);
            const auto product = [&](size_t unit) {
                return _mm512_cvtepi32_ps(_mm512_load_si512(products + unit * kUnitDots));
            };
            if constexpr (kOneScale) {
                __m512 sum = _mm512_mul_ps(product(0), _mm512_set1_ps(activation_scales[0]));
#pragma GCC unroll 4
                for (size_t c = 1; c < kChunks; ++c) {
                    sum = _mm512_fmadd_ps(product(c), _mm512_set1_ps(activation_scales[c]), sum);
                }
                total = _mm512_fmadd_ps(sum, scales[0], total);
            } else {
#pragma GCC unroll 8
                for (size_t u = 0; u < kUnits; ++u) {
                    const __m512 scale = _mm512_mul_ps(
                        scales[u], _mm512_set1_ps(activation_scales[u / kChunkUnits]));
                    total = _mm512_fmadd_ps(product(u), scale, total);
                }
            }
            if constexpr (!kSymmetric) {
#pragma GCC unroll 8
                for (size_t u = 0; u < kUnits; ++u) {
                    total =
                        _mm512_fmadd_ps(offsets[kOneScale ? 0 : u], _mm512_set1_ps(sums[u]), total);
                }
            }
            if (ends) {
                _mm512_mask_storeu_ps(out + m * args_.out_stride, mask, total);
            } else {
                _mm512_store_ps(totals, total);
            }
            products += 16;
            totals += 16;
            activation_scales += chunks;
            sums += chunks * kChunkUnits;
        }
    }

    const LinearArgs& args_;
    const PackedWeights& weights_;
    const Unpacking unpacking_;
    const __m512 scale_factor_;
    const size_t first_row_, rows_;
    const size_t chunks_, group_chunks_;
    const float* activation_scales_;
    const float* sums_;
    int8_t* panel_;
    int8_t* codes_[2];  // of two steps: [chunks][8][64]
    int32_t* dots_[2];  // [units][kMostRows][16]
    float* totals_;     // [rows][16]
    alignas(64) float scales_[kStepChunks * 2][16];
    alignas(64) float offsets_[kStepChunks * 2][16];
};

template <Sharing kSharing>
void run_pass(const LinearArgs& args, size_t first_row, size_t rows) {
    if (args.weights->format().offsets == OffsetKind::Symmetric) {
        Pass<kSharing, true>(args, first_row, rows).run();
    } else {
        Pass<kSharing, false>(args, first_row, rows).run();
    }
}

void run(const LinearArgs& args) {
    const size_t group = args.weights->group();
    const size_t rows = args.last_row - args.first_row;
    // Equal passes: 40 rows are 20 + 20, not 32 + 8.
    const size_t passes = (rows + kMostRows - 1) / kMostRows;
    for (size_t p = 0; p < passes; ++p) {
        const size_t first = args.first_row + rows * p / passes;
        const size_t count = args.first_row + rows * (p + 1) / passes - first;
        if (group < kChunkColumns) {
            run_pass<Sharing::Half>(args, first, count);
        } else if (group % (kStepChunks * kChunkColumns) == 0 || args.weights->groups() == 1) {
            run_pass<Sharing::Step>(args, first, count);
        } else {
            run_pass<Sharing::Chunk>(args, first, count);
        }
    }
}

bool supports(const WeightFormat& format) {
    return format.bits != 16;
}

size_t scratch_bytes(const PackedWeights& weights, size_t) {
    return panel_bytes(weights.padded()) + 2 * (kCodesBytes + kSumsBytes) + kTotalsBytes;
}

}  // namespace

int amx_unpack_codes(const WeightFormat& format, const std::byte* chunk, int8_t* out) {
    const Unpacking of_format = unpacking(format);
    of_format.unpack(chunk, out);
    return of_format.factor;
}

const LinearKernel amx_int8_few_rows{
    "amx_int8_few_rows", Isa::Amx, ActivationKind::Int8, 5, kMostRows, 300, supports,
    scratch_bytes,       run};

}  // namespace ovfast::kernels
