// The only file that touches openvino::frontend::gguf, whose interface is young and may change.

#include <fcntl.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <openvino/frontend/extension/decoder_transformation.hpp>
#include <openvino/frontend/gguf/adapt_to_genai.hpp>
#include <openvino/frontend/gguf/frontend.hpp>
#include <openvino/frontend/gguf/make_stateful.hpp>
#include <openvino/frontend/gguf/tokenizer_metadata.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/openvino.hpp>
#include <openvino/pass/serialize.hpp>
#include <set>
#include <sstream>
#include <streambuf>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "ovfast/error.hpp"
#include "ovfast/gguf.hpp"

namespace ovfast {
namespace {

namespace fs = std::filesystem;

// What the frontend of OpenVINO 2026.4.1 converts to a text generator. It keeps no list that could
// be asked for.
constexpr std::array<std::string_view, 29> supported_architectures{
    "bailingmoe2", "deepseek2-ocr", "ernie4_5-moe", "exaone-moe", "exaone4", "gemma",
    "gemma2",      "gemma3",        "gemma4",       "glm4moe",    "gpt-oss", "hunyuan-dense",
    "hunyuan-moe", "jais2",         "llama",        "maincoder",  "mellum",  "minicpm",
    "minimax-m2",  "mistral3",      "muse-glimmer", "olmoe",      "phi3",    "plamo3",
    "qwen2",       "qwen3",         "qwen35",       "qwen3moe",   "smollm3"};

constexpr std::array<std::string_view, 15> supported_types{"BF16", "F16",  "F32",  "MXFP4", "Q2_K",
                                                           "Q3_K", "Q4_0", "Q4_1", "Q4_K",  "Q5_0",
                                                           "Q5_1", "Q5_K", "Q6_K", "Q8_0",  "Q8_K"};

/// Where the stages end; loading and converting take about as long as writing.
constexpr double header_read = 0.01;
constexpr double weights_read = 0.45;
constexpr double converted = 0.5;

template <typename List>
bool contains(const List& list, std::string_view item) {
    return std::find(list.begin(), list.end(), item) != list.end();
}

template <typename List>
std::string joined(const List& list) {
    std::string text;
    for (const std::string_view item : list) text.append(text.empty() ? "" : ", ").append(item);
    return text;
}

std::string megabytes(uint64_t bytes) {
    return std::to_string(bytes / 1'000'000) + " MB";
}

class Reporter {
public:
    explicit Reporter(const Progress& progress) : progress_(progress) {}

