#include "ops/rewrite_packer.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

#include "ovfast/error.hpp"

namespace ovfast::ops {
namespace {

using kernels::PlainWeights;
using ov::op::v0::Constant;

/// Room to move the bytes in a file until they are aligned: see kernels/packed_weights.hpp.
constexpr size_t kSpareBytes = 64;

// Rows of a large matrix that are packed at a time, so that no second form of all of it is needed.
constexpr size_t kPieceRows = 4096;

std::shared_ptr<Constant> empty_constant(const kernels::WeightFormat& format, size_t rows,
                                         size_t columns, SpillFile* spill) {
    const size_t used = kernels::packed_bytes(format, rows, columns);
    const size_t bytes = used + kSpareBytes;
    const size_t allocated = (bytes + 63) / 64 * 64;
    std::shared_ptr<void> memory = spill != nullptr ? spill->allocate(allocated) : nullptr;
    if (!memory) memory = {std::aligned_alloc(64, allocated), std::free};
    if (!memory) throw std::bad_alloc();
    std::memset(static_cast<std::byte*>(memory.get()) + used, 0, kSpareBytes);
    return std::make_shared<Constant>(ov::element::u8, ov::Shape{bytes}, memory.get(), memory);
}

std::byte* bytes_of(Constant& constant) {
    // Nobody else holds the constant yet.
    return static_cast<std::byte*>(const_cast<void*>(constant.get_data_ptr()));
}

std::shared_ptr<Constant> pack_constant(const PlainWeights& plain, SpillFile* spill = nullptr) {
    const auto constant = empty_constant(plain.format, plain.rows, plain.columns, spill);
    kernels::pack(plain, bytes_of(*constant));
    if (spill != nullptr) spill->let_go(constant->get_data_ptr(), constant->get_byte_size());
    return constant;
}

void check_piece(const std::string& name, const PlainWeights& plain,
                 const RewriteOptions::Piece& piece) {
    if (plain.rows == piece.count && plain.columns == piece.columns) return;
    throw std::invalid_argument(name + ": expected weights [" + std::to_string(piece.count) + ", " +
                                std::to_string(piece.columns) + "], got [" +
                                std::to_string(plain.rows) + ", " + std::to_string(plain.columns) +
                                "]");
}

// A large matrix from options.source; nothing when that does not have it.
std::shared_ptr<Constant> pack_pieces(const WeightSource& source, const RewriteOptions& options) {
    std::shared_ptr<Constant> constant;
    kernels::WeightFormat format;
    size_t block_bytes = 0;
    for (size_t first = 0; first < source.rows; first += kPieceRows) {
        const RewriteOptions::Piece piece{source.rows, source.columns, first,
                                          std::min(kPieceRows, source.rows - first)};
        const auto plain = options.source(source.name, piece);
        if (!plain && first == 0) return nullptr;
        if (!plain) throw std::invalid_argument(source.name + ": only a part of its weights came");
        check_piece(source.name, *plain, piece);
        if (first == 0) {
            format = plain->format;
            constant = empty_constant(format, source.rows, source.columns, options.spill.get());
            kernels::write_header(format, source.rows, source.columns, bytes_of(*constant));
            block_bytes = kernels::packed_bytes(format, kernels::kBlockRows, source.columns) -
                          sizeof(kernels::PackedHeader);
        } else if (!(plain->format == format)) {
            throw std::invalid_argument(source.name + ": its weights come in two formats, " +
                                        format.text() + " and " + plain->format.text());
        }
        const auto packed = pack_constant(*plain);
        const size_t blocks = (piece.count + kernels::kBlockRows - 1) / kernels::kBlockRows;
        constexpr size_t header = sizeof(kernels::PackedHeader);
        std::memcpy(bytes_of(*constant) + header + first / kernels::kBlockRows * block_bytes,
                    bytes_of(*packed) + header, blocks * block_bytes);
    }
    kernels::seal(bytes_of(*constant));
    return constant;
}

template <typename T>
std::vector<T> rows_of(const std::vector<T>& values, size_t rows, size_t first, size_t count) {
    const auto per_row = static_cast<std::ptrdiff_t>(values.size() / rows);
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(first) * per_row;
    return {begin, begin + static_cast<std::ptrdiff_t>(count) * per_row};
}

PlainWeights rows_of(const PlainWeights& all, size_t first, size_t count) {
    const auto part = [&](const auto& values) { return rows_of(values, all.rows, first, count); };
    PlainWeights some;
    some.format = all.format;
    some.rows = count;
    some.columns = all.columns;
    some.codes = part(all.codes);
    some.floats = part(all.floats);
    some.scales = part(all.scales);
    some.scale_supers = part(all.scale_supers);
    some.scale_codes = part(all.scale_codes);
    some.offsets = part(all.offsets);
    some.zero_points = part(all.zero_points);
    some.offset_supers = part(all.offset_supers);
    some.offset_codes = part(all.offset_codes);
    return some;
}

OrReason<PlainWeights> plain_weights(const WeightSource& source, const RewriteOptions& options) {
    if (options.source) {
        const RewriteOptions::Piece all{source.rows, source.columns, 0, source.rows};
        auto better = options.source(source.name, all);
        if (better) {
            check_piece(source.name, *better, all);
            return {std::move(better), ""};
        }
    }
    if (!source.scales && !options.pack_floats)
        return OrReason<PlainWeights>::no("weights are floats");
    return read_weights(source);
}

}  // namespace

Packer::Packer(const RewriteOptions& options, uint64_t total_bytes)
    : options_(options), total_bytes_(std::max<uint64_t>(total_bytes, 1)) {}

OrReason<Packer::Constants> Packer::pack(const WeightSource& source,
                                         const std::vector<size_t>& row_counts) {
    const auto address = [](const std::shared_ptr<Constant>& constant) -> const void* {
        return constant ? constant->get_data_ptr() : nullptr;
    };
    const Key key{address(source.values), address(source.scales), address(source.zero_points),
                  source.transposed, row_counts};
    const auto known = known_.find(key);
    if (known != known_.end()) return {known->second, ""};

    // Told before large ones too: whoever frees what is no longer needed does it then.
    if (source.rows > kPieceRows) report(source.name);
    auto packed = pack_new(source, row_counts);
    if (packed.value) known_.emplace(key, *packed.value);
    done_bytes_ = std::min(done_bytes_ + source.bytes(), total_bytes_);
    report(source.name);
    return packed;
}

void Packer::report(const std::string& name) const {
    const double fraction = static_cast<double>(done_bytes_) / static_cast<double>(total_bytes_);
    if (options_.progress && !options_.progress(fraction, name)) {
        throw Error("packing was cancelled");
    }
}

OrReason<Packer::Constants> Packer::pack_new(const WeightSource& source,
                                             const std::vector<size_t>& row_counts) {
    if (options_.source && row_counts.size() == 1 && source.rows > kPieceRows) {
        if (auto packed = pack_pieces(source, options_)) {
            const auto constant = shared(std::move(packed));
            source_bytes_.emplace(constant.get(), source.bytes());
            return {Constants{constant}, ""};
        }
    }
    const auto plain = plain_weights(source, options_);
    if (!plain.value) return OrReason<Constants>::no(plain.reason);
    Constants constants;
    size_t first = 0;
    for (const size_t count : row_counts) {
        const auto constant =
            shared(count == source.rows
                       ? pack_constant(*plain.value, options_.spill.get())
                       : pack_constant(rows_of(*plain.value, first, count), options_.spill.get()));
        source_bytes_.emplace(constant.get(), source.bytes() * count / source.rows);
        constants.push_back(constant);
        first += count;
    }
    return {std::move(constants), ""};
}

std::shared_ptr<Constant> Packer::shared(std::shared_ptr<Constant> constant) {
    kernels::PackedHeader header;
    std::memcpy(&header, constant->get_data_ptr(), sizeof header);
    const auto [begin, end] = by_checksum_.equal_range(header.checksum);
    for (auto same = begin; same != end; ++same) {
        const Constant& other = *same->second;
        if (other.get_byte_size() == constant->get_byte_size() &&
            std::memcmp(other.get_data_ptr(), constant->get_data_ptr(), other.get_byte_size()) == 0)
            return same->second;
    }
    by_checksum_.emplace(header.checksum, constant);
    return constant;
}

uint64_t Packer::source_bytes(const ov::Node* packed) const {
    const auto found = source_bytes_.find(packed);
    return found == source_bytes_.end() ? 0 : found->second;
}

}  // namespace ovfast::ops
