#pragma once

#include <filesystem>
#include <memory>
#include <openvino/core/model.hpp>
#include <openvino/runtime/core.hpp>

#include "ovfast/model_files.hpp"
#include "ovfast/pack.hpp"

namespace ovfast {

struct LoadedModel {
    std::shared_ptr<ov::Model> model;
    PackReport report;
};

/// Reads the model of a directory, packed: a packed directory as it is, a stock one from the
/// packing that was made of it, which is made now if there is none or a damaged one. Where no place
/// for it can be written to, the weights are packed in memory, and a note says so. A model in which
/// nothing packs comes as it is, with a note. An encrypted directory that is not packed is packed
/// in memory. Registers our operations with `core`. Throws ModelError.
LoadedModel load_packed(ov::Core& core, const ModelFiles& files, const Progress& progress);

}  // namespace ovfast
