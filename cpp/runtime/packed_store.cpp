// Where packings of stock directories are kept, and how processes share them.

#include "runtime/packed_store.hpp"

#include <fcntl.h>
#include <malloc.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/packed_weights.hpp"
#include "ovfast/error.hpp"
#include "ovfast/ops.hpp"
#include "ovfast/version.hpp"
#include "runtime/cache_dir.hpp"
#include "runtime/file_sink.hpp"
#include "runtime/pack_model.hpp"

namespace ovfast {
namespace {

namespace fs = std::filesystem;

/// Size, time of change and inode of both files: while they are the same, so is the content.
std::string fingerprint(const fs::path& model_dir) {
    std::ostringstream text;
    for (const char* name : {"openvino_model.xml", "openvino_model.bin"}) {
        struct stat status{};
        if (::stat((model_dir / name).c_str(), &status) != 0) {
            throw ModelError("'" + model_dir.string() + "' has no readable " + name + ": " +
                             std::strerror(errno) + "; write one with `ovfast export`");
        }
        text << status.st_size << ' ' << status.st_mtim.tv_sec << ' ' << status.st_mtim.tv_nsec
             << ' ' << status.st_ino << ' ';
    }
    return text.str();
}

/// A stock directory. Its content is hashed only when somebody needs the key and no note has it.
class Source {
public:
    explicit Source(const fs::path& model_dir)
        : directory_(model_dir), fingerprint_(fingerprint(model_dir)) {}

    const fs::path& directory() const { return directory_; }
    const std::string& key() {
        if (key_.empty()) key_ = content_key(directory_);
        return key_;
    }
    /// A note holds the fingerprint and the key that belongs to it.
    void recall(const fs::path& note) {
        std::ifstream stream(note);
        std::string known;
        std::string key;
        if (key_.empty() && std::getline(stream, known) && std::getline(stream, key) &&
            known == fingerprint_ && key.size() == 16) {
            key_ = key;
            recalled_ = true;
        }
    }
    /// Without a note the content is hashed at every load, nothing worse.
    void remember(const fs::path& note) {
        const fs::path partial = note.string() + "." + std::to_string(::getpid()) + ".partial";
        std::ofstream(partial) << fingerprint_ << '\n' << key() << '\n';
        std::error_code ignored;
        fs::rename(partial, note, ignored);
    }
    bool remembered() const { return recalled_; }
    bool changed() const { return fingerprint(directory_) != fingerprint_; }

private:
    fs::path directory_;
    std::string fingerprint_;
    std::string key_;
    bool recalled_ = false;
};

struct Place {
    fs::path packed;
    fs::path note;
};

std::string layout_suffix() {
    return "v" + std::to_string(kernels::kLayoutVersion);
}

Place beside(const fs::path& model_dir) {
    const fs::path folder = model_dir / ".ovfast";
    return {folder / ("packed-" + layout_suffix()), folder / "source"};
}

Place in_cache(const fs::path& cache, Source& source) {
    const fs::path folder = cache / "packed";
    const std::string path = fs::canonical(source.directory()).string();
    std::ostringstream name;
    name << std::hex << kernels::checksum(path.data(), path.size());
    const fs::path note = folder / "sources" / name.str();
    source.recall(note);
    return {folder / (source.key() + "-" + layout_suffix()), note};
}

/// One process at a time packs into a place.
class Lock {
public:
    Lock(const fs::path& file, const Progress& progress) {
        descriptor_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (descriptor_ < 0) throw Error("'" + file.string() + "': " + std::strerror(errno));
        // Asked again and again, so that whoever waits can be interrupted.
        while (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
            if (errno != EWOULDBLOCK && errno != EINTR) {
                const int error = errno;
                ::close(descriptor_);
                throw Error("'" + file.string() + "' cannot be locked: " + std::strerror(error));
            }
            try {
                report(progress, 0.0, "waiting for another process that packs this model");
            } catch (...) {
                ::close(descriptor_);
                throw;
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
        }
    }
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;
    ~Lock() { ::close(descriptor_); }

private:
    int descriptor_ = -1;
};

/// The packing in a place, if it is one of this very model by this very version. Weights are
/// checked when they are loaded.
std::optional<PackManifest> find(const Place& place, Source& source) {
    if (!is_packed(place.packed)) return std::nullopt;
    try {
        PackManifest manifest = PackManifest::read(*ModelFiles::folder(place.packed));
        source.recall(place.note);
        if (manifest.tool != version() || manifest.source != source.key()) return std::nullopt;
        if (!source.remembered()) source.remember(place.note);  // copied, or touched
        return manifest;
    } catch (const ModelError&) {
        return std::nullopt;  // damaged, or of another layout: it is packed anew
    }
}

/// Packs a stock directory, once, into the first place that can be written to.
class Packing {
public:
    Packing(Source& source, const Progress& progress) : source_(source), progress_(progress) {}

