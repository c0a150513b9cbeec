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
/// state belongs to one; a step starts those of all its sequences and waits. Blocks only count, so
/// that the scheduler bounds memory as for PagedModel; nothing is shared between sequences.
///
/// "MULTI:A,B" is a model on each device, among which sequences are spread: OpenVINO's own moves
/// requests between devices, which states do not survive, and refuses such graphs.
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
        size_t device = 0;  ///< index in models_
        ov::InferRequest request;
        std::vector<int64_t> tokens;
        size_t in_state = 0;  ///< of tokens, from the first on
    };
    Slot& slot_of(uint64_t sequence);
    /// Starts the next inference of a sequence; false when all its tokens are in the state.
    bool start(Slot& slot);

    void note_times(const ov::InferRequest& request);

    std::vector<ov::CompiledModel> models_;  // one, or one for each device of MULTI
    std::map<uint64_t, Slot> slots_;
    std::vector<std::vector<ov::InferRequest>> idle_;  // for each of models_
    bool has_mask_ = false, has_positions_ = false, has_beam_ = false;
    size_t max_chunk_ = 0;  ///< tokens that one inference takes; a power of two if chunks_by_two_
    bool chunks_by_two_ = false;
    std::vector<float> logits_;
    std::vector<int64_t> ones_, positions_;  // read while requests run: grown only before
    int32_t beam_ = 0;

    bool profiled_ = false;
    std::mutex times_mutex_;
    std::map<std::string, NodeTime> times_;
};

}  // namespace ovfast
