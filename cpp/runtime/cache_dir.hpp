#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

namespace ovfast {

/// The cache: OVFAST_CACHE, else ~/.cache/ovfast; nothing when there is no home either. It need
/// not exist.
inline std::optional<std::filesystem::path> cache_dir() {
    const auto set = [](const char* name) -> std::optional<std::string> {
        const char* value = std::getenv(name);
        return value != nullptr && *value != '\0' ? std::optional<std::string>(value)
                                                  : std::nullopt;
    };
    const auto home = set("HOME");
    if (const auto configured = set("OVFAST_CACHE")) {
        if (configured->rfind("~/", 0) == 0 && home) {
            return std::filesystem::path(*home) / configured->substr(2);
        }
        return std::filesystem::path(*configured);
    }
    if (home) return std::filesystem::path(*home) / ".cache" / "ovfast";
    return std::nullopt;
}

}  // namespace ovfast
