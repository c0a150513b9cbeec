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

std::shared_ptr<Constant> pack_constant(const PlainWeights& plain) {
    const size_t used = kernels::packed_bytes(plain.format, plain.rows, plain.columns);
    const size_t bytes = used + kSpareBytes;
    const size_t allocated = (bytes + 63) / 64 * 64;
    std::shared_ptr<void> memory(std::aligned_alloc(64, allocated), std::free);
    if (!memory) throw std::bad_alloc();
    kernels::pack(plain, memory.get());
    std::memset(static_cast<std::byte*>(memory.get()) + used, 0, kSpareBytes);
    return std::make_shared<Constant>(ov::element::u8, ov::Shape{bytes}, memory.get(), memory);
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
        auto better = options.source(source.name, source.rows, source.columns);
        if (better) {
            if (better->rows != source.rows || better->columns != source.columns)
                throw std::invalid_argument(
                    source.name + ": expected weights [" + std::to_string(source.rows) + ", " +
                    std::to_string(source.columns) + "], got [" + std::to_string(better->rows) +
                    ", " + std::to_string(better->columns) + "]");
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

    auto packed = pack_new(source, row_counts);
    if (packed.value) known_.emplace(key, *packed.value);
    done_bytes_ = std::min(done_bytes_ + source.bytes(), total_bytes_);
    const double fraction = static_cast<double>(done_bytes_) / static_cast<double>(total_bytes_);
    if (options_.progress && !options_.progress(fraction, source.name))
        throw Error("packing was cancelled");
    return packed;
}

OrReason<Packer::Constants> Packer::pack_new(const WeightSource& source,
                                             const std::vector<size_t>& row_counts) {
    const auto plain = plain_weights(source, options_);
    if (!plain.value) return OrReason<Constants>::no(plain.reason);
    Constants constants;
    size_t first = 0;
    for (const size_t count : row_counts) {
        const auto constant =
            shared(count == source.rows ? pack_constant(*plain.value)
                                        : pack_constant(rows_of(*plain.value, first, count)));
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
