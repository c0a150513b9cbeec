#pragma once

#include <openvino/openvino.hpp>
#include <string>
#include <vector>

#include "apps/bench/input_info.hpp"

namespace ovfast::bench {

/// The data that the inputs take in turn.
class InputData {
public:
    explicit InputData(std::vector<std::vector<ov::Tensor>> tensors)
        : tensors_(std::move(tensors)) {}

    size_t inputs() const { return tensors_.size(); }
    /// What `input` gets in the turn of that number: each input goes round its own tensors.
    const ov::Tensor& at(size_t input, size_t turn) const {
        return tensors_[input][turn % tensors_[input].size()];
    }
    /// Puts f(tensor) in the place of each tensor.
    template <typename Function>
    void replace(const Function& f) {
        for (auto& of_input : tensors_) {
            for (ov::Tensor& tensor : of_input) tensor = f(tensor);
        }
    }

private:
    std::vector<std::vector<ov::Tensor>> tensors_;  // by input
};

/// Reads files and fills the other inputs with random values. A dynamic input without -data_shape
/// takes the shapes of its files, which are noted in `info`. Throws std::runtime_error.
InputData make_input_data(const std::vector<std::string>& arguments, InputsInfo& info);

/// Fills a tensor with numbers from 0 to 255, booleans with 0 and 1. Throws std::runtime_error for
/// a type without numbers.
void fill_random(ov::Tensor& tensor);

}  // namespace ovfast::bench
