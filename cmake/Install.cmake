# The installed tree. In a wheel the prefix is site-packages/ovfast:
#   _core.*.so  _build.py  lib/libovfast.so  lib/libovfast_ops.so
#   bin/ovfast-bench  include/ovfast/*.hpp  lib/cmake/ovfast/*.cmake
# OpenVINO lies beside it, in site-packages/openvino/libs, and is found relative to $ORIGIN.

include(CMakePackageConfigHelpers)

install(TARGETS ovfast ovfast_ops EXPORT ovfastTargets LIBRARY DESTINATION lib)
# Beside lib/: libovfast_ops.so finds it relative to itself.
install(DIRECTORY cpp/opencl/ DESTINATION opencl FILES_MATCHING PATTERN "*.cl" PATTERN "*.xml")
install(DIRECTORY cpp/include/ DESTINATION include FILES_MATCHING PATTERN "*.hpp")

set(config_dir lib/cmake/ovfast)
configure_package_config_file(
    cmake/ovfastConfig.cmake.in "${PROJECT_BINARY_DIR}/ovfastConfig.cmake"
    INSTALL_DESTINATION ${config_dir}
    NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file(
    "${PROJECT_BINARY_DIR}/ovfastConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/ovfastConfig.cmake"
              "${PROJECT_BINARY_DIR}/ovfastConfigVersion.cmake"
        DESTINATION ${config_dir})
install(EXPORT ovfastTargets NAMESPACE ovfast:: DESTINATION ${config_dir})

if(OVFAST_APPS)
    install(TARGETS ovfast-bench RUNTIME DESTINATION bin)
endif()
if(OVFAST_PYTHON)
    install(TARGETS _core LIBRARY DESTINATION .)
    configure_file(cmake/_build.py.in "${PROJECT_BINARY_DIR}/_build.py" @ONLY)
    install(FILES "${PROJECT_BINARY_DIR}/_build.py" DESTINATION .)
endif()
