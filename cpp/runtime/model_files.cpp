#include "ovfast/model_files.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "ovfast/error.hpp"
#include "runtime/mapped_file.hpp"

namespace ovfast {
namespace {

namespace fs = std::filesystem;

class Folder final : public ModelFiles {
public:
    explicit Folder(fs::path dir) : dir_(std::move(dir)) {}

    const fs::path& path() const override { return dir_; }
    bool encrypted() const override { return false; }
    bool has(const std::string& name) const override {
        std::error_code ignored;
        return fs::is_regular_file(dir_ / name, ignored);
    }
    uint64_t size(const std::string& name) const override {
        std::error_code error;
        const uint64_t bytes = fs::file_size(dir_ / name, error);
        if (error) {
            throw ModelError("'" + (dir_ / name).string() + "' cannot be read: " + error.message());
        }
        return bytes;
    }
    FileBytes read(const std::string& name) const override {
        const auto file = std::make_shared<const MappedFile>(dir_ / name);
        return {file, file->data(), file->size()};
    }
    void read(const std::string& name, uint64_t offset, size_t bytes, void* out) const override {
        const MappedFile file(dir_ / name);
        if (offset > file.size() || bytes > file.size() - offset) {
            throw std::invalid_argument("bytes " + std::to_string(offset) + " to " +
                                        std::to_string(offset + bytes) + " lie outside of '" +
                                        (dir_ / name).string() + "', which has " +
                                        std::to_string(file.size()));
        }
        if (bytes != 0) std::memcpy(out, file.data() + offset, bytes);
    }
    void prefetch(const std::string&) override {}
    void close() override {}
    std::vector<std::string> names() const override {
        std::vector<std::string> names;
        for (const auto& item : fs::directory_iterator(dir_)) {
            if (item.is_regular_file()) names.push_back(item.path().filename().string());
        }
        std::sort(names.begin(), names.end());
        return names;
    }

private:
    fs::path dir_;
};

}  // namespace

std::shared_ptr<ModelFiles> ModelFiles::folder(const fs::path& dir) {
    if (fs::exists(dir / kEncryptedHeader)) {
        throw DecryptionError("'" + dir.string() +
                              "' is encrypted: give its key, or decrypt it first (ovfast decrypt)");
    }
    return std::make_shared<Folder>(dir);
}

}  // namespace ovfast