    void operator()(double fraction, const std::string& what) const {
        if (progress_ && !progress_(fraction, what)) throw Error("the conversion was cancelled");
    }

private:
    const Progress& progress_;
};

void check_supported(const fs::path& file, const GgufHeader& header) {
    const std::string name = "'" + file.string() + "'";
    if (!contains(supported_architectures, header.architecture)) {
        throw ModelError(
            name + " holds a model of architecture '" + header.architecture +
            "', which is not supported. Supported are: " + joined(supported_architectures) + ".");
    }
    const auto parts = header.metadata.find("split.count");
    if (parts != header.metadata.end() && std::holds_alternative<uint64_t>(parts->second) &&
        std::get<uint64_t>(parts->second) > 1) {
        throw ModelError(name + " is one of " + std::to_string(std::get<uint64_t>(parts->second)) +
                         " parts of a split model. Join them first: llama-gguf-split --merge FIRST "
                         "JOINED.");
    }
    for (const GgufTensor& tensor : header.tensors) {
        if (!contains(supported_types, tensor.type)) {
            throw ModelError(
                name + ": tensor '" + tensor.name + "' has type " + tensor.type +
                ", which cannot be converted. Supported are: " + joined(supported_types) + ".");
        }
    }
}

/// Refuses hyperparameters by which the frontend would divide, or of which it would silently make
/// a wrong graph. Everything else it checks against the tensors' shapes itself.
void check_hyperparameters(const fs::path& file, const GgufHeader& header) {
    const auto find = [&](const std::string& key) -> const uint64_t* {
        const auto found = header.metadata.find(header.architecture + "." + key);
        return found == header.metadata.end() ? nullptr : std::get_if<uint64_t>(&found->second);
    };
    const auto refuse = [&](const std::string& key, const std::string& expected) {
        throw ModelError("'" + file.string() + "': metadata '" + header.architecture + "." + key +
                         "' is " + std::to_string(*find(key)) + ", expected " + expected +
                         ". The file is corrupted.");
    };
    for (const char* key :
         {"attention.head_count", "attention.head_count_kv", "attention.key_length",
          "attention.value_length", "block_count", "rope.dimension_count"}) {
        if (const uint64_t* value = find(key); value && *value == 0) refuse(key, "at least 1");
    }
    const uint64_t* head_size = find("attention.key_length");
    const uint64_t* rotated = find("rope.dimension_count");
    if (head_size && rotated && *rotated > *head_size) {
        refuse("rope.dimension_count", "at most the size of a head, " + std::to_string(*head_size));
    }
    const uint64_t* hidden = find("embedding_length");
    for (const GgufTensor& tensor : header.tensors) {
        if (hidden && tensor.name == "token_embd.weight" && tensor.shape[0] != *hidden) {
            refuse("embedding_length",
                   "the length of an embedding in tensor 'token_embd.weight', " +
                       std::to_string(tensor.shape[0]));
        }
    }
}

/// The sentence that a person can use out of an OpenVINO exception, which begins with source files.
std::string short_reason(const std::string& message) {
    std::istringstream lines(message);
    std::string last;
    for (std::string line; std::getline(lines, line);) {
        for (const char* mark : {"[GGUF] ", "[gguf] ", "[load_gguf] "}) {
            if (const size_t at = line.find(mark); at != std::string::npos) {
                return line.substr(at + std::strlen(mark));
            }
        }
        if (line.find_first_not_of(" \t\r") != std::string::npos) last = line;
    }
    return last;
}

/// The first tensor that one layer lacks although most have it: the frontend's message about it
/// names no tensor. Empty when the layers are alike.
std::string missing_tensor(const GgufHeader& header) {
    std::map<std::string, std::set<std::string>> layers_by_part;
    std::set<std::string> layers;
    for (const GgufTensor& tensor : header.tensors) {
        constexpr std::string_view prefix = "blk.";
        const size_t dot = tensor.name.find('.', prefix.size());
        if (tensor.name.compare(0, prefix.size(), prefix) != 0 || dot == std::string::npos)
            continue;
        const std::string layer = tensor.name.substr(0, dot);
        layers.insert(layer);
        layers_by_part[tensor.name.substr(dot)].insert(layer);
    }
    for (const auto& [part, having] : layers_by_part) {
        if (having.size() == layers.size() || having.size() * 2 <= layers.size()) continue;
        for (const std::string& layer : layers) {
            if (having.count(layer) == 0) return layer + part;
        }
    }
    return "";
}

/// Runs a step of the frontend, whose exceptions (its own and the standard library's) all say that
/// it cannot make sense of the file. `step` must not call back into Python.
template <typename Step>
auto translated(const fs::path& file, const GgufHeader& header, const Step& step) {
    try {
        return step();
    } catch (const std::bad_alloc&) {
        throw;
    } catch (const std::exception& error) {
        const std::string missing = missing_tensor(header);
        throw ModelError("'" + file.string() +
                         "' cannot be converted: " + short_reason(error.what()) +
                         (missing.empty() ? "" : " (the file lacks '" + missing + "')"));
    }
}

std::shared_ptr<ov::Model> convert(const fs::path& file, const GgufHeader& header,
                                   const Reporter& report) {
    namespace gguf = ov::frontend::gguf;
    gguf::FrontEnd frontend;
    frontend.add_extension(std::make_shared<ov::frontend::DecoderTransformationExtension>(
        gguf::pass::GGUFMakeStateful()));
    auto loaded = translated(file, header, [&] { return frontend.load(file.string()); });
    report(weights_read, "converting the graph");
    return translated(file, header, [&] {
        const auto model = frontend.convert(std::exchange(loaded, nullptr));
        gguf::pass::AdaptToGenAI().run_on_model(model);
        model->validate_nodes_and_infer_types();
        // The vocabulary: megabytes that an IR cannot hold anyway.
        model->get_rt_info().erase(gguf::gguf_tokenizer_metadata_key());
        return model;
    });
}

void check_contract(const fs::path& file, const ov::Model& model) {
    const auto has = [](const auto& ports, const char* name) {
        return std::any_of(ports.begin(), ports.end(),
                           [&](const auto& port) { return port.get_names().count(name) != 0; });
    };
    for (const char* input : {"input_ids", "attention_mask", "position_ids", "beam_idx"}) {
        if (!has(model.inputs(), input)) {
            throw ModelError("'" + file.string() + "' converts to a model without input '" + input +
                             "': it is not a text generation model");
        }
    }
    if (!has(model.outputs(), "logits")) {
        throw ModelError("'" + file.string() +
                         "' converts to a model without output 'logits': it is not a text "
                         "generation model");
    }
}

/// Bytes that the constants of the model will take in the .bin.
uint64_t constant_bytes(const ov::Model& model) {
    uint64_t bytes = 0;
    std::unordered_set<const void*> seen;
    for (const auto& node : model.get_ops()) {
        const auto constant = ov::as_type_ptr<ov::op::v0::Constant>(node);
        if (constant && seen.insert(constant->get_data_ptr()).second) {
            bytes += constant->get_byte_size();
        }
    }
    return bytes;
}

void check_free_space(const fs::path& out_dir, uint64_t needed) {
    struct statvfs disk{};
    if (::statvfs(out_dir.c_str(), &disk) != 0) {
        throw Error("'" + out_dir.string() + "': " + std::strerror(errno));
    }
    const uint64_t available = uint64_t{disk.f_bavail} * disk.f_frsize;
    if (available < needed) {
        throw Error("not enough disk space in '" + out_dir.string() + "': the model needs " +
                    megabytes(needed) + ", free are " + megabytes(available));
    }
}

/// Parts of the GGUF file that the frontend keeps mapped because constants point into them. Pages
/// that were written out once are dropped, or they would add to the peak of resident memory; they
/// come back from the page cache if something reads them again.
class MappedSource {
public:
    explicit MappedSource(const fs::path& file) {
        const std::string path = fs::canonical(file).string();
        std::ifstream maps("/proc/self/maps");
        for (std::string line; std::getline(maps, line);) {
            if (line.size() < path.size() ||
                line.compare(line.size() - path.size(), path.size(), path) != 0) {
                continue;
            }
            std::istringstream fields(line);
            uintptr_t begin = 0;
            uintptr_t end = 0;
            char dash = 0;
            std::string permissions;
            fields >> std::hex >> begin >> dash >> end >> permissions;
            // Dropping pages of a writable private mapping would undo what was written to it.
            if (fields && permissions.compare(0, 2, "r-") == 0) ranges_.push_back({begin, end});
        }
    }

