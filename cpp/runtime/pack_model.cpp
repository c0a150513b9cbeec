#include "runtime/pack_model.hpp"

#include <malloc.h>
#include <sys/mman.h>
#include <tbb/parallel_for.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <openvino/op/constant.hpp>
#include <utility>
#include <vector>

#include "kernels/packed_weights.hpp"
#include "ops/packed_ops.hpp"
#include "ovfast/error.hpp"
#include "ovfast/ops.hpp"
#include "runtime/file_sink.hpp"

namespace ovfast {
namespace {

namespace fs = std::filesystem;

// Of packing a directory: reading is nothing, since the file is only mapped.
constexpr double kRewritten = 0.7;

// Of a model's constants, bytes; larger ones wait on disk until they are written.
constexpr uint64_t kMostInMemory = 1'000'000'000;

/// Gives the memory of a model's constants back as soon as nobody else refers to them. Freeing them
/// is not enough: the GGUF frontend keeps all of them in one buffer, and a mapped file stays
/// mapped.
class SourceConstants {
public:
    explicit SourceConstants(const ov::Model& model) {
        for (const auto& node : model.get_ops()) {
            const auto constant = ov::as_type_ptr<ov::op::v0::Constant>(node);
            if (constant && constant->get_byte_size() >= kSmallest) constants_.push_back(constant);
        }
        std::sort(constants_.begin(), constants_.end(),
                  [](const auto& a, const auto& b) { return begin(*a) < begin(*b); });
        alone_.assign(constants_.size(), true);
        size_t farthest = 0;  // of those before, the one that ends last
        for (size_t i = 1; i < constants_.size(); ++i) {
            if (begin(*constants_[i]) < end(*constants_[farthest])) {
                alone_[i] = alone_[farthest] = false;
            }
            if (end(*constants_[i]) > end(*constants_[farthest])) farthest = i;
        }
    }

    void release() {
        for (size_t i = 0; i < constants_.size(); ++i) {
            if (!constants_[i] || constants_[i].use_count() > 1) continue;
            if (alone_[i]) drop(*constants_[i]);
            constants_[i].reset();
        }
    }

private:
    static constexpr size_t kSmallest = 64 << 10;
    static constexpr uintptr_t kPage = 4096;

    static uintptr_t begin(const ov::op::v0::Constant& constant) {
        return reinterpret_cast<uintptr_t>(constant.get_data_ptr());
    }
    static uintptr_t end(const ov::op::v0::Constant& constant) {
        return begin(constant) + constant.get_byte_size();
    }
    /// Whole pages within the constant: what lies around it may be in use.
    static void drop(const ov::op::v0::Constant& constant) {
        const uintptr_t first = (begin(constant) + kPage - 1) / kPage * kPage;
        const uintptr_t last = end(constant) / kPage * kPage;
        if (last <= first) return;
        // NOLINTNEXTLINE(performance-no-int-to-ptr): the constant's own address, rounded
        ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
    }

