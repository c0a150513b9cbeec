// Encrypted models in memory: as files of a model, and as models of OpenVINO.

#include <algorithm>
#include <future>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "crypto/container.hpp"
#include "ovfast/error.hpp"
#include "ovfast/ops.hpp"
#include "runtime/read_ir.hpp"

namespace ovfast::crypto {
namespace {

namespace fs = std::filesystem;

class DecryptedFiles final : public ModelFiles {
public:
    DecryptedFiles(const fs::path& dir, const Key& key)
        : dir_(dir), container_(std::make_unique<Container>(dir, key)) {
        for (const ManifestEntry& entry : container_->manifest().entries) {
            names_.push_back(entry.file.name);
        }
    }

    const fs::path& path() const override { return dir_; }
    bool encrypted() const override { return true; }
    bool has(const std::string& name) const override {
        return std::binary_search(names_.begin(), names_.end(), name);
    }
    uint64_t size(const std::string& name) const override {
        const std::shared_lock lock(mutex_);
        return open().entry(name).file.bytes;
    }
    FileBytes read(const std::string& name) const override {
        std::future<FileBytes> begun;
        {
            const std::lock_guard lock(begun_mutex_);
            const auto found = begun_.find(name);
            if (found != begun_.end()) {
                begun = std::move(found->second);
                begun_.erase(found);
            }
        }
        return begun.valid() ? begun.get() : decrypt(name);
    }
    void prefetch(const std::string& name) override {
        const std::lock_guard lock(begun_mutex_);
        if (begun_.count(name) != 0) return;
        begun_[name] = std::async(std::launch::async, [this, name] { return decrypt(name); });
    }
    void read(const std::string& name, uint64_t offset, size_t bytes, void* out) const override {
        const std::shared_lock lock(mutex_);
        const ManifestEntry& entry = open().entry(name);
        auto* to = static_cast<uint8_t*>(out);
        if (offset == 0 && bytes == entry.file.bytes) {
            container_->read(entry, to);
        } else {
            container_->read(entry, offset, bytes, to);
        }
    }
    void close() override {
        {
            const std::lock_guard lock(begun_mutex_);
            begun_.clear();  // waits for what runs
        }
        const std::unique_lock lock(mutex_);
        container_.reset();
    }
    std::vector<std::string> names() const override { return names_; }

private:
    FileBytes decrypt(const std::string& name) const {
        const std::shared_lock lock(mutex_);
        const ManifestEntry& entry = open().entry(name);
        const auto buffer = std::make_shared<SecureBuffer>(entry.file.bytes);
        container_->read(entry, buffer->data());
        return {buffer, reinterpret_cast<const std::byte*>(buffer->data()), buffer->size()};
    }
    const Container& open() const {
        if (!container_) throw DecryptionError("'" + dir_.string() + "' was closed");
        return *container_;
    }

    fs::path dir_;
    std::vector<std::string> names_;
    mutable std::shared_mutex mutex_;
    std::unique_ptr<Container> container_;  // guarded by mutex_
    mutable std::mutex begun_mutex_;
    // Last: destroyed first, and with it the threads that use all the rest.
    mutable std::map<std::string, std::future<FileBytes>> begun_;
};

}  // namespace

std::shared_ptr<ModelFiles> open_directory(const fs::path& dir, const Key& key) {
    return std::make_shared<DecryptedFiles>(dir, key);
}

std::shared_ptr<ov::Model> open_model(ov::Core& core, const fs::path& dir, const Key& key,
                                      const std::string& xml) {
    const std::shared_ptr<ModelFiles> files = open_directory(dir, key);
    register_ops(core);
    return read_ir(core, *files, xml);
}

}  // namespace ovfast::crypto
