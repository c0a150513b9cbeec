#include "ops/kernel_files.hpp"

#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "ovfast/error.hpp"

namespace ovfast::ops {
namespace {

struct KernelFile {
    std::string_view name;
    std::string_view bytes;
};

constexpr KernelFile kKernelFiles[] = {
#include "kernel_files.inc"
};

}  // namespace

void check_kernel_files(const std::filesystem::path& folder) {
    for (const KernelFile& file : kKernelFiles) {
        const std::filesystem::path path = folder / file.name;
        std::ifstream stream(path, std::ios::binary);
        if (!stream) {
            throw ModelError("ovfast's kernels for GPUs are incomplete: '" + path.string() +
                             "' cannot be read; install ovfast again");
        }
        const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
        if (bytes != file.bytes) {
            throw ModelError("ovfast's kernels for GPUs are damaged: '" + path.string() +
                             "' is not the file that libovfast_ops.so was built with; install "
                             "ovfast again, or give kernels of your own as CONFIG_FILE yourself");
        }
    }
}

}  // namespace ovfast::ops