    /// Writes to a place, or finds there what another process wrote meanwhile. Throws
    /// std::filesystem::filesystem_error or Error when the place cannot be written to.
    PackManifest write_to(const Place& place, bool again) {
        fs::create_directories(place.packed.parent_path());
        fs::create_directories(place.note.parent_path());
        const Lock lock(place.packed.string() + ".lock", progress_);
        if (!again) {
            if (auto found = find(place, source_)) return *found;
        }
        const fs::path staging = place.packed.string() + ".partial";
        fs::remove_all(staging);  // of a process that was killed
        fs::create_directory(staging);
        try {
            pack();
            manifest_.source = source_.key();
            if (manifest_.packs()) {
                write_packed(model_, manifest_, staging, part_of(guarded(), kPacked, 1.0));
            } else {
                manifest_.tool = version();
                manifest_.write(staging);
            }
            if (source_.changed()) {
                throw ModelError("'" + source_.directory().string() +
                                 "' changed while it was packed; try again");
            }
            sync_directory(staging);
            fs::remove_all(place.packed);
            fs::rename(staging, place.packed);
            sync_directory(place.packed.parent_path());
            source_.remember(place.note);
        } catch (...) {
            std::error_code ignored;
            fs::remove_all(staging, ignored);
            throw;
        }
        model_.reset();  // what was written is mapped: one copy
        ::malloc_trim(0);
        return manifest_;
    }

    /// The packed model, written nowhere.
    LoadedModel in_memory() {
        pack();
        LoadedModel loaded{model_, manifest_.report({})};
        loaded.report.packed_bytes = constant_bytes(*model_);
        return loaded;
    }

    bool cancelled() const { return cancelled_; }

private:
    static constexpr double kPacked = 0.7;

    void pack() {
        if (model_) return;
        ov::Core core;
        model_ = read_ir(core, *ModelFiles::folder(source_.directory()), kModelXml);
        manifest_ = pack_in_memory(model_, part_of(guarded(), 0.0, kPacked));
    }

    /// Notes that the caller wants to stop, which is no reason to try another place.
    Progress guarded() {
        return [this](double fraction, const std::string& what) {
            cancelled_ = progress_ && !progress_(fraction, what);
            return !cancelled_;
        };
    }

