#include "runtime/read_ir.hpp"

#include <cctype>
#include <openvino/runtime/allocator.hpp>
#include <utility>

#include "crypto/secret.hpp"
#include "ovfast/error.hpp"

namespace ovfast {
namespace {

/// Memory that is there already, and stays for as long as the tensor and its copies.
class Kept {
public:
    explicit Kept(FileBytes bytes) : bytes_(std::move(bytes)) {}

    void* allocate(size_t, size_t = alignof(max_align_t)) {
        return const_cast<std::byte*>(bytes_.data);
    }
    void deallocate(void*, size_t, size_t = alignof(max_align_t)) noexcept {}
    bool is_equal(const Kept& other) const { return bytes_.data == other.bytes_.data; }

private:
    FileBytes bytes_;
};

}  // namespace

std::function<std::shared_ptr<ov::Model>()> prepare_ir(ov::Core& core, const ModelFiles& files,
                                                       const std::string& xml) {
    const std::filesystem::path path = files.path() / xml;
    if (!files.has(xml)) {
        throw ModelError("no " + xml + " in " + files.path().string() +
                         "; write one with `ovfast export`");
    }
    if (files.encrypted()) {
        const std::string bin = std::filesystem::path(xml).replace_extension(".bin").string();
        return [&core, path, text = files.read(xml), weights = files.read(bin)] {
            return read_ir_from_memory(core, text, weights,
                                       "OpenVINO cannot read the encrypted " + path.string());
        };
    }
    return [&core, path] {
        try {
            return core.read_model(path);
        } catch (const std::exception& error) {
            throw ModelError("cannot read " + path.string() + ": " + short_reason(error));
        }
    };
}

std::shared_ptr<ov::Model> read_ir(ov::Core& core, const ModelFiles& files,
                                   const std::string& xml) {
    return prepare_ir(core, files, xml)();
}

std::shared_ptr<ov::Model> read_ir_from_memory(ov::Core& core, const FileBytes& xml,
                                               const FileBytes& bin, const std::string& refused) {
    crypto::wipe_freed_memory();
    ov::Tensor weights;
    if (bin.size != 0) weights = ov::Tensor(ov::element::u8, {bin.size}, ov::Allocator(Kept(bin)));
    std::string text(xml.text());
    std::shared_ptr<ov::Model> model;
    try {
        model = core.read_model(text, weights);
    } catch (const std::exception&) {
        // Its reason may quote the graph.
    }
    crypto::wipe(text.data(), text.size());
    if (!model) throw ModelError(refused);
    return model;
}

std::string short_reason(const std::exception& error) {
    std::string text = error.what();
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) {
        text.pop_back();
    }
    const size_t line = text.rfind('\n');
    return line == std::string::npos ? text : text.substr(line + 1);
}

std::string reason_about(const ModelFiles& files, const std::exception& error) {
    return files.encrypted() ? "the reason is not shown, since the model is encrypted"
                             : short_reason(error);
}

}  // namespace ovfast
