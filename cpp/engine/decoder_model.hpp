#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <openvino/runtime/core.hpp>
#include <string>
#include <vector>

#include "engine/step_batch.hpp"
#include "ovfast/engine.hpp"
#include "ovfast/model_files.hpp"

namespace ovfast {

/// What the engine computes steps with: a decoder and the memory of its KV cache.
class DecoderModel {
public:
    virtual ~DecoderModel() = default;

    /// Runs one step. Returns logits f32 [logit_rows, vocabulary], valid until the next step; no
    /// meaning without logit_rows.
    virtual const float* run(const StepBatch& batch) = 0;

    /// Copies a block of the cache that several sequences hold, before one of them writes.
    virtual void copy_block(int32_t from, int32_t to) = 0;
    /// Sequence `to` begins with what is in the cache of `from`.
    virtual void fork(uint64_t from, uint64_t to) = 0;
    /// What is in the cache of a sequence is no longer needed.
    virtual void release(uint64_t sequence) = 0;

    /// See Engine::take_node_times(); from any thread.
    virtual std::vector<NodeTime> take_node_times() = 0;
    const EngineInfo& info() const { return info_; }

protected:
    EngineInfo info_;
};

/// The kind of model that `options.device` runs: PagedModel on "CPU", StatefulModel elsewhere.
/// Throws ModelError, CapacityError, std::invalid_argument.
std::unique_ptr<DecoderModel> load_decoder(const ModelFiles& files, const EngineOptions& options);

// What the kinds of models share.

bool has_input(const ov::Model& model, const std::string& name);

/// Throws ModelError when there is no input_ids.
void check_decoder(const ov::Model& model, const std::filesystem::path& dir);

/// `properties` and those of the user, which win; unknown ones throw std::invalid_argument.
ov::AnyMap with_users_properties(ov::Core& core, const EngineOptions& options,
                                 const std::string& device, ov::AnyMap properties);

/// The error of a failed compilation: the user's when a property is at fault, else the model's.
[[noreturn]] void throw_not_compiled(const ModelFiles& files, const EngineOptions& options,
                                     const std::exception& error);

/// Memory that a KV cache may lie in.
struct CacheMemory {
    uint64_t available = 0, total = 0;
    std::string owner;  ///< "machine", "cgroup", "GPU"
    std::string where;  ///< after "available": "", " under the cgroup limit", " on the GPU"
};
CacheMemory host_memory();

/// Fills in what `info` says of the KV cache: a bound for blocks of `block_tokens` tokens and
/// `block_bytes` bytes, from the options or from the memory that the weights leave.
void bound_cache(EngineInfo& info, const EngineOptions& options, int64_t block_tokens,
                 uint64_t block_bytes, uint64_t weight_bytes, const CacheMemory& memory);

}  // namespace ovfast
