#pragma once

#include <openvino/openvino.hpp>
#include <vector>

#include "apps/bench/infer_loop.hpp"
#include "apps/bench/tensors.hpp"

namespace ovfast::bench {

/// OpenVINO's infer requests of a compiled model, fed with data of each input in turn.
class InferRequests : public Requests {
public:
    /// `device_memory`: inputs and outputs are remote tensors of the device. Throws
    /// std::runtime_error when it has none.
    InferRequests(ov::CompiledModel& model, size_t requests, InputData data, bool device_memory);

    /// Puts data into the requests' own input tensors, a turn each.
    void fill_inputs();

    /// Runs one request once; its time in milliseconds.
    double first_inference(bool async);

    /// The time of each layer in the last inference of each request.
    std::vector<std::vector<ov::ProfilingInfo>> counters() const;

    size_t size() const override { return requests_.size(); }
    void set_inputs(size_t request, uint64_t turn) override;
    void infer(size_t request) override { requests_[request].infer(); }
    void start(size_t request) override { requests_[request].start_async(); }
    void settle(size_t request) override { requests_[request].wait(); }
    void on_completed(Completed completed) override;

private:
    void use_device_memory(ov::CompiledModel& model);

    std::vector<ov::InferRequest> requests_;
    InputData data_;
    bool device_memory_;
};

}  // namespace ovfast::bench
