#pragma once

#include <map>
#include <mutex>
#include <openvino/runtime/compiled_model.hpp>
#include <openvino/runtime/infer_request.hpp>
#include <vector>

#include "engine/decoder_model.hpp"

namespace ovfast {

/// A decoder on another device than the CPU, as its directory has it: the graph keeps the KV cache
/// as its state, in the device's memory. Each sequence has an infer request of its own, since a
/// state belongs to one; a step computes its sequences one after the other. Blocks only count, so
/// that the scheduler bounds memory as for PagedModel; nothing is shared between sequences.
class StatefulModel final : public DecoderModel {
public:
    StatefulModel(const ModelFiles& files, const EngineOptions& options);

    const float* run(const StepBatch& batch) override;
    void copy_block(int32_t, int32_t) override {}  // the states of a fork are copied whole
    void fork(uint64_t from, uint64_t to) override;
    void release(uint64_t sequence) override;
    std::vector<NodeTime> take_node_times() override;

private:
    struct Slot {
        ov::InferRequest request;
        int32_t past = 0;  ///< tokens in its state
    };
    Slot& slot_of(uint64_t sequence, int32_t past);
    /// Computes tokens [first, last) of the batch, which follow slot.past others.
    void compute(Slot& slot, const StepBatch& batch, size_t first, size_t last);
    void note_times(const ov::InferRequest& request);

    ov::CompiledModel model_;
    std::map<uint64_t, Slot> slots_;
    std::vector<ov::InferRequest> idle_;
    bool has_mask_ = false, has_positions_ = false, has_beam_ = false;
    size_t max_chunk_ = 0;  ///< tokens that one inference takes; a power of two if chunks_by_two_
    bool chunks_by_two_ = false;
    std::vector<float> logits_;
    std::vector<int64_t> mask_;

    bool profiled_ = false;
    std::mutex times_mutex_;
    std::map<std::string, NodeTime> times_;
};

}  // namespace ovfast
