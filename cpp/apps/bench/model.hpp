#pragma once

#include <memory>
#include <openvino/openvino.hpp>
#include <string>

#include "apps/bench/input_info.hpp"
#include "apps/bench/options.hpp"

namespace ovfast::bench {

/// The file that -m means: itself, or openvino_model.xml in a model directory. Throws
/// std::runtime_error for a directory without a model.
std::string model_file(const std::string& path);

/// Gives inputs without a name that of their node, so that options can name them.
void name_inputs(ov::Model& model);

/// Reshapes the model to the shapes of `info`.
void reshape(ov::Model& model, const InputsInfo& info);

/// Builds types, means, scales and layouts into the model, and notes the types of the tensors in
/// `info`. Throws std::runtime_error.
std::shared_ptr<ov::Model> preprocess(std::shared_ptr<ov::Model> model, InputsInfo& info,
                                      const Options& options);

/// Prints names, types, layouts and shapes of inputs and outputs.
void log_inputs_and_outputs(const ov::Model& model);
void log_inputs_and_outputs(const ov::CompiledModel& model);

}  // namespace ovfast::bench
