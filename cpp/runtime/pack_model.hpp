#pragma once

#include <filesystem>
#include <memory>
#include <openvino/core/model.hpp>
#include <openvino/runtime/core.hpp>
#include <string>

#include "ops/rewrite.hpp"
#include "ovfast/pack.hpp"
#include "runtime/pack_manifest.hpp"
#include "runtime/read_ir.hpp"

namespace ovfast {

/// The IR of the model itself in a directory.
inline constexpr const char* kModelXml = "openvino_model.xml";

/// Whether there is a packed model, damaged or not.
bool is_packed(const ModelFiles& files);

/// Rewrites a model in memory to operations on packed weights; tells what became of each layer.
/// `source` and `spill` as in ops::RewriteOptions, `progress` from 0 to 1 or none.
PackManifest pack_in_memory(const std::shared_ptr<ov::Model>& model, const Progress& progress,
                            decltype(ops::RewriteOptions::source) source = {},
                            std::shared_ptr<ops::SpillFile> spill = nullptr);

/// A place in `directory` for a packed model that is too large to lie in memory; null for others.
std::shared_ptr<ops::SpillFile> spill_for(const ov::Model& model,
                                          const std::filesystem::path& directory);

/// Writes what pack_in_memory() made. `progress` from 0 to 1.
void write_packed(const std::shared_ptr<ov::Model>& model, PackManifest& manifest,
                  const std::filesystem::path& out_dir, const Progress& progress,
                  const ops::SpillFile* spill = nullptr);

/// Reads a packed directory for use: every byte is checked. Throws ModelError.
std::shared_ptr<ov::Model> read_packed(ov::Core& core, const ModelFiles& files,
                                       const PackManifest& manifest);

/// A part of a progress, from `begin` to `end`.
Progress part_of(const Progress& progress, double begin, double end);

/// Calls `progress`; throws Error when it cancels.
void report(const Progress& progress, double fraction, const std::string& what);

}  // namespace ovfast
