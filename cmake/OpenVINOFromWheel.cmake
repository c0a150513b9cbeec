# Finds OpenVINO inside the `openvino` wheel of the Python that builds us, build isolation included.
# Pass -DOpenVINO_DIR=... to use another installation of the same version.
#
# Sets OVFAST_OPENVINO_LIB_DIR, the folder of libopenvino.so.<version>: the wheel has no unversioned
# symbolic links, so binaries in the build tree need it as their rpath.

if(SKBUILD)
    find_package(Python REQUIRED COMPONENTS Interpreter Development.Module)
else()
    find_package(Python REQUIRED COMPONENTS Interpreter OPTIONAL_COMPONENTS Development.Module)
endif()

if(NOT OpenVINO_DIR)
    execute_process(
        COMMAND "${Python_EXECUTABLE}" -c
                "import importlib.util as u; print(u.find_spec('openvino').submodule_search_locations[0])"
        OUTPUT_VARIABLE openvino_package
        OUTPUT_STRIP_TRAILING_WHITESPACE
        ERROR_QUIET
        RESULT_VARIABLE not_found)
    if(not_found)
        message(FATAL_ERROR "The Python package 'openvino' is missing from ${Python_EXECUTABLE}. "
                            "Install it (pip install openvino==2026.4.1) or pass -DOpenVINO_DIR=...")
    endif()
    set(OpenVINO_DIR "${openvino_package}/cmake")
endif()

find_package(OpenVINO 2026.4.1 EXACT REQUIRED CONFIG COMPONENTS Runtime)
get_target_property(openvino_library openvino::runtime IMPORTED_LOCATION_RELEASE)
get_filename_component(OVFAST_OPENVINO_LIB_DIR "${openvino_library}" DIRECTORY)
