#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention.hpp"

namespace ovfast::ops {

/// The memory of a paged KV cache as PagedAttention nodes see it. They get it by a number in an
/// input tensor, so that no plugin copies or converts it; numbers of stores that are gone are
/// refused.
class KvStore {
public:
    /// `layers` point to memory of `blocks` blocks each, which must outlive this object.
    KvStore(std::vector<kernels::KvLayer> layers, size_t blocks);
    ~KvStore();
    KvStore(const KvStore&) = delete;
    KvStore& operator=(const KvStore&) = delete;

    int64_t number() const { return number_; }
    const std::vector<kernels::KvLayer>& layers() const { return layers_; }
    size_t blocks() const { return blocks_; }

    /// Throws std::invalid_argument when there is no such store.
    static const KvStore& find(int64_t number);

private:
    std::vector<kernels::KvLayer> layers_;
    size_t blocks_;
    int64_t number_;
};

}  // namespace ovfast::ops
