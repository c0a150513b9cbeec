#pragma once

#include <functional>
#include <memory>
#include <openvino/core/model.hpp>
#include <openvino/runtime/core.hpp>
#include <string>

#include "ovfast/model_files.hpp"

namespace ovfast {

/// Reads an IR of a model directory: OpenVINO maps a plain one; of an encrypted one the constants
/// share the memory that the weights were decrypted to. Throws ModelError.
std::shared_ptr<ov::Model> read_ir(ov::Core& core, const ModelFiles& files, const std::string& xml);

/// The same in two steps: what must be decrypted is decrypted now, the rest happens in the function
/// that is returned, which may outlive `files`.
std::function<std::shared_ptr<ov::Model>()> prepare_ir(ov::Core& core, const ModelFiles& files,
                                                       const std::string& xml);

/// Reads an IR from memory, which is kept as long as a constant needs it. Whatever OpenVINO copied
/// of the text is overwritten when it is freed. What goes wrong throws, without a word of it,
/// `refused` as ModelError.
std::shared_ptr<ov::Model> read_ir_from_memory(ov::Core& core, const FileBytes& xml,
                                               const FileBytes& bin, const std::string& refused);

/// The line of an OpenVINO exception that says why; the others name its source files.
std::string short_reason(const std::exception& error);

/// What a person may be told of an exception that is about a model: its reason, which may quote the
/// graph, unless the model is encrypted.
std::string reason_about(const ModelFiles& files, const std::exception& error);

}  // namespace ovfast
