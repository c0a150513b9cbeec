#include "apps/bench/tuning.hpp"

#include <openssl/evp.h>

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>

#include "ovfast/error.hpp"
#include "ovfast/host.hpp"
#include "ovfast/version.hpp"
#include "runtime/cache_dir.hpp"

namespace ovfast::bench {
namespace {

using nlohmann::json;

constexpr int kFormat = 1;
constexpr const char* kPrecisionHint = "INFERENCE_PRECISION_HINT";

std::string sha256(std::string_view bytes) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int length = 0;
    if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), &length, EVP_sha256(), nullptr) !=
        1) {
        throw Error("OpenSSL computes no SHA-256");
    }
    std::string text;
    for (unsigned int i = 0; i < length; ++i) {
        char two[3];
        std::snprintf(two, sizeof(two), "%02x", digest[i]);
        text += two;
    }
    return text;
}

// The shortest digits that give the number again, with an exponent below 1e-4 and from 1e16 on.
std::string python_float(double value) {
    const double size = std::fabs(value);
    const bool plain = size == 0.0 || (size >= 1e-4 && size < 1e16);
    std::array<char, 64> text{};
    const auto end = std::to_chars(text.data(), text.data() + text.size(), value,
                                   plain ? std::chars_format::fixed : std::chars_format::scientific)
                         .ptr;
    std::string result(text.data(), end);
    if (plain && result.find('.') == std::string::npos) result += ".0";
    return result;
}

std::string digest(const json& value) {
    return sha256(python_json(value));
}

// Properties by which a caller decides what was tuned.
const std::map<std::string, std::string>& decided_by() {
    static const std::map<std::string, std::string> names{
        {"INFERENCE_NUM_THREADS", "num_threads"},
        {kPrecisionHint, "inference_precision"},
        {"EXECUTION_MODE_HINT", "inference_precision"}};
    return names;
}

/// The tuning of a file, null when there is none. Throws what says why it cannot be used.
json read(const std::filesystem::path& path) {
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) return nullptr;
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("it cannot be read");
    const json stored = json::parse(file);
    if (stored.at("format") != kFormat) {
        throw std::runtime_error("its format is " + stored["format"].dump() + ", expected " +
                                 std::to_string(kFormat));
    }
    const json& tuning = stored.at("tuning");
    // The key in the file's name says that it fits, the sum that it is what was written.
    if (digest(tuning) != stored.at("sha256")) {
        throw std::runtime_error("its contents do not fit its checksum");
    }
    return tuning;
}

void set(EngineOptions& options, const std::string& name, const json& value) {
    if (name == "inference_precision") {
        options.properties[kPrecisionHint] = value.get<std::string>();
    } else if (name == "num_threads") {
        options.num_threads = value.get<int>();
    } else if (name == "max_batch_tokens") {
        options.max_batch_tokens = value.get<int64_t>();
    } else if (name == "tile_kb") {
        options.tile_kb = value.get<int64_t>();
    } else if (name == "tile_columns") {
        options.tile_columns = value.get<int64_t>();
    } else if (name == "attention") {
        options.attention = value.get<std::string>();
    } else if (name == "activation_precision") {
        options.activation_precision = value.get<std::string>();
    } else {
        throw std::runtime_error("it sets '" + name + "', which is no option");
    }
}

}  // namespace

std::string python_json(const json& value) {
    if (value.is_number_float()) return python_float(value.get<double>());
    if (!value.is_structured()) return value.dump(-1, ' ', true);
    std::string text;
    for (const auto& [key, one] : value.items()) {  // sorted by key
        if (!text.empty()) text += ", ";
        if (value.is_object()) text += json(key).dump(-1, ' ', true) + ": ";
        text += python_json(one);
    }
    return value.is_object() ? "{" + text + "}" : "[" + text + "]";
}

std::filesystem::path tuning_path(const ModelFiles& files) {
    const std::optional<std::filesystem::path> cache = cache_dir();
    if (!cache) return {};
    const HostLimits host = read_host_limits();
    const json identity{{"cpu", host.cpu_name},
                        {"threads", host.threads},
                        {"isa", host.isa},
                        {"ovfast", version()},
                        {"openvino", openvino_loaded_version()},
                        {"model_xml", sha256(files.read("openvino_model.xml").text())}};
    return *cache / "tuning" / (digest(identity) + ".json");
}

std::optional<Tuning> apply_tuning(const ModelFiles& files, EngineOptions& options,
                                   const std::set<std::string>& given, std::string& warning) {
    if (options.packed != "auto" || options.activation_precision != "int8") return std::nullopt;
    if (!files.has("openvino_model.xml")) return std::nullopt;  // loading says what is wrong
    const std::filesystem::path path = tuning_path(files);
    if (path.empty()) return std::nullopt;
    try {
        const json tuning = read(path);
        if (tuning.is_null()) return std::nullopt;
        std::set<std::string> decided = given;
        for (const auto& [property, name] : decided_by()) {
            if (options.properties.count(property) != 0) decided.insert(name);
        }
        EngineOptions changed = options;
        Tuning result{tuning.value("made", ""), json::object()};
        for (const auto& [name, value] : tuning.at("options").items()) {
            if (decided.count(name) != 0) continue;
            set(changed, name, value);
            result.applied[name] = value;
        }
        options = changed;
        return result;
    } catch (const std::exception& error) {
        warning = "the tuning in '" + path.string() + "' cannot be used: " + error.what() +
                  ". The defaults hold; tune the model again (ovfast tune), or delete the file";
        return std::nullopt;
    }
}

std::string Tuning::text() const {
    std::string text;
    for (const auto& [name, value] : applied.items()) {
        text += (text.empty() ? "" : " ") + name + "=" +
                (value.is_string() ? value.get<std::string>() : value.dump());
    }
    return text.empty() ? "the defaults" : text;
}

}  // namespace ovfast::bench