    void drop_pages() const {
        for (const auto& [begin, end] : ranges_) {
            // NOLINTNEXTLINE(performance-no-int-to-ptr): /proc gives addresses as numbers
            ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
        }
    }

private:
    std::vector<std::pair<uintptr_t, uintptr_t>> ranges_;
};

/// A file behind a std::ostream that throws on the first write that fails (ov::serialize to a path
/// goes on silently when the disk is full) and tells how far it is.
class FileSink : public std::streambuf {
public:
    using Written = std::function<void(uint64_t bytes)>;

    FileSink(fs::path file, Written written)
        : file_(std::move(file)), written_(std::move(written)) {
        descriptor_ = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (descriptor_ < 0) fail();
    }
    FileSink(const FileSink&) = delete;
    FileSink& operator=(const FileSink&) = delete;
    ~FileSink() override {
        if (descriptor_ >= 0) ::close(descriptor_);
    }

    /// Some file systems report a full disk only here.
    void close() {
        const int descriptor = std::exchange(descriptor_, -1);
        if (::fsync(descriptor) != 0) {
            const int error = errno;
            ::close(descriptor);
            errno = error;
            fail();
        }
        if (::close(descriptor) != 0) fail();
    }

protected:
    std::streamsize xsputn(const char* data, std::streamsize count) override {
        constexpr std::streamsize piece = 8 << 20;
        for (std::streamsize done = 0; done < count;) {
            const auto size = static_cast<size_t>(std::min(piece, count - done));
            const ssize_t wrote = ::write(descriptor_, data + done, size);
            if (wrote < 0 && errno == EINTR) continue;
            if (wrote <= 0) fail();
            done += wrote;
            position_ += static_cast<uint64_t>(wrote);
            since_told_ += static_cast<uint64_t>(wrote);
            if (since_told_ >= static_cast<uint64_t>(piece)) {
                since_told_ = 0;
                if (written_) written_(position_);
            }
        }
        return count;
    }

