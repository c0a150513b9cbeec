#include "apps/bench/output_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "ovfast/error.hpp"

namespace ovfast::bench {
namespace {

[[noreturn]] void refuse(const std::filesystem::path& path, const std::string& why) {
    throw Error("cannot write '" + path.string() + "': " + why);
}

}  // namespace

OutputFile::OutputFile(std::filesystem::path path) : path_(std::move(path)) {
    if (path_.empty()) refuse(path_, "expected a file name, got none");
    if (std::filesystem::is_directory(path_)) refuse(path_, "it is a directory");
    temporary_ = path_;
    temporary_ += ".partial-" + std::to_string(getpid());
    const int file = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file < 0) {
        const int error = errno;
        temporary_.clear();
        refuse(path_, std::strerror(error));
    }
    close(file);
}

OutputFile::~OutputFile() {
    std::error_code ignored;
    if (!temporary_.empty()) std::filesystem::remove(temporary_, ignored);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), temporary_(std::exchange(other.temporary_, {})) {}

void OutputFile::write(const std::string& text) {
    std::ofstream file(temporary_, std::ios::binary | std::ios::trunc);
    file << text;
    file.close();
    if (!file) refuse(path_, std::strerror(errno));
    std::error_code error;
    std::filesystem::rename(temporary_, path_, error);
    if (error) refuse(path_, error.message());
    temporary_.clear();
}

}  // namespace ovfast::bench
