// The only file that touches openvino::frontend::gguf, whose interface is young and may change.

#include <malloc.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <openvino/frontend/extension/decoder_transformation.hpp>
#include <openvino/frontend/gguf/adapt_to_genai.hpp>
#include <openvino/frontend/gguf/frontend.hpp>
#include <openvino/frontend/gguf/make_stateful.hpp>
#include <openvino/frontend/gguf/tokenizer_metadata.hpp>
#include <openvino/openvino.hpp>
#include <set>
#include <sstream>
#include <string_view>
#include <utility>

#include "ovfast/error.hpp"
#include "ovfast/gguf.hpp"
#include "runtime/file_sink.hpp"
#include "runtime/gguf_weights.hpp"
#include "runtime/mapped_file.hpp"
#include "runtime/model_writer.hpp"
#include "runtime/pack_model.hpp"

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
constexpr double packed_end = 0.85;

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
std::string frontend_reason(const std::string& message) {
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
                         "' cannot be converted: " + frontend_reason(error.what()) +
                         (missing.empty() ? "" : " (the file lacks '" + missing + "')"));
    }
}

std::shared_ptr<ov::Model> convert(const fs::path& file, const GgufHeader& header,
                                   const Progress& progress) {
    namespace gguf = ov::frontend::gguf;
    gguf::FrontEnd frontend;
    frontend.add_extension(std::make_shared<ov::frontend::DecoderTransformationExtension>(
        gguf::pass::GGUFMakeStateful()));
    auto loaded = translated(file, header, [&] { return frontend.load(file.string()); });
    report(progress, weights_read, "converting the graph");
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

/// Packs with the file's own weights, where they are the graph's.
PackManifest pack(const std::shared_ptr<ov::Model>& model, const fs::path& file,
                  const GgufHeader& header, const Progress& progress) {
    GgufWeights weights(file, header, *model);
    PackManifest manifest = pack_in_memory(
        model, progress, [&](const std::string& name, const ops::RewriteOptions::Piece& piece) {
            return weights.find(name, piece);
        });
    manifest.notes = weights.notes();
    return manifest;
}

void write_stock(const std::shared_ptr<ov::Model>& model, const fs::path& source,
                 const fs::path& out_dir, const Progress& progress) {
    // The xml is small beside the weights; 1 % and 16 MB cover it for every size of model.
    const uint64_t expected = constant_bytes(*model);
    check_free_space(out_dir, expected + expected / 100 + 16'000'000);
    const MappedPages mapped(source);
    write_model(model, out_dir, [&](uint64_t bytes) {
        mapped.drop();
        const double share = static_cast<double>(bytes) / static_cast<double>(expected);
        report(progress, std::min(share, 1.0), "writing the model");
    });
}

}  // namespace

PackReport import_gguf(const fs::path& file, const fs::path& out_dir, const Progress& progress,
                       bool packed) {
    report(progress, 0.0, "reading the header");
    const GgufHeader header = read_gguf_header(file);
    check_supported(file, header);
    check_hyperparameters(file, header);
    if (!fs::is_directory(out_dir)) {
        throw Error("'" + out_dir.string() + "' is not a directory");
    }
    report(progress, header_read, "reading the weights");

    auto model = convert(file, header, progress);
    check_contract(file, *model);
    ::malloc_trim(0);

    PackManifest manifest;
    manifest.source_bytes = constant_bytes(*model);
    if (packed) manifest = pack(model, file, header, part_of(progress, converted, packed_end));
    if (manifest.packs()) {
        write_packed(model, manifest, out_dir, part_of(progress, packed_end, 1.0));
    } else {
        write_stock(model, file, out_dir, part_of(progress, converted, 1.0));
    }
    PackReport result = manifest.report(out_dir);
    if (!result.packed) result.packed_bytes = result.source_bytes;
    model.reset();
    ::malloc_trim(0);
    report(progress, 1.0, "written");
    return result;
}

}  // namespace ovfast
