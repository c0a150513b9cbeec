#include "ovfast/version.hpp"

#include <openvino/core/version.hpp>

namespace ovfast {

std::string version() {
    return OVFAST_VERSION;
}

std::string openvino_built_version() {
    return std::to_string(OPENVINO_VERSION_MAJOR) + "." + std::to_string(OPENVINO_VERSION_MINOR) +
           "." + std::to_string(OPENVINO_VERSION_PATCH);
}

std::string openvino_loaded_version() {
    return ov::get_openvino_version().buildNumber;
}

}  // namespace ovfast
