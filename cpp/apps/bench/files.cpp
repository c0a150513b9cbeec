#include "apps/bench/files.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace ovfast::bench {

std::string read_file(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream content;
    if (in && !std::filesystem::is_directory(path)) content << in.rdbuf();
    if (!in || content.str().empty()) {
        throw std::runtime_error("Cannot read " + path.string() + ": " +
                                 (in ? "it is empty or a folder" : std::strerror(errno)));
    }
    return content.str();
}

}  // namespace ovfast::bench
