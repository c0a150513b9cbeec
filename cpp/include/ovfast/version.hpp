#pragma once

#include <string>

#include "ovfast/export.hpp"

namespace ovfast {

/// Version of this library.
OVFAST_API std::string version();
/// OpenVINO version whose headers this library was compiled with, "2026.4.1".
OVFAST_API std::string openvino_built_version();
/// Version of the OpenVINO library that is loaded, with its build number.
OVFAST_API std::string openvino_loaded_version();

}  // namespace ovfast
