#include "apps/bench/files.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace ovfast::bench {
namespace {

namespace fs = std::filesystem;

fs::path temporary_name(const fs::path& path) {
    return path.string() + ".tmp." + std::to_string(getpid());
}

[[noreturn]] void fail(const std::string& what) {
    throw std::runtime_error(what + ": " + std::strerror(errno));
}

}  // namespace

void write_file(const fs::path& path, const std::string& content) {
    const fs::path temporary = temporary_name(path);
    std::ofstream out(temporary, std::ios::binary);
    if (out) out << content;
    if (out) out.close();
    if (!out) {
        const int error = errno;
        std::error_code ignored;
        fs::remove(temporary, ignored);
        errno = error;
        fail("Cannot write " + path.string());
    }
    fs::rename(temporary, path);
}

void check_writable(const fs::path& folder, const std::string& purpose) {
    const fs::path place = folder.empty() ? "." : folder;
    const std::string name = "The " + purpose + " '" + place.string() + "'";
    if (!fs::exists(place)) throw std::runtime_error(name + " does not exist");
    if (!fs::is_directory(place)) throw std::runtime_error(name + " is not a folder");
    const fs::path probe = temporary_name(place / ".ovfast-bench");
    if (!std::ofstream(probe)) fail(name + " cannot be written to");
    fs::remove(probe);
}

void check_can_write(const fs::path& file, const std::string& purpose) {
    if (file.empty()) return;
    if (fs::is_directory(file)) {
        throw std::runtime_error("The " + purpose + " '" + file.string() +
                                 "' is a folder, expected the name of a file");
    }
    check_writable(file.parent_path(), "folder of the " + purpose);
}

std::string read_file(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream content;
    if (in) content << in.rdbuf();
    if (!in || fs::is_directory(path)) fail("Cannot read " + path.string());
    return content.str();
}

}  // namespace ovfast::bench
