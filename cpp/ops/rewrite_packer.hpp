#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <openvino/op/constant.hpp>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "ops/rewrite.hpp"
#include "ops/rewrite_weights.hpp"

namespace ovfast::ops {

/// Packs matrices into constants, each matrix once: what several layers share, or have copies of
/// (a tied lm_head), becomes one constant.
class Packer {
public:
    using Constants = std::vector<std::shared_ptr<ov::op::v0::Constant>>;

    /// `total_bytes` of sources are 1 in the fractions that options.progress gets.
    Packer(const RewriteOptions& options, uint64_t total_bytes);

    /// One constant for each of the consecutive pieces of rows. Reports progress; throws
    /// ovfast::Error when cancelled.
    OrReason<Constants> pack(const WeightSource& source, const std::vector<size_t>& row_counts);

    /// Bytes that the graph held for what a packed constant holds.
    uint64_t source_bytes(const ov::Node* packed) const;

private:
    using Key = std::tuple<const void*, const void*, const void*, bool, std::vector<size_t>>;

    void report(const std::string& name) const;
    OrReason<Constants> pack_new(const WeightSource& source, const std::vector<size_t>& row_counts);
    std::shared_ptr<ov::op::v0::Constant> shared(std::shared_ptr<ov::op::v0::Constant> constant);

    const RewriteOptions& options_;
    uint64_t total_bytes_;
    uint64_t done_bytes_ = 0;
    /// By the addresses of the sources, which stay unique after those are freed: nothing that is
    /// made later is a source.
    std::map<Key, Constants> known_;
    std::multimap<uint64_t, std::shared_ptr<ov::op::v0::Constant>> by_checksum_;
    std::unordered_map<const ov::Node*, uint64_t> source_bytes_;
};

}  // namespace ovfast::ops
