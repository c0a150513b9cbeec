#include "engine/kv_cache.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "ops/paged_attention.hpp"
#include "ovfast/error.hpp"

namespace ovfast {
namespace {

struct CacheInput {
    ov::Output<const ov::Node> port;
    size_t block_bytes = 0;
    int64_t rows = 0;  // tokens of a block, and for keys quantized by channel their scales
};

bool starts_with(const std::string& text, const char* prefix) {
    return text.rfind(prefix, 0) == 0;
}

std::vector<CacheInput> cache_inputs(const ov::CompiledModel& model, const char* prefix) {
    std::vector<CacheInput> found;
    for (const auto& port : model.inputs()) {
        const auto& names = port.get_names();
        if (std::none_of(names.begin(), names.end(),
                         [&](const std::string& name) { return starts_with(name, prefix); })) {
            continue;
        }
        const ov::PartialShape shape = port.get_partial_shape();
        CacheInput input{port, port.get_element_type().bitwidth(), 0};
        if (shape.rank().is_dynamic() || shape.size() != 4) {
            throw ModelError("KV cache input '" + port.get_any_name() + "' has shape " +
                             shape.to_string() + ", expected four dimensions");
        }
        for (size_t i = 1; i < 4; ++i) {
            if (shape[i].is_dynamic()) {
                throw ModelError("KV cache input '" + port.get_any_name() + "' has shape " +
                                 shape.to_string() + ", expected only the first to be open");
            }
            input.block_bytes *= static_cast<size_t>(shape[i].get_length());
        }
        input.block_bytes /= 8;
        input.rows = shape[2].get_length();
        found.push_back(std::move(input));
    }
    return found;
}

}  // namespace

KvCache::Layout KvCache::layout(const ov::CompiledModel& model) {
    const auto keys = cache_inputs(model, "key_cache.");
    const auto values = cache_inputs(model, "value_cache.");
    if (keys.empty() || keys.size() != values.size()) {
        throw ModelError("the model has " + std::to_string(keys.size()) + " key and " +
                         std::to_string(values.size()) +
                         " value caches, expected one of each per attention layer: it is not a "
                         "decoder whose attention can be paged");
    }
    Layout layout;
    layout.layers = keys.size();
    layout.block_tokens = std::numeric_limits<int64_t>::max();
    for (const auto* inputs : {&keys, &values}) {
        for (const CacheInput& input : *inputs) {
            layout.block_bytes += input.block_bytes;
            // Scales lie in extra rows (by channel) or extra columns (by token): the fewest rows
            // are the tokens.
            layout.block_tokens = std::min(layout.block_tokens, input.rows);
        }
    }
    return layout;
}

KvCache::Layout KvCache::layout(const std::vector<kernels::AttentionShape>& layers) {
    Layout layout;
    layout.layers = layers.size();
    layout.block_tokens = kernels::kAttentionBlock;
    for (const kernels::AttentionShape& shape : layers) {
        layout.block_bytes +=
            shape.kv_heads * (shape.key_block() + shape.value_block()) * sizeof(uint16_t);
    }
    return layout;
}

KvCache::KvCache(const ov::CompiledModel& model, ov::InferRequest& request, int32_t blocks) {
    std::vector<CacheInput> inputs = cache_inputs(model, "key_cache.");
    for (CacheInput& input : cache_inputs(model, "value_cache.")) {
        inputs.push_back(std::move(input));
    }
    std::vector<size_t> block_bytes;
    for (const CacheInput& input : inputs) block_bytes.push_back(input.block_bytes);
    map(block_bytes, static_cast<size_t>(blocks));
    for (size_t i = 0; i < inputs.size(); ++i) {
        const auto& port = inputs[i].port;
        ov::PartialShape shape = port.get_partial_shape();
        shape[0] = blocks;
        request.set_tensor(port,
                           ov::Tensor(port.get_element_type(), shape.to_shape(), parts_[i].data));
    }
}

KvCache::KvCache(const std::vector<kernels::AttentionShape>& layers, ov::InferRequest& request,
                 int32_t blocks) {
    std::vector<size_t> block_bytes;
    for (const kernels::AttentionShape& shape : layers) {
        block_bytes.push_back(shape.kv_heads * shape.key_block() * sizeof(uint16_t));
        block_bytes.push_back(shape.kv_heads * shape.value_block() * sizeof(uint16_t));
    }
    map(block_bytes, static_cast<size_t>(blocks));
    std::vector<kernels::KvLayer> memory;
    for (size_t i = 0; i < parts_.size(); i += 2) {
        memory.push_back({reinterpret_cast<uint16_t*>(parts_[i].data),
                          reinterpret_cast<uint16_t*>(parts_[i + 1].data)});
    }
    store_ = std::make_unique<ops::KvStore>(std::move(memory), static_cast<size_t>(blocks));
    store_number_ = store_->number();
    request.set_tensor(ops::kKvStoreInput, ov::Tensor(ov::element::i64, {1}, &store_number_));
}

void KvCache::map(const std::vector<size_t>& block_bytes, size_t blocks) {
    constexpr size_t kPage = 4096;  // each part starts on a page: no page serves two layers
    const auto padded = [&](size_t bytes) { return (bytes * blocks + kPage - 1) / kPage * kPage; };
    for (const size_t bytes : block_bytes) mapping_size_ += padded(bytes);
    mapping_ = mmap(nullptr, mapping_size_, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping_ == MAP_FAILED) {
        mapping_ = nullptr;
        throw CapacityError("cannot reserve " + std::to_string(mapping_size_ >> 20) +
                            " MiB for the KV cache: " + std::strerror(errno) +
                            "; ask for less with kv_cache_gb");
    }
    auto* data = static_cast<uint8_t*>(mapping_);
    for (const size_t bytes : block_bytes) {
        parts_.push_back({data, bytes});
        data += padded(bytes);
    }
}

KvCache::~KvCache() {
    if (mapping_ != nullptr) munmap(mapping_, mapping_size_);
}

void KvCache::copy_block(int32_t from, int32_t to) {
    for (const Part& part : parts_) {
        std::memcpy(part.data + part.block_bytes * static_cast<size_t>(to),
                    part.data + part.block_bytes * static_cast<size_t>(from), part.block_bytes);
    }
}

}  // namespace ovfast
