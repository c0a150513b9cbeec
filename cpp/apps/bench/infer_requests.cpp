#include "apps/bench/infer_requests.hpp"

#include <chrono>
#include <cstring>
#include <stdexcept>

namespace ovfast::bench {

InferRequests::InferRequests(ov::CompiledModel& model, size_t requests, InputData data,
                             bool device_memory)
    : data_(std::move(data)), device_memory_(device_memory) {
    for (size_t i = 0; i < requests; ++i) requests_.push_back(model.create_infer_request());
    if (device_memory_) use_device_memory(model);
}

void InferRequests::use_device_memory(ov::CompiledModel& model) {
    ov::RemoteContext context;
    try {
        context = model.get_context();
    } catch (const ov::Exception&) {
        throw std::runtime_error("Requested device doesn't support `use_device_mem` option.");
    }
    data_.replace([&](const ov::Tensor& host) -> ov::Tensor {
        ov::RemoteTensor remote = context.create_tensor(host.get_element_type(), host.get_shape());
        remote.copy_from(host);
        return remote;
    });
    for (ov::InferRequest& request : requests_) {
        for (size_t i = 0; i < model.outputs().size(); ++i) {
            const auto output = model.output(i);
            // What has no shape yet stays with the plugin.
            if (output.get_partial_shape().is_dynamic()) continue;
            request.set_output_tensor(
                i, context.create_tensor(output.get_element_type(), output.get_shape()));
        }
    }
}

void InferRequests::fill_inputs() {
    for (size_t r = 0; r < requests_.size(); ++r) {
        for (size_t i = 0; i < data_.inputs(); ++i) {
            const ov::Tensor& from = data_.at(i, r);
            if (device_memory_) {
                requests_[r].set_input_tensor(i, from);
                continue;
            }
            ov::Tensor to = requests_[r].get_input_tensor(i);
            if (to.get_shape() != from.get_shape()) to.set_shape(from.get_shape());
            if (to.get_byte_size() != from.get_byte_size()) {
                throw std::runtime_error("Input " + std::to_string(i) + " takes " +
                                         std::to_string(to.get_byte_size()) + " bytes, got " +
                                         std::to_string(from.get_byte_size()));
            }
            std::memcpy(to.data(), from.data(), from.get_byte_size());
        }
    }
}

double InferRequests::first_inference(bool async) {
    const auto begin = std::chrono::steady_clock::now();
    if (async) {
        requests_[0].start_async();
        requests_[0].wait();
    } else {
        requests_[0].infer();
    }
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
        .count();
}

std::vector<std::vector<ov::ProfilingInfo>> InferRequests::counters() const {
    std::vector<std::vector<ov::ProfilingInfo>> all;
    for (const ov::InferRequest& request : requests_) all.push_back(request.get_profiling_info());
    return all;
}

void InferRequests::set_inputs(size_t request, uint64_t turn) {
    for (size_t i = 0; i < data_.inputs(); ++i) {
        requests_[request].set_input_tensor(i, data_.at(i, turn));
    }
}

void InferRequests::on_completed(Completed completed) {
    for (size_t i = 0; i < requests_.size(); ++i) {
        if (completed) {
            requests_[i].set_callback(
                [completed, i](std::exception_ptr error) { completed(i, error); });
        } else {
            requests_[i].set_callback([](std::exception_ptr) {});
        }
    }
}

}  // namespace ovfast::bench