    std::vector<std::shared_ptr<ov::op::v0::Constant>> constants_;
    std::vector<bool> alone_;  ///< whether no other constant has bytes of this one
};

std::vector<PackedLayer> to_public(const std::vector<ops::RewrittenLayer>& layers) {
    std::vector<PackedLayer> result;
    result.reserve(layers.size());
    for (const ops::RewrittenLayer& layer : layers) {
        result.push_back({layer.name, layer.operation, layer.reason, layer.format,
                          layer.source_bytes, layer.packed_bytes});
    }
    return result;
}

}  // namespace

Progress part_of(const Progress& progress, double begin, double end) {
    if (!progress) return {};
    return [progress, begin, end](double fraction, const std::string& what) {
        return progress(begin + (end - begin) * fraction, what);
    };
}

void report(const Progress& progress, double fraction, const std::string& what) {
    if (progress && !progress(fraction, what)) throw Error("the conversion was cancelled");
}

PackManifest pack_in_memory(const std::shared_ptr<ov::Model>& model, const Progress& progress,
                            decltype(ops::RewriteOptions::source) source,
                            std::shared_ptr<ops::SpillFile> spill) {
    PackManifest manifest;
    manifest.source_bytes = constant_bytes(*model);
    ops::RewriteOptions options;
    options.source = std::move(source);
    options.spill = std::move(spill);
    SourceConstants constants(*model);
    options.progress = [&](double fraction, const std::string&) {
        constants.release();
        return !progress || progress(fraction, "packing the weights");
    };
    manifest.layers = to_public(ops::rewrite_to_packed(model, options));
    ::malloc_trim(0);
    return manifest;
}

std::shared_ptr<ops::SpillFile> spill_for(const ov::Model& model, const fs::path& directory) {
    if (constant_bytes(model) < kMostInMemory) return nullptr;
    return std::make_shared<ops::SpillFile>(directory);
}

void write_packed(const std::shared_ptr<ov::Model>& model, PackManifest& manifest,
                  const fs::path& out_dir, const Progress& progress, const ops::SpillFile* spill) {
    // The xml is small beside the weights; 1 % and 16 MB cover it for every size of model.
    const uint64_t expected = constant_bytes(*model);
    check_free_space(out_dir, expected + expected / 100 + 16'000'000);
    const auto written = [&](uint64_t bytes) {
        const double share = static_cast<double>(bytes) / static_cast<double>(expected);
        report(progress, std::min(share, 1.0), "writing the model");
    };
    manifest.segments = write_model(model, out_dir, written, [&](const void* data, size_t bytes) {
        if (spill != nullptr) spill->let_go(data, bytes);
    });
    manifest.describe(out_dir);
    manifest.write(out_dir);
}

std::shared_ptr<ov::Model> read_packed(ov::Core& core, const ModelFiles& files,
                                       const PackManifest& manifest) {
    // What was decrypted is authenticated, every byte of it, and was checked before that.
    if (!files.encrypted()) manifest.verify_frame(files);
    register_ops(core, /*gpu=*/false);
    const std::shared_ptr<ov::Model> model = read_ir(core, files, kModelXml);
    std::vector<const ops::PackedOp*> packed;
    for (const auto& node : model->get_ops()) {
        if (const auto* op = dynamic_cast<const ops::PackedOp*>(node.get())) packed.push_back(op);
    }
    // By the operations themselves, which remember it, and in their mapping: the pages are there
    // when the first token wants them.
    try {
        tbb::parallel_for(size_t{0}, packed.size(),
                          [&](size_t i) { packed[i]->verify_weights(files.encrypted()); });
    } catch (const ov::Exception& error) {
        throw ModelError("'" + (files.path() / "openvino_model.bin").string() + "' is damaged: " +
                         reason_about(files, error) + ". Pack or export the model again.");
    }
    return model;
}

bool is_packed(const fs::path& model_dir) {
    return fs::exists(model_dir / PackManifest::kName);
}

bool is_packed(const ModelFiles& files) {
    return files.has(PackManifest::kName);
}

PackReport pack_model(const fs::path& model_dir, const fs::path& out_dir,
                      const Progress& progress) {
    if (is_packed(model_dir)) {
        throw std::invalid_argument("'" + model_dir.string() + "' is packed already");
    }
    if (!fs::is_directory(out_dir)) {
        throw Error("'" + out_dir.string() + "' is not a directory");
    }
    report(progress, 0.0, "reading the model");
    ov::Core core;
    auto model = read_ir(core, *ModelFiles::folder(model_dir), kModelXml);
    const auto spill = spill_for(*model, out_dir);
    PackManifest manifest = pack_in_memory(model, part_of(progress, 0.0, kRewritten), {}, spill);
    if (manifest.packs())
        write_packed(model, manifest, out_dir, part_of(progress, kRewritten, 1.0), spill.get());
    model.reset();
    ::malloc_trim(0);
    report(progress, 1.0, "written");
    return manifest.report(manifest.packs() ? out_dir : fs::path{});
}

}  // namespace ovfast
