#pragma once

#include <filesystem>

namespace ovfast::ops {

/// Compares the OpenCL kernels in a folder, and their XML, with those that this library was built
/// with. Throws ModelError that names the first file that is missing or another one.
void check_kernel_files(const std::filesystem::path& folder);

}  // namespace ovfast::ops