    int_type overflow(int_type character) override {
        const char byte = traits_type::to_char_type(character);
        xsputn(&byte, 1);
        return character;
    }

    /// For tellp(), by which the serializer finds where a constant begins.
    pos_type seekoff(off_type offset, std::ios_base::seekdir direction,
                     std::ios_base::openmode) override {
        if (offset != 0 || direction != std::ios_base::cur) return pos_type(off_type(-1));
        return pos_type(static_cast<off_type>(position_));
    }

private:
    [[noreturn]] void fail() const {
        const int error = errno;
        std::string message = "writing '" + file_.string() + "' failed after " +
                              megabytes(position_) + ": " + std::strerror(error);
        if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
            message += ". Free some space or choose another directory.";
        }
        throw Error(message);
    }

    fs::path file_;
    Written written_;
    int descriptor_ = -1;
    uint64_t position_ = 0;
    uint64_t since_told_ = 0;
};

void write(const std::shared_ptr<ov::Model>& model, const fs::path& source, const fs::path& out_dir,
           uint64_t expected_bytes, const Reporter& report) {
    const MappedSource mapped(source);
    FileSink bin_sink(out_dir / "openvino_model.bin", [&](uint64_t bytes) {
        mapped.drop_pages();
        const double share = static_cast<double>(bytes) / static_cast<double>(expected_bytes);
        report(converted + (1 - converted) * std::min(share, 1.0), "writing the model");
    });
    FileSink xml_sink(out_dir / "openvino_model.xml", {});
    std::ostream bin(&bin_sink);
    std::ostringstream xml;
    // Makes the stream pass on what the sink throws, instead of just noting a failure.
    bin.exceptions(std::ios::badbit | std::ios::failbit);
    ov::pass::Serialize(xml, bin).run_on_model(model);
    bin_sink.close();
    const std::string text = xml.str();
    xml_sink.sputn(text.data(), static_cast<std::streamsize>(text.size()));
    xml_sink.close();
}

}  // namespace

void import_gguf(const fs::path& file, const fs::path& out_dir, const Progress& progress) {
    const Reporter report(progress);
    report(0.0, "reading the header");
    const GgufHeader header = read_gguf_header(file);
    check_supported(file, header);
    check_hyperparameters(file, header);
    if (!fs::is_directory(out_dir)) {
        throw Error("'" + out_dir.string() + "' is not a directory");
    }
    report(header_read, "reading the weights");

    auto model = convert(file, header, report);
    check_contract(file, *model);

    // The xml is small beside the weights; 1 % and 16 MB cover it for every size of model.
    const uint64_t weight_bytes = constant_bytes(*model);
    check_free_space(out_dir, weight_bytes + weight_bytes / 100 + 16'000'000);
    ::malloc_trim(0);
    report(converted, "writing the model");
    write(model, file, out_dir, weight_bytes, report);
    model.reset();
    ::malloc_trim(0);
    report(1.0, "written");
}

}  // namespace ovfast