    Source& source_;
    const Progress& progress_;
    std::shared_ptr<ov::Model> model_;
    PackManifest manifest_;
    bool cancelled_ = false;
};

/// A packing on disk, or why there is none.
struct Prepared {
    std::optional<PackManifest> manifest;
    fs::path directory;
    bool reused = false;
    std::string why_not;
};

std::vector<std::function<Place()>> places_of(Source& source) {
    std::vector<std::function<Place()>> places{[&] { return beside(source.directory()); }};
    if (const auto cache = cache_dir()) {
        places.emplace_back([&source, cache] { return in_cache(*cache, source); });
    }
    return places;
}

Prepared find_any(Source& source) {
    for (const auto& place_of : places_of(source)) {
        const Place place = place_of();
        if (auto found = find(place, source)) return {found, place.packed, true, ""};
    }
    return {};
}

Prepared prepare(Source& source, Packing& packing, bool again) {
    Prepared result = again ? Prepared{} : find_any(source);
    if (result.manifest) return result;
    for (const auto& place_of : places_of(source)) {
        try {
            const Place place = place_of();
            return {packing.write_to(place, again), place.packed, false, ""};
        } catch (const ModelError&) {
            throw;
        } catch (const Error& error) {
            if (packing.cancelled()) throw;
            result.why_not += (result.why_not.empty() ? "" : "; ") + std::string(error.what());
        } catch (const fs::filesystem_error& error) {
            result.why_not += (result.why_not.empty() ? "'" : "; '") + error.path1().string() +
                              "': " + error.code().message();
        }
    }
    return result;
}

PackReport report_of(const PackManifest& manifest, const fs::path& directory, bool reused) {
    PackReport report = manifest.report(manifest.packs() ? directory : fs::path{});
    report.reused = reused;
    return report;
}

void add_note_if_stock(PackReport& report) {
    if (!report.packed) {
        report.notes.emplace_back(
            "no weights of this model pack: it runs on OpenVINO's operations");
    }
}

/// Nothing of it may be written: packed anew at every load.
LoadedModel pack_encrypted(ov::Core& core, const ModelFiles& files, const Progress& progress) {
    LoadedModel loaded;
    loaded.model = read_ir(core, files, kModelXml);
    const PackManifest manifest = pack_in_memory(loaded.model, progress);
    loaded.report = manifest.report({});
    loaded.report.packed_bytes = constant_bytes(*loaded.model);
    if (loaded.report.packed) {
        loaded.report.notes.emplace_back(
            "the encrypted model is not packed, so every load packs it in memory; pack it before "
            "it is encrypted (ovfast pack DIR -o DIR2)");
    }
    add_note_if_stock(loaded.report);
    return loaded;
}

}  // namespace

LoadedModel load_packed(ov::Core& core, const ModelFiles& files, const Progress& progress) {
    register_ops(core, /*gpu=*/false);
    const fs::path& model_dir = files.path();
    if (is_packed(files)) {
        const PackManifest manifest = PackManifest::read(files);
        return {read_packed(core, files, manifest), manifest.report(model_dir)};
    }
    if (files.encrypted()) return pack_encrypted(core, files, progress);
    Source source(model_dir);
    Packing packing(source, progress);
    for (const bool again : {false, true}) {
        const Prepared prepared = prepare(source, packing, again);
        if (!prepared.manifest) {
            LoadedModel loaded = packing.in_memory();
            loaded.report.notes.push_back(
                "the packed weights are in memory only, so every load packs them again: " +
                prepared.why_not);
            add_note_if_stock(loaded.report);
            return loaded;
        }
        LoadedModel loaded;
        loaded.report = report_of(*prepared.manifest, prepared.directory, prepared.reused);
        if (!loaded.report.packed) {
            add_note_if_stock(loaded.report);
            loaded.model = read_ir(core, files, kModelXml);
            return loaded;
        }
        try {
            loaded.model =
                read_packed(core, *ModelFiles::folder(prepared.directory), *prepared.manifest);
            return loaded;
        } catch (const ModelError&) {
            if (again) throw;  // just written and damaged: the disk is
        }
    }
    return {};
}

PackReport pack_for_loading(const fs::path& model_dir, const Progress& progress, bool again) {
    if (is_packed(model_dir)) {
        throw std::invalid_argument("'" + model_dir.string() + "' is packed already");
    }
    Source source(model_dir);
    Packing packing(source, progress);
    const Prepared prepared = prepare(source, packing, again);
    if (!prepared.manifest) {
        throw Error("there is no place for the packed weights: " + prepared.why_not +
                    ". Set OVFAST_CACHE to a directory that can be written to.");
    }
    return report_of(*prepared.manifest, prepared.directory, prepared.reused);
}

PackReport inspect_packing(const fs::path& model_dir, const Progress& progress) {
    return inspect_packing(*ModelFiles::folder(model_dir), progress);
}

PackReport inspect_packing(const ModelFiles& files, const Progress& progress) {
    const fs::path& model_dir = files.path();
    if (is_packed(files)) {
        const PackManifest manifest = PackManifest::read(files);
        manifest.verify_frame(files);
        manifest.verify_weights(files);
        return manifest.report(model_dir);
    }
    if (files.encrypted()) {
        ov::Core core;
        return pack_encrypted(core, files, progress).report;
    }
    Source source(model_dir);
    const Prepared found = find_any(source);
    if (found.manifest) return report_of(*found.manifest, found.directory, true);
    return Packing(source, progress).in_memory().report;
}

}  // namespace ovfast
