#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ovfast/export.hpp"
#include "ovfast/model_files.hpp"
#include "ovfast/progress.hpp"

// Packed model directories: the linear layers of openvino_model.xml are ovfast's operations, whose
// weights lie in openvino_model.bin as the kernels read them. Loading maps the file and uses it in
// place. openvino_model.packed beside them lists what was done and has the checksums of everything.
namespace ovfast {

/// A layer with constant weights and what became of it.
struct PackedLayer {
    std::string name;       ///< of the original node
    std::string operation;  ///< "FullyConnected", "QKV", "GatedMLP", "Embedding"; "": left alone
    std::string reason;     ///< why it was left alone
    std::string format;     ///< "u4 g128 f16 symmetric", of each weight, joined with ", "
    uint64_t source_bytes = 0;  ///< of its weights before
    uint64_t packed_bytes = 0;  ///< and after
};

struct PackReport {
    /// Whether anything was packed. A model without weights that pack is left as it is.
    bool packed = false;
    /// Where the packed model lies; empty when it was not written.
    std::filesystem::path directory;
    /// It lay there already.
    bool reused = false;
    uint64_t source_bytes = 0;  ///< constants before, bytes
    uint64_t packed_bytes = 0;  ///< constants after, bytes
    std::vector<PackedLayer> layers;
    std::vector<std::string> notes;  ///< what a person should know, a sentence each
};

/// Whether a directory holds a packed model, damaged or not.
OVFAST_API bool is_packed(const std::filesystem::path& model_dir);

/// Packs the model of a stock directory into the existing directory `out_dir`: openvino_model.xml,
/// .bin and .packed, no tokenizer. When nothing packs, nothing is written. Throws ModelError (no
/// model, unreadable), std::invalid_argument (packed already), Error (cancelled, disk full). Leaves
/// partial files to the caller.
OVFAST_API PackReport pack_model(const std::filesystem::path& model_dir,
                                 const std::filesystem::path& out_dir,
                                 const Progress& progress = {});

/// Does what Engine does when it loads a stock directory: packs it into
/// `model_dir`/.ovfast/packed-v<layout>, or, where that cannot be written, into the cache
/// (OVFAST_CACHE, else ~/.cache/ovfast) under packed/, unless a packing of this very model is
/// there. Safe when several processes do it at once. `again` packs even so. Throws as pack_model(),
/// and Error when neither place can be written to.
OVFAST_API PackReport pack_for_loading(const std::filesystem::path& model_dir,
                                       const Progress& progress = {}, bool again = false);

/// What a directory's packing did, or, for a stock one, would do, with nothing written. Reads and
/// checks all of a packed directory. Throws ModelError when it is damaged.
OVFAST_API PackReport inspect_packing(const std::filesystem::path& model_dir,
                                      const Progress& progress = {});
OVFAST_API PackReport inspect_packing(const ModelFiles& files, const Progress& progress = {});

}  // namespace ovfast
